-- Simple and logarithmic returns of a series' closing price, bucket by bucket.
-- :bucket = 1 day   '1 minute', '1 hour', '1 day', '1 week'
-- :market = spot   spot, usdt_futures or coin_futures
-- :symbol = BTCUSDT   in upper case
-- :interval = 1m   of the candles to read
-- :since = 1970-01-01   first begin time, UTC
-- :until = 9999-12-31   begin times before this one, UTC
WITH closes AS (
    SELECT
        time_bucket($bucket::INTERVAL, candle_begin_time) AS bucket,
        arg_max(close, candle_begin_time) AS close
    FROM candles
    WHERE market = $market AND symbol = $symbol AND "interval" = $interval
  AND candle_begin_time >= $since::TIMESTAMPTZ AND candle_begin_time < $until::TIMESTAMPTZ
  -- implied by the line above; spares opening the files of other days
  AND "date" BETWEEN $since::TIMESTAMPTZ::DATE AND $until::TIMESTAMPTZ::DATE
    GROUP BY bucket
)
SELECT
    bucket,
    close,
    close / lag(close) OVER by_time - 1 AS simple_return,
    ln(close / lag(close) OVER by_time) AS log_return
FROM closes
WHERE close > 0
WINDOW by_time AS (ORDER BY bucket)
ORDER BY bucket
