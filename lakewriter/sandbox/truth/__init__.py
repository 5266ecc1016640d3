"""The candles and symbols of the sandbox, computed from a seed. Pure.

Entry point: `candles`. `integer_candles` makes candles from `noise`; `symbols` and
`catalogue` list markets.
"""
