"""SQL over the lake, including every journalled candle.

    sql ─► statement (is it allowed?) ─► scan (filters, partitions, files, views)
        ─► execution (rows) ─► python | output

`session` runs a statement as one `execution`, on a cursor of the cached `engine`.
`retry` starts another execution if files were replaced meanwhile.
`python` is the Python interface. `Lake.candles` and `Lake.matrix` read files without SQL.
Only this package knows DuckDB. It reads the lake and never changes it.
"""
