"""Check the lake's candles alone and against the exchange's.

Doors: `run` checks the lake alone, `compare_published` compares it with the exchange.
"""
