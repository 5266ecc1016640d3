-- The volume-weighted average price of a series, bucket by bucket.
-- :bucket = 1 day   '5 minutes', '1 hour', '1 day', '1 week'
-- :market = spot   spot, usdt_futures or coin_futures
-- :symbol = BTCUSDT   in upper case
-- :interval = 1m   of the candles to read
-- :since = 1970-01-01   first begin time, UTC
-- :until = 9999-12-31   begin times before this one, UTC
-- On coin_futures the volume counts contracts, so their typical prices are weighted instead.
SELECT
    time_bucket($bucket::INTERVAL, candle_begin_time) AS bucket,
    CASE
        WHEN market = 'coin_futures' THEN sum((high + low + close) / 3 * volume) / nullif(sum(volume), 0)
        ELSE sum(quote_volume) / nullif(sum(volume), 0)
    END AS vwap,
    arg_max(close, candle_begin_time) AS close,
    sum(volume) AS volume,
    sum(trade_num)::BIGINT AS trade_num
FROM candles
WHERE market = $market AND symbol = $symbol AND "interval" = $interval
  AND candle_begin_time >= $since::TIMESTAMPTZ AND candle_begin_time < $until::TIMESTAMPTZ
  -- implied by the line above; spares opening the files of other days
  AND "date" BETWEEN $since::TIMESTAMPTZ::DATE AND $until::TIMESTAMPTZ::DATE
GROUP BY bucket, market
ORDER BY bucket
