"""The sandbox over WebSocket: connections, subscriptions and frames.

Door: `sockets`. A `connection` sends the frames that its `schedule` takes from the shared `feed`.
"""
