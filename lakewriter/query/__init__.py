"""Answering SQL over the lake, fresh to the last journalled candle.

    sql ─► guard ─► scans (what they ask for) ─► pruning (where that can be)
        ─► files (which) ─► tables (views over them) ─► session (runs)
        ─► result | output

What the engine cannot open by a path, on an object store, `remote` reads for it.
Only this package knows DuckDB. It reads the lake and never changes it.
"""
