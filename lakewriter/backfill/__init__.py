"""History from before the first recording: archive files first, REST for the rest.

Door: `run`. `plan` assigns ranges to sources; `archive_import` and `rest_fill` fetch them.
"""
