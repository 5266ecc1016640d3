"""Fetch the history from before the first recording: first archive files, then REST.

Entry point: `run`. `planner` finds the missing ranges and `plan` assigns them to sources;
`archive_import` and `rest_fill` fetch them.
"""
