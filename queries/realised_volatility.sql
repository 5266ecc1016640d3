-- The realised volatility of a series by bucket, sqrt(sum(r²)) of its candles' log returns, and its yearly rate.
-- :bucket = 1d   1h, 1d, 1w, 1mo
-- :market = spot   spot, usdt_futures or coin_futures
-- :symbol = BTCUSDT   in either case
-- :interval = 1m   of the candles to read
-- :since = 1970-01-01   first begin time, UTC
-- :until = 9999-12-31   begin times before this one, UTC
FROM realised_volatility($market, $symbol, $interval, bucket := $bucket, since := $since, until := $until)
