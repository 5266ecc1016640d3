"""From the journal to partitions.

Door: `flusher`. `journaled_buffer` holds the candles to flush; `merger` merges them.
"""
