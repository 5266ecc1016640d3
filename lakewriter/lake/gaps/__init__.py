"""The gap ledgers: the absent candles and the reasons for their absence.

Entry points: `ledgers` reads all ledgers, and `ledger` writes a living recorder's ledger.
"""
