"""The page: candles, coverage, gaps and status of a lake, in a browser without internet.

`static` has the page's files, and `assets` serves them. `lake_reads` reads the lake for
the page, `readers` limits these reads, and `routes` adds all of it to an application.
"""
