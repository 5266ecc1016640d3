"""Check the lake's candles, alone and against the exchange's candles.

Entry points: `run` checks the lake alone, `compare_published` compares it with the exchange.
"""
