-- The latest candle of every series.
-- :since = 1970-01-01   leave out series without a candle since then, UTC; a later day is faster
SELECT market, symbol, "interval", candle_begin_time, candle_end_time, open, high, low, close, volume, trade_num, source
FROM latest(since := $since)
