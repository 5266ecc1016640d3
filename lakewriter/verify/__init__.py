"""Checks of the lake's candles, by themselves and against the exchange's.

Door: `run` for the lake by itself, `compare_published` for the exchange.
"""
