-- The candles of a series on each UTC day, and the number that a whole day has.
-- :market = spot   spot, usdt_futures or coin_futures
-- :symbol = BTCUSDT   in upper case
-- :interval = 1m   of the candles to read
-- :since = 1970-01-01   first begin time, UTC, or an age: 7d
-- :until = 9999-12-31   begin times before this one, UTC
SELECT
    "date",
    count(*) AS candles,
    86400000 // min(epoch_ms(candle_end_time) - epoch_ms(candle_begin_time)) AS whole_day,
    whole_day - count(*) AS missing,
    min(candle_begin_time) AS first,
    max(candle_begin_time) AS last
FROM candles
WHERE market = $market AND symbol = $symbol AND "interval" = $interval
  AND candle_begin_time >= $since::TIMESTAMPTZ AND candle_begin_time < $until::TIMESTAMPTZ
  -- implied by the line above; avoids opening the files of other days
  AND "date" BETWEEN $since::TIMESTAMPTZ::DATE AND $until::TIMESTAMPTZ::DATE
  AND "interval" NOT IN ('3d', '1w', '1mo')
GROUP BY "date"
ORDER BY "date"
