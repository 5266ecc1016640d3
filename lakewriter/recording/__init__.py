"""Listening and recording: the path of a candle from the socket to its partition."""
