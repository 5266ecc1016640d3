"""What one connection is subscribed to: names, whether they fit, and which of them stay silent.

Pure: the time is told. What is due of the streams that speak is in `schedule`.
"""

from collections.abc import Iterable

from lakewriter.sandbox.faults.table import Faults
from lakewriter.sandbox.streams.cursor import Cursor
from lakewriter.sandbox.streams.feed import Feed, Feeds
from lakewriter.sandbox.streams.protocol import ACCENTS
from lakewriter.sandbox.streams.schedule import Schedule


class Subscriptions:
    """The streams of one connection.

    Args:
        silent: none of them ever sends anything, as on a wrong route.
        opened_ms: when the connection was opened.
    """

    def __init__(
        self, market: str, feeds: Feeds, faults: Faults, schedule: Schedule, *, silent: bool, opened_ms: int
    ) -> None:
        self._market = market
        self._feeds = feeds
        self._faults = faults
        self._schedule = schedule
        self._silent = silent
        self._silences = [
            fault
            for fault in faults.named("ack_then_silence")
            if fault.market in ("", market) and fault.holds(opened_ms)
        ]
        self._cursors: dict[str, Cursor | None] = {}

    def __len__(self) -> int:
        return len(self._cursors)

    def names(self) -> list[str]:
        """Return what was subscribed to, in that order, silent or not."""
        return list(self._cursors)

    def streams_max(self, now_ms: int) -> int:
        """Return how many streams the connection may have now."""
        most = ACCENTS[self._market].streams_max
        fewer = self._faults.active("fewer_streams", self._market, now_ms=now_ms)
        return most if fewer is None else min(most, int(fewer.value))

    def count_with(self, names: Iterable[str]) -> int:
        """Return how many streams there would be with these."""
        return len({*self._cursors, *names})

    def add(self, names: Iterable[str], now_ms: int, *, lost: bool = False) -> None:
        """Subscribe.

        Args:
            lost: list them, and never send anything.
        """
        for name in names:
            if name not in self._cursors:
                feed = None if lost else self._speaking(name)
                self._cursors[name] = None if feed is None else self._schedule.add(feed, now_ms)

    def remove(self, names: Iterable[str]) -> None:
        """Unsubscribe, also from what was never subscribed to."""
        for name in names:
            cursor = self._cursors.pop(name, None)
            if cursor is not None:
                cursor.live = False

    def _speaking(self, name: str) -> Feed | None:
        feed = None if self._silent else self._feeds.find(name)
        if feed is None:
            return None
        series = (self._market, feed.spec.symbol, feed.grid.name)
        return None if any(fault.concerns(*series) for fault in self._silences) else feed
