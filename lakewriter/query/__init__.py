"""Answering SQL over the lake, fresh to the last journalled candle.

    sql ─► guard (may it run?) ─► scans (what they ask for) ─► pruning (where that can be)
        ─► files (which) ─► reading (by what SQL) ─► tables (views over them)
        ─► the answer ─► result | output

`session` takes a statement along this way, by an `attempt` in an engine that
`spare` made and that has a `fence`; `retry` takes it again when files moved
meanwhile, over files that `held_files` holds. What the engine cannot open by a path,
on an object store, `remote` reads for it; what its releases differ in is in
`engine`. `reader` is the way in from Python.
Only this package knows DuckDB. It reads the lake and never changes it.
"""
