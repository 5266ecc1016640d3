"""A feed that is read to its present end, without waiting."""

import itertools
from pathlib import Path

from lakewriter.follow.feed import Feed
from lakewriter.follow.followed_candle import FollowedCandle
from lakewriter.follow.position import Position, parse_position
from lakewriter.follow.wanted_series import WantedSeries
from lakewriter.lake.journal import Journal
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.segments import read_segment
from lakewriter.subscription import parse_subscription
from support.lakes import merge_candles


class Reader:
    """A follower that takes all that there is, and never waits.

    Args:
        root: the lake's root.
        subscriptions: as on the command line.
        after: the position of an earlier reader.
    """

    def __init__(
        self,
        root: Path,
        *subscriptions: str,
        after: str | None = None,
        corrections: bool = False,
        **times: int,
    ) -> None:
        wanted = WantedSeries([parse_subscription(text) for text in subscriptions or ("spot:*:1m",)])
        begun = Position() if after is None else parse_position(after, "after")
        # Each look at changed partitions is due at once.
        seconds = itertools.count(0, 60)
        self.feed = Feed(
            root, wanted, begun, corrections=corrections, now_s=lambda: float(next(seconds)), **times
        )
        self._position = self.feed.start()
        self._batches = self.feed.batches()

    def take(self) -> list[FollowedCandle]:
        """Return what came since the last call."""
        taken = []
        while True:
            batch = next(self._batches, None)
            taken += batch or []
            if not batch and self.feed.look_in_s() is None:
                break
        for candle in taken:
            if not candle.correction:
                self._position.add((candle.market, candle.symbol, candle.interval), candle.begin_ms)
        return taken

    def minutes(self) -> list[int]:
        """Return the minutes of a day that came, late ones as negative numbers."""
        return [candle.begin_ms // 60_000 % 1440 * (-1 if candle.late else 1) for candle in self.take()]

    def position(self) -> str:
        return self._position.encode()

    def close(self) -> None:
        self._batches.close()
        self.feed.close()


def flush(store: LakeStore, journal: Journal) -> None:
    """Merge a journal's candles into partitions, and drop its segments, as a recorder does."""
    segments = journal.roll()
    for segment in segments:
        merge_candles(store, read_segment(segment).candles)
    journal.drop(segments)
