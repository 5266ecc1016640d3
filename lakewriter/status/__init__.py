"""The status of a lake, from outside: its recorders, its size, its gaps, its disk.

Entry point: `lake_status.lake_status`. It works without a recorder, and on an object
store with what applies there. It changes nothing.
"""
