"""Where a connection is in one stream, and what comes next: an open candle or a closing frame.

Rule 1: candles follow each other on the grid; each is closed once.
Rule 2: open candles are shown on a grid of their own, shared by all
connections; what is late is left out.

Pure: the time is told.
"""

from lakewriter.sandbox.feed import Feed, Frame


class Cursor:
    """Where a connection is in one stream."""

    def __init__(self, feed: Feed, now_ms: int) -> None:
        self.feed = feed
        self.live = True
        self.closing = False
        self.due_ms = 0
        self._begin_at(feed.first_begin_ms(now_ms))

    def plan(self, now_ms: int, push_ms: int) -> int:
        """Choose what is sent next, and return when."""
        self.closing = True
        self.due_ms = self._close_ms
        if push_ms:
            next_ms = now_ms + push_ms - (now_ms - int(self.feed.phase * push_ms)) % push_ms
            if self.begin_ms < next_ms < self._end_ms:
                self.closing, self.due_ms = False, next_ms
        return self.due_ms

    def take(self) -> Frame:
        """Return the frame that was planned; after a closing one comes the next candle."""
        if not self.closing:
            return self.feed.opened(self.begin_ms, self.due_ms)
        frame = self.feed.closed(self.begin_ms)
        self._begin_at(self._end_ms)
        return frame

    def _begin_at(self, begin_ms: int) -> None:
        self.begin_ms = begin_ms
        self._end_ms = self.feed.grid.end(begin_ms)
        self._close_ms = self.feed.due_ms(begin_ms)
