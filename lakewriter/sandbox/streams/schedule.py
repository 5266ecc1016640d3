"""Which frames one connection sends next, and what goes wrong with them.

Strategy: a heap of what is due. Each stream's cursor is in it once; a closing
frame that a fault puts off is in it too, while its cursor goes on. A candle
that does not exist is passed over in silence, at the time it would be due.

Pure: the time is told. It sends nothing.
"""

import heapq

from lakewriter.sandbox.faults.table import Fault, Faults
from lakewriter.sandbox.streams.cursor import Cursor
from lakewriter.sandbox.streams.feed import Feed, Frame, Step
from lakewriter.sandbox.truth.catalogue import Catalogue


class Schedule:
    """What is due on one connection.

    Args:
        push_ms: simulated time between frames of an open candle; 0 for none.
    """

    def __init__(self, catalogue: Catalogue, faults: Faults, push_ms: int) -> None:
        self._catalogue = catalogue
        self._faults = faults
        self._push_ms = push_ms
        # (when, a number that makes it unique, whose, and the begin of a closing frame put off)
        self._due: list[tuple[int, int, Cursor, int | None]] = []
        self._planned = 0

    @property
    def next_ms(self) -> int | None:
        """When something is due next; None for never."""
        return self._due[0][0] if self._due else None

    def add(self, feed: Feed, now_ms: int) -> Cursor:
        """Begin with a stream; it ends when the cursor is not `live` any more."""
        cursor = Cursor(feed, now_ms)
        self._plan(cursor, now_ms)
        return cursor

    def take(self, now_ms: int) -> list[Frame]:
        """Return the frames that are due first: mostly one; none if there is nothing to say."""
        due_ms, _, cursor, put_off_ms = heapq.heappop(self._due)
        if not cursor.live:
            return []
        if put_off_ms is not None:
            return self._closing(cursor, put_off_ms, due_ms)
        step = cursor.take()
        self._plan(cursor, now_ms)
        if not self._speaks(cursor.feed, step):
            return self._released(cursor, step)
        if not self._faults.touch_frames and cursor.held_ms is None:
            return [cursor.feed.frame(step)]
        return self._disturbed(cursor, step)

    def _plan(self, cursor: Cursor, now_ms: int) -> None:
        self._push(cursor.plan(now_ms, self._push_ms), cursor, None)

    def _push(self, due_ms: int, cursor: Cursor, put_off_ms: int | None) -> None:
        self._planned += 1
        heapq.heappush(self._due, (due_ms, self._planned, cursor, put_off_ms))

    def _speaks(self, feed: Feed, step: Step) -> bool:
        if not self._catalogue.exists(feed.spec, feed.grid, step.begin_ms):
            return False
        # The first candle of a new listing begins on the grid, before anybody trades.
        return not self._faults.touch_candles or step.event_ms >= self._catalogue.onboard_ms(feed.spec)

    def _disturbed(self, cursor: Cursor, step: Step) -> list[Frame]:
        feed = cursor.feed
        if self._active("silent_stream", feed, step.event_ms):
            return []
        if self._active("silent_zero_trades", feed, step.event_ms) and not feed.trades(step.begin_ms):
            return []
        if not step.closed:
            return [feed.frame(step)]
        if self._active("missing_close", feed, step.event_ms):
            return self._released(cursor, step)
        late = self._active("late_close", feed, step.event_ms)
        if late is not None:
            self._push(step.event_ms + round(late.value * 1000), cursor, step.begin_ms)
            return []
        return self._closing(cursor, step.begin_ms, step.event_ms)

    def _closing(self, cursor: Cursor, begin_ms: int, event_ms: int) -> list[Frame]:
        feed = cursor.feed
        begins = [begin_ms]
        if cursor.held_ms is not None:
            begins.append(cursor.held_ms)
            cursor.held_ms = None
        elif self._active("out_of_order_closes", feed, event_ms):
            cursor.held_ms = begin_ms
            return []
        times = 2 if self._active("duplicate_close", feed, event_ms) else 1
        ahead = self._active("close_ahead", feed, event_ms)
        steps = [_stamped(feed, begin, event_ms, ahead) for begin in begins]
        return [feed.frame(step) for step in steps for _ in range(times)]

    def _released(self, cursor: Cursor, step: Step) -> list[Frame]:
        """Return the closing frame that was held back for one that does not come."""
        if cursor.held_ms is None or not step.closed:
            return []
        held_ms, cursor.held_ms = cursor.held_ms, None
        return [cursor.feed.frame(Step(held_ms, step.event_ms, closed=True))]

    def _active(self, name: str, feed: Feed, event_ms: int) -> Fault | None:
        spec = feed.spec
        return self._faults.active(name, spec.market, spec.symbol, feed.grid.name, now_ms=event_ms)


def _stamped(feed: Feed, begin_ms: int, event_ms: int, ahead: Fault | None) -> Step:
    """Return the closing frame of a candle, or of one that lies ahead."""
    if ahead is None:
        return Step(begin_ms, event_ms, closed=True)
    later_ms = feed.grid.floor(begin_ms + round(ahead.value * 1000))
    return Step(later_ms, event_ms + later_ms - begin_ms, closed=True)
