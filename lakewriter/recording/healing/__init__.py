"""Gaps near the present: found, scheduled, and filled by REST.

Door: `healer`. `watermarks` tell which series are late; `schedule` says what is fetched next.
"""
