-- The symbols of a market with the largest moves, up or down, in its last hours in the lake.
-- :market = spot   spot, usdt_futures or coin_futures
-- :interval = 1m   of the candles to read
-- :window = 24 hours   length, back from the market's newest candle
-- :rows = 20   number of symbols
WITH newest AS (
    SELECT max(candle_end_time) AS moment FROM latest() WHERE market = $market AND "interval" = $interval
)
SELECT
    symbol,
    arg_min(open, candle_begin_time) AS open,
    arg_max(close, candle_begin_time) AS close,
    100 * (arg_max(close, candle_begin_time) / nullif(arg_min(open, candle_begin_time), 0) - 1) AS change_percent,
    max(high) AS high,
    min(low) AS low,
    sum(quote_volume) AS quote_volume,
    min(candle_begin_time) AS since,
    max(candle_end_time) AS until
FROM candles, newest
WHERE market = $market AND "interval" = $interval
  AND candle_begin_time >= newest.moment - $window::INTERVAL
  -- implied by the line above; avoids opening the files of earlier days
  AND "date" >= (newest.moment - $window::INTERVAL)::DATE
GROUP BY symbol
ORDER BY abs(change_percent) DESC NULLS LAST, symbol
LIMIT $rows::BIGINT
