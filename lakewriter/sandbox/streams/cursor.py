"""The position of a connection in one stream, and its next frame.

Rule 1: candles follow each other on the grid, and each is closed once.
Rule 2: frames of open candles have a separate grid, which all connections share. A late
frame is left out.

Pure: the time is passed in.
"""

from lakewriter.sandbox.streams.feed import Feed, Step


class Cursor:
    """The position of a connection in one stream.

    Attributes:
        subscribed: whether the connection is still subscribed to the stream.
        held_begin_ms: begin of a closed candle that is held back until the next one closes.
    """

    def __init__(self, feed: Feed, now_ms: int) -> None:
        self.feed = feed
        self.subscribed = True
        self.held_begin_ms: int | None = None
        self._next = Step(0, 0, closed=True)
        self._begin_at(feed.first_begin_ms(now_ms))

    def plan(self, now_ms: int, push_ms: int) -> int:
        """Choose the next frame; return its due time."""
        self._next = Step(self._begin_ms, self._close_ms, closed=True)
        if push_ms:
            next_ms = now_ms + push_ms - (now_ms - int(self.feed.phase * push_ms)) % push_ms
            if self._begin_ms < next_ms < self._end_ms:
                self._next = Step(self._begin_ms, next_ms, closed=False)
        return self._next.event_ms

    def take(self) -> Step:
        """Return the planned frame. After a closing frame, advance to the next candle."""
        step = self._next
        if step.closed:
            self._begin_at(self._end_ms)
        return step

    def _begin_at(self, begin_ms: int) -> None:
        self._begin_ms = begin_ms
        self._end_ms = self.feed.grid.end(begin_ms)
        self._close_ms = self.feed.due_ms(begin_ms)
