"""History from before the first recording: archive files first, REST for the rest.

Door: `run`. `plan` decides which source serves which range; `archive_import` and `rest_fill` fetch it.
"""
