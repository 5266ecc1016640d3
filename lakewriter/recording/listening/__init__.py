"""From a market's sockets to a queue of closed candles.

Door: `listener`. A `shard` keeps the streams of one `connection` alive.
"""
