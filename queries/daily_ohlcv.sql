-- Open, high, low, close and volume of a series, one row per UTC day, and whether the day is complete.
-- :market = spot   spot, usdt_futures or coin_futures
-- :symbol = BTCUSDT   in either case
-- :interval = 1m   of the candles to read
-- :since = 1970-01-01   first begin time, UTC
-- :until = 9999-12-31   begin times before this one, UTC
SELECT
    candle_begin_time::DATE AS "date",
    open, high, low, close, volume, quote_volume, trade_num,
    candles, expected, complete
FROM resample($market, $symbol, $interval, '1d', since := $since, until := $until)
ORDER BY "date"
