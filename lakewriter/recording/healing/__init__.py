"""Healing: gaps near the present are found, scheduled, and filled from REST.

Door: `healer`. `watermarks` find late candles; `schedule` plans the requests.
"""
