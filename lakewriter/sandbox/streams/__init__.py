"""The sandbox over WebSocket: connections, subscriptions, and the frames they are sent.

Door: `sockets`. A `connection` sends what its `schedule` takes from the shared `feed`.
"""
