-- Open, high, low, close and volume by day, and whether the day is complete.
-- :market = spot   spot, usdt_futures or coin_futures
-- :symbol = BTCUSDT   or several: BTCUSDT,ETHUSDT or *USDT
-- :interval = 1m   of the candles to read
-- :since = 1970-01-01   first begin time, UTC, or an age: 7d
-- :until = 9999-12-31   begin times before this one, UTC
-- :zone = UTC   whose days and months: Asia/Shanghai
-- :shift = 0s   later begin of the buckets: 8h
SELECT
    symbol,
    (candle_begin_time AT TIME ZONE $zone)::DATE AS "date",
    open, high, low, close, volume, quote_volume, trade_num,
    candles, expected, complete
FROM resample($market, $symbol, $interval, '1d', since := $since, until := $until, zone := $zone, shift := $shift)
ORDER BY symbol, "date"
