"""The gap ledger: which candles are absent, and why.

Doors: `ledgers` reads all of them; `ledger` writes the one of a living recorder.
"""
