-- The realised volatility of a series by bucket, sqrt(sum(r²)) of its candles' log returns, and its yearly rate.
-- :bucket = 1d   1h, 1d, 1w, 1mo
-- :market = spot   spot, usdt_futures or coin_futures
-- :symbol = BTCUSDT   or several: BTCUSDT,ETHUSDT or *USDT
-- :interval = 1m   of the candles to read
-- :since = 1970-01-01   first begin time, UTC, or an age: 7d
-- :until = 9999-12-31   begin times before this one, UTC
-- :zone = UTC   whose days and months: Asia/Shanghai
-- :shift = 0s   later begin of the buckets: 8h
FROM realised_volatility($market, $symbol, $interval, bucket := $bucket, since := $since, until := $until, zone := $zone, shift := $shift)
