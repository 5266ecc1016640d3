"""Gaps near the present: found, scheduled, and filled by REST.

Door: `healer`. `watermarks` find late candles; `schedule` plans the requests.
"""
