"""The sandbox over WebSocket: connections, subscriptions and frames.

Entry point: `sockets`. A `connection` sends the frames that its `schedule` takes from the shared `feed`.
"""
