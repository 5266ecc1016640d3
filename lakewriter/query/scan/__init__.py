"""The steps from the filters of a statement to the files that it reads.

    pushdown (filters) ─► pruning (partitions) ─► snapshot (files) ─► scan_sql ─► tables (views)

`kept_filters` caches the filters of repeated statements. `held_files` keeps files
open while they are read. `object_scan` reads remote files. Door: `tables`.
"""
