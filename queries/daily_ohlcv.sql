-- Open, high, low, close and volume of a series, one row per UTC day.
-- :market = spot   spot, usdt_futures or coin_futures
-- :symbol = BTCUSDT   in upper case
-- :interval = 1m   of the candles to read
-- :since = 1970-01-01   first begin time, UTC
-- :until = 9999-12-31   begin times before this one, UTC
SELECT
    "date",
    arg_min(open, candle_begin_time) AS open,
    max(high) AS high,
    min(low) AS low,
    arg_max(close, candle_begin_time) AS close,
    sum(volume) AS volume,
    sum(quote_volume) AS quote_volume,
    sum(trade_num)::BIGINT AS trade_num,
    count(*) AS candles
FROM candles
WHERE market = $market AND symbol = $symbol AND "interval" = $interval
  AND candle_begin_time >= $since::TIMESTAMPTZ AND candle_begin_time < $until::TIMESTAMPTZ
  -- implied by the line above; spares opening the files of other days
  AND "date" BETWEEN $since::TIMESTAMPTZ::DATE AND $until::TIMESTAMPTZ::DATE
GROUP BY "date"
ORDER BY "date"
