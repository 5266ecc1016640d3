-- A series in longer candles: any bucket from minutes to months, with how many candles each is made of.
-- :bucket = 5 minutes   length of the new candles: '5 minutes', '1 hour', '1 week', '1 month'
-- :market = spot   spot, usdt_futures or coin_futures
-- :symbol = BTCUSDT   in upper case
-- :interval = 1m   of the candles to read
-- :since = 1970-01-01   first begin time, UTC
-- :until = 9999-12-31   begin times before this one, UTC
SELECT
    time_bucket($bucket::INTERVAL, candle_begin_time) AS candle_begin_time,
    time_bucket($bucket::INTERVAL, candle_begin_time) + $bucket::INTERVAL AS candle_end_time,
    arg_min(open, candles.candle_begin_time) AS open,
    max(high) AS high,
    min(low) AS low,
    arg_max(close, candles.candle_begin_time) AS close,
    sum(volume) AS volume,
    sum(quote_volume) AS quote_volume,
    sum(trade_num)::BIGINT AS trade_num,
    sum(taker_buy_base_asset_volume) AS taker_buy_base_asset_volume,
    sum(taker_buy_quote_asset_volume) AS taker_buy_quote_asset_volume,
    count(*) AS candles
FROM candles
WHERE market = $market AND symbol = $symbol AND "interval" = $interval
  AND candle_begin_time >= $since::TIMESTAMPTZ AND candle_begin_time < $until::TIMESTAMPTZ
  -- implied by the line above; spares opening the files of other days
  AND "date" BETWEEN $since::TIMESTAMPTZ::DATE AND $until::TIMESTAMPTZ::DATE
GROUP BY 1, 2
ORDER BY 1
