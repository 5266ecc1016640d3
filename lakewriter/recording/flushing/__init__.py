"""From the journal to partitions.

Door: `flusher`. `journaled_buffer` holds what is flushed; `merger` merges it.
"""
