"""The next frames of one connection, with faults.

Strategy: a heap of due times, with one entry for each stream's cursor. A closing frame that
a fault delays has a separate entry, while its cursor advances. An absent candle has an
entry but no frame. Pure: the time is passed in, and nothing is sent.
"""

import heapq

from lakewriter.sandbox.faults.fault_set import FaultSet
from lakewriter.sandbox.faults.table import Fault
from lakewriter.sandbox.streams.cursor import Cursor
from lakewriter.sandbox.streams.feed import Feed, Frame, Step
from lakewriter.sandbox.truth.catalogue import SymbolCatalogue


class Schedule:
    """The pending frames of one connection.

    Args:
        push_ms: simulated time between frames of an open candle; 0 to send no such frames.
    """

    def __init__(self, catalogue: SymbolCatalogue, faults: FaultSet, push_ms: int) -> None:
        self._catalogue = catalogue
        self._faults = faults
        self._push_ms = push_ms
        # (due time, a unique number, cursor, begin time of the candle whose closing frame
        # is delayed)
        self._due: list[tuple[int, int, Cursor, int | None]] = []
        self._planned = 0

    @property
    def next_ms(self) -> int | None:
        """The due time of the next frame; None without pending frames."""
        return self._due[0][0] if self._due else None

    def add(self, feed: Feed, now_ms: int) -> Cursor:
        """Add a stream, which ends when its cursor is no longer `subscribed`."""
        cursor = Cursor(feed, now_ms)
        self._plan(cursor, now_ms)
        return cursor

    def take(self, now_ms: int) -> list[Frame]:
        """Return the frames of the first entry: usually one frame, no frame for an absent candle."""
        due_ms, _, cursor, delayed_begin_ms = heapq.heappop(self._due)
        if not cursor.subscribed:
            return []
        if delayed_begin_ms is not None:
            return self._closing_frames(cursor, delayed_begin_ms, due_ms)
        step = cursor.take()
        self._plan(cursor, now_ms)
        if not self._is_sent(cursor.feed, step):
            return self._held_frames(cursor, step)
        if not self._faults.may_change_frames and cursor.held_begin_ms is None:
            return [cursor.feed.frame(step)]
        return self._with_faults(cursor, step)

    def _plan(self, cursor: Cursor, now_ms: int) -> None:
        self._push(cursor.plan(now_ms, self._push_ms), cursor, None)

    def _push(self, due_ms: int, cursor: Cursor, delayed_begin_ms: int | None) -> None:
        self._planned += 1
        heapq.heappush(self._due, (due_ms, self._planned, cursor, delayed_begin_ms))

    def _is_sent(self, feed: Feed, step: Step) -> bool:
        if not self._catalogue.exists(feed.spec, feed.grid, step.begin_ms):
            return False
        # The first candle of a new listing begins on the grid, possibly before the first trade.
        return not self._faults.may_remove_candles or step.event_ms >= self._catalogue.onboard_ms(feed.spec)

    def _with_faults(self, cursor: Cursor, step: Step) -> list[Frame]:
        feed = cursor.feed
        if self._active("silent_stream", feed, step.event_ms):
            return []
        if self._active("silent_zero_trades", feed, step.event_ms) and not feed.trade_num(step.begin_ms):
            return []
        if not step.closed:
            return [feed.frame(step)]
        if self._active("missing_close", feed, step.event_ms):
            return self._held_frames(cursor, step)
        late = self._active("late_close", feed, step.event_ms)
        if late is not None:
            self._push(step.event_ms + round(late.value * 1000), cursor, step.begin_ms)
            return []
        return self._closing_frames(cursor, step.begin_ms, step.event_ms)

    def _closing_frames(self, cursor: Cursor, begin_ms: int, event_ms: int) -> list[Frame]:
        feed = cursor.feed
        begins = [begin_ms]
        if cursor.held_begin_ms is not None:
            begins.append(cursor.held_begin_ms)
            cursor.held_begin_ms = None
        elif self._active("out_of_order_closes", feed, event_ms):
            cursor.held_begin_ms = begin_ms
            return []
        times = 2 if self._active("duplicate_close", feed, event_ms) else 1
        ahead = self._active("close_ahead", feed, event_ms)
        steps = [_closing_step(feed, begin, event_ms, ahead) for begin in begins]
        return [feed.frame(step) for step in steps for _ in range(times)]

    def _held_frames(self, cursor: Cursor, step: Step) -> list[Frame]:
        """Return the closing frame that was held back until this step, whose own frame is not sent."""
        if cursor.held_begin_ms is None or not step.closed:
            return []
        held_ms, cursor.held_begin_ms = cursor.held_begin_ms, None
        return [cursor.feed.frame(Step(held_ms, step.event_ms, closed=True))]

    def _active(self, name: str, feed: Feed, event_ms: int) -> Fault | None:
        spec = feed.spec
        return self._faults.active(name, spec.market, spec.symbol, feed.grid.name, now_ms=event_ms)


def _closing_step(feed: Feed, begin_ms: int, event_ms: int, ahead: Fault | None) -> Step:
    """Return the closing step of a candle. The fault `close_ahead` replaces it with a later candle's."""
    if ahead is None:
        return Step(begin_ms, event_ms, closed=True)
    later_ms = feed.grid.floor(begin_ms + round(ahead.value * 1000))
    return Step(later_ms, event_ms + later_ms - begin_ms, closed=True)
