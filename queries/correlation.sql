-- The correlation and beta of two symbols of a market, from the log returns of their candles, by bucket.
-- :bucket = 1d   1h, 1d, 1w, 1mo
-- :other = ETHUSDT   the symbol to compare with
-- :market = spot   spot, usdt_futures or coin_futures
-- :symbol = BTCUSDT   in either case
-- :interval = 1m   of the candles to read
-- :since = 1970-01-01   first begin time, UTC
-- :until = 9999-12-31   begin times before this one, UTC
FROM correlation($market, $symbol, $interval, other := $other, bucket := $bucket, since := $since, until := $until)
