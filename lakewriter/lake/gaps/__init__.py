"""The gap ledgers: which candles are absent, and why.

Entry points: `ledgers` reads all ledgers; `ledger` writes the one of a living recorder.
"""
