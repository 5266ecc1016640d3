"""The path of closed candles from a market's sockets to a queue.

Entry point: `listener`. A `shard` keeps the streams of one `connection` alive.
"""
