"""The steps from the filters of a statement to the files that it reads.

    pushdown (filters) ─► pruning (partitions) ─► snapshot (files) ─► scan_sql ─► tables (views)

`kept_filters` avoids the first step: `statement.where_tree` reads the filters of simple statements,
and a cache keeps those of repeated ones. `held_files` keeps files open while they are
read. `object_scan` reads remote files. Entry point: `tables`.
"""
