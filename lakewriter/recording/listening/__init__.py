"""The path of closed candles from a market's sockets to a queue.

Door: `listener`. A `shard` keeps the streams of one `connection` alive.
"""
