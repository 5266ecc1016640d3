"""Healing: gaps near the present are found, scheduled, and filled from REST.

Entry point: `healer`. `watermarks` find late candles; `schedule` plans the requests.
"""
