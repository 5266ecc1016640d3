"""The subscriptions of one connection: their names, their limit, and their silent streams.

Pure: the time is passed in. `schedule` has the frames of the other streams.
"""

from collections.abc import Iterable

from lakewriter.sandbox.faults.fault_set import FaultSet
from lakewriter.sandbox.streams.cursor import Cursor
from lakewriter.sandbox.streams.feed import Feed, Feeds
from lakewriter.sandbox.streams.protocol import DIALECTS
from lakewriter.sandbox.streams.schedule import Schedule


class Subscriptions:
    """The streams of one connection.

    Args:
        silent: whether all streams stay silent, as on a wrong route.
        opened_ms: the simulated time at which the connection was opened.
    """

    def __init__(
        self, market: str, feeds: Feeds, faults: FaultSet, schedule: Schedule, *, silent: bool, opened_ms: int
    ) -> None:
        self._market = market
        self._feeds = feeds
        self._faults = faults
        self._schedule = schedule
        self._silent = silent
        self._silencing_faults = [
            fault
            for fault in faults.named("ack_then_silence")
            if fault.market in ("", market) and fault.holds_at(opened_ms)
        ]
        self._cursors: dict[str, Cursor | None] = {}

    def __len__(self) -> int:
        return len(self._cursors)

    def names(self) -> list[str]:
        """Return the subscribed names in order, including silent ones."""
        return list(self._cursors)

    def streams_max(self, now_ms: int) -> int:
        """Return the present maximum number of streams of the connection."""
        most = DIALECTS[self._market].streams_max
        fewer = self._faults.active("fewer_streams", self._market, now_ms=now_ms)
        return most if fewer is None else min(most, int(fewer.value))

    def count_with(self, names: Iterable[str]) -> int:
        """Return the number of streams after the addition of these names."""
        return len({*self._cursors, *names})

    def add(self, names: Iterable[str], now_ms: int, *, silent: bool = False) -> None:
        """Add subscriptions.

        Args:
            silent: whether to list the names without sending their frames.
        """
        for name in names:
            if name not in self._cursors:
                feed = None if silent else self._find_feed(name)
                self._cursors[name] = None if feed is None else self._schedule.add(feed, now_ms)

    def remove(self, names: Iterable[str]) -> None:
        """Remove subscriptions. Names without a subscription are ignored."""
        for name in names:
            cursor = self._cursors.pop(name, None)
            if cursor is not None:
                cursor.subscribed = False

    def _find_feed(self, name: str) -> Feed | None:
        feed = None if self._silent else self._feeds.find(name)
        if feed is None:
            return None
        series = (self._market, feed.spec.symbol, feed.grid.name)
        return None if any(fault.concerns(*series) for fault in self._silencing_faults) else feed
