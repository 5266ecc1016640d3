-- The latest candle of every series.
SELECT
    market,
    symbol,
    "interval",
    max(candles.candle_begin_time) AS candle_begin_time,
    max(candle_end_time) AS candle_end_time,
    arg_max(open, candles.candle_begin_time) AS open,
    arg_max(high, candles.candle_begin_time) AS high,
    arg_max(low, candles.candle_begin_time) AS low,
    arg_max(close, candles.candle_begin_time) AS close,
    arg_max(volume, candles.candle_begin_time) AS volume,
    arg_max(trade_num, candles.candle_begin_time) AS trade_num,
    arg_max(source, candles.candle_begin_time) AS source
FROM candles
GROUP BY market, symbol, "interval"
ORDER BY market, symbol, "interval"
