-- The basis of a future, candle by candle: its close beside the last close of spot by then (ASOF join).
-- :market = usdt_futures   of the future: usdt_futures or coin_futures
-- :symbol = BTCUSDT   the future; on coin_futures BTCUSD_PERP
-- :spot = BTCUSDT   the symbol on spot
-- :interval = 1m   of the candles to read
-- :since = 1970-01-01   first begin time, UTC, or an age: 7d
-- :until = 9999-12-31   begin times before this one, UTC
SELECT
    f.candle_end_time,
    f.close AS future,
    s.close AS spot,
    100 * (f.close / nullif(s.close, 0) - 1) AS basis_percent,
    f.candle_end_time - s.candle_end_time AS spot_age
FROM candles_of($market, $symbol, $interval, since := $since, until := $until) AS f
ASOF JOIN candles_of('spot', $spot, $interval, since := $since, until := $until) AS s ON f.candle_end_time >= s.candle_end_time
ORDER BY f.candle_end_time
