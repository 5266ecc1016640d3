"""Every candle and symbol of the sandbox, computed from a seed. Pure.

Door: `candles`. `integer_candles` makes them of `noise`; `symbols` and `catalogue` list markets.
"""
