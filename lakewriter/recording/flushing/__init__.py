"""The path of candles from the journal to their partitions.

Entry point: `flusher`. `journaled_buffer` holds the candles to flush; `merger` merges them.
"""
