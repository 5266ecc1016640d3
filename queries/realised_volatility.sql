-- The realised volatility of a series by UTC day, from the returns of its candles; and as a yearly rate.
-- :market = spot   spot, usdt_futures or coin_futures
-- :symbol = BTCUSDT   in upper case
-- :interval = 1m   of the candles to read
-- :since = 1970-01-01   first begin time, UTC
-- :until = 9999-12-31   begin times before this one, UTC
WITH steps AS (
    SELECT
        "date",
        -- A candle whose predecessor is missing has no return.
        CASE WHEN lag(candle_end_time) OVER by_time = candle_begin_time
            THEN ln(close / lag(close) OVER by_time)
        END AS log_return
    FROM candles
    WHERE market = $market AND symbol = $symbol AND "interval" = $interval
  AND candle_begin_time >= $since::TIMESTAMPTZ AND candle_begin_time < $until::TIMESTAMPTZ
  -- implied by the line above; spares opening the files of other days
  AND "date" BETWEEN $since::TIMESTAMPTZ::DATE AND $until::TIMESTAMPTZ::DATE
      AND close > 0
    WINDOW by_time AS (ORDER BY candle_begin_time)
)
SELECT
    "date",
    count(log_return) AS returns,
    sqrt(sum(log_return * log_return)) AS realised_volatility,
    sqrt(sum(log_return * log_return) * 365) AS annualised
FROM steps
GROUP BY "date"
HAVING count(log_return) > 0
ORDER BY "date"
