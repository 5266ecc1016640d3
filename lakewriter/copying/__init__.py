"""Copying of a lake into another one, on disks and object stores; a merge of two lakes is a copy, too.

Entry points: `pair` opens the two lakes, and `run` copies the candles and records.
"""
