"""SQL over the lake, including every journalled candle.

    sql ─► guard (is it allowed?) ─► scan (filters, partitions, files, views)
        ─► execution (rows) ─► result | output

`session` runs a statement as one `execution`, on a cursor of the cached `engine`.
`retry` starts another execution if files were replaced meanwhile.
`reader` is the Python interface.
Only this package knows DuckDB. It reads the lake and never changes it.
"""
