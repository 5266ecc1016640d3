"""SQL over the lake, including every journalled candle.

    sql ─► guard (is it allowed?) ─► scan (filters, partitions, files, views)
        ─► execution (rows) ─► result | output

`session` runs a statement as one `execution`, on a cursor of the cached `engine`.
`retry` starts another execution if files were replaced meanwhile.
`reader` is the Python interface. For `Lake.candles` and `Lake.matrix`, `candle_request`
names the symbols, `series_rows` reads their files, and `frames` makes frames of pandas.
Only this package knows DuckDB. It reads the lake and never changes it.
"""
