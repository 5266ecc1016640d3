"""History from before the first recording: archive files first, REST for the rest.

Door: `run`. `planner` finds the missing ranges and `plan` assigns them to sources;
`archive_import` and `rest_fill` fetch them.
"""
