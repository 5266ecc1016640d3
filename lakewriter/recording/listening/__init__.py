"""From a market's sockets to a queue of closed candles.

Door: `listener`. A `shard` cares for the streams of one `connection`.
"""
