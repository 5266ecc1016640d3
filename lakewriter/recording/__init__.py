"""Listening and recording: from the socket to the journal, the buffer and the merge."""
