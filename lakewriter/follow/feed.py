"""The feed: the candles of a lake from a time on, without a seam between past and present.

Rule 1: journals are read before partitions. A candle that leaves a journal in between is
then in its partition. Rule 2: if a journal's candles were missed, the partitions that
changed are read before anything later is handed out. Rule 3: a key is handed out once.

The order of each series is that of its begin times, but a candle that becomes known
after a later one of its series is handed out at once, marked `late`.
"""

import logging
import math
import select
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from itertools import chain, repeat
from pathlib import Path
from types import MappingProxyType

import pyarrow as pa
from msgspec.structs import replace

from lakewriter.candle import Candle, precedence
from lakewriter.follow.followed_candle import FollowedCandle, candles_of, followed
from lakewriter.follow.handed_values import HandedValues
from lakewriter.follow.history import BATCH_CANDLES, groups, read_history
from lakewriter.follow.journal_tail import JournalTail
from lakewriter.follow.lake_watch import LakeWatch
from lakewriter.follow.partition_changes import PartitionChanges
from lakewriter.follow.position import Position
from lakewriter.follow.wanted_series import WantedSeries
from lakewriter.lake.format import read_format
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.presence import read_partition_presence
from lakewriter.lake.root import LOCKS_DIRECTORY
from lakewriter.lake.storage import LocalStorage
from lakewriter.partition import Partition
from lakewriter.series import Series

log = logging.getLogger(__name__)

# Pause between two looks at changed partitions. A flush or a backfill changes many, and
# its candles are seldom new.
LOOK_EVERY_S = 0.25

# A look that takes long is followed by a pause that is so many times as long.
LOOK_PAUSE_FACTOR = 9

# A look is interrupted after this time, to hand out candles that became durable meanwhile.
LOOK_SLICE_S = 0.004

_SHOWN_MAX = 5

NOTHING: Mapping[int, int] = MappingProxyType({})

Key = tuple[str, str, str, int]


class Feed:
    """The feed of some series of one lake.

    Args:
        root: the lake's root. It may not exist yet.
        wanted: the series.
        position: what was handed out before. It is changed here when a candle is found.
        since_ms: the first begin time of a series that the position does not have. None
            is after the newest candle that the series has at the start.
        until_ms: candles that begin here or later are left out.
        corrections: whether corrections are handed out.
        now_s: the monotonic time in seconds.

    Raises:
        UsageError: on a system without inotify.
        LakeError: if the lake cannot be watched, or has a newer format.
    """

    def __init__(
        self,
        root: Path,
        wanted: WantedSeries,
        position: Position,
        *,
        since_ms: int | None = None,
        until_ms: int | None = None,
        corrections: bool = False,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._root = root
        self._wanted = wanted
        self._position = position
        self._since_ms = since_ms
        self._until_ms = until_ms
        self._values = HandedValues() if corrections else None
        self._began_ms: dict[Series, int] = {}
        self._past_until: set[tuple[str, str, str]] = set()
        self._now_s = now_s
        if since_ms is not None:
            position.from_ms = since_ms
        storage = LocalStorage(root, root / LOCKS_DIRECTORY)
        storage.keep_listings()
        self._store = LakeStore.local(root, storage)
        self._partitions = PartitionChanges(self._store, wanted, self._needs, self._first_ms)
        self._locks: frozenset[int] = frozenset()  # of partitions to look at
        self._look_s = 0.0  # the earliest time of the next look
        self._looking: Iterator[tuple[Partition, pa.Table] | None] | None = None
        self._found: list[FollowedCandle] = []  # of the journals at the start
        self._without_history: set[Series] = set()
        self._state = ""
        self._tail = JournalTail(root)
        self._watch = LakeWatch(root)

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when the lake changes."""
        return self._watch.fileno()

    def close(self) -> None:
        """Stop watching."""
        self._watch.close()
        self._tail.close()

    def wait(self, timeout_s: float | None = None, others: Mapping[int, int] = NOTHING) -> None:
        """Wait until the lake changes, or something else happens, or the time is over.

        Args:
            others: further descriptors, and the events of `select.poll` to wait for. It
                always waits for errors, too.
        """
        poll = select.poll()
        poll.register(self._watch.fileno(), select.POLLIN)
        for fd, events in others.items():
            poll.register(fd, events)
        pause_s = min((each for each in (timeout_s, self.look_in_s()) if each is not None), default=None)
        poll.poll(None if pause_s is None else max(0.0, pause_s) * 1000 + 1)

    def look_in_s(self) -> float | None:
        """Return the seconds until a next batch is due without a change; None if none is."""
        if self._looking is not None:
            return 0.0
        return max(0.0, self._look_s - self._now_s()) if self._locks else None

    def batches(self) -> Generator[list[FollowedCandle], None, None]:
        """Yield the candles in batches of up to some thousand; an empty one if there is nothing now.

        It ends only if there is an `until_ms`, and each series has reached it.

        Raises:
            LakeError: if a file of the lake cannot be read.
        """
        yield from self._history()
        found, self._found = self._found, []
        while True:
            # Asked before the journals and the changed partitions are read for the last time.
            is_over = self._is_over()
            self._note_changes()
            appended = self._tail.read()
            found += self._wanted_of(appended.candles)
            # The locks of the merges were released before their segment was deleted.
            has_more = (appended.missed and self._note_changes()) or appended.more
            if appended.missed or is_over:
                yield from self._in_order(found, self._look(math.inf))
            else:
                # New candles do not wait for the look at partitions.
                yield from self._in_order(found)
                yield from self._in_order([], self._look(LOOK_SLICE_S))
            found = []
            if not has_more:
                if is_over:
                    return
                yield []

    # The start

    def start(self) -> Position:
        """Set where each series begins, and return a copy of the position.

        Call it once, before `batches`.

        Raises:
            LakeError: if a file of the lake cannot be read, or the lake has a newer format.
        """
        self._tail.check_living()
        self._explain()
        self._found = self._read_journals()
        if self._root.is_dir():
            read_format(self._root)
            series = self._series()
            fresh = [each for each in series if each not in self._position]
            # One file of each series is read, so not without need.
            needs_ends = self._until_ms is not None or (fresh and self._since_ms is None)
            ends = self._newest_ends() if needs_ends else {}
            if self._since_ms is None:
                self._begin_at_newest(fresh, ends)
            for each in series:
                self._position.begin(each, self._position.from_ms)
                self._began_ms[each] = self._position.first_missing_ms(each)
            if self._until_ms is not None:
                # Partitions after `until` are not read.
                self._past_until.update(each for each, end_ms in ends.items() if end_ms > self._until_ms)
            absent = [each for each in self._wanted.named() if each not in self._position]
            if absent:
                more = f" and {len(absent) - _SHOWN_MAX} more" if len(absent) > _SHOWN_MAX else ""
                log.info("not in the lake yet: %s%s", ", ".join(map(str, absent[:_SHOWN_MAX])), more)
        return self._position.copy()

    def _series(self) -> list[Series]:
        return [each for each in self._store.series(self._wanted) if self._wanted.covers(each)]

    def _history(self) -> Iterator[list[FollowedCandle]]:
        """Yield the candles that the partitions have."""
        for group in groups([each for each in self._series() if each not in self._without_history]):
            for batch in read_history(self._store, group, self._first_ms, self._needs, self._partitions.note):
                yield from self._in_order([], batch)

    def _begin_at_newest(self, fresh: Iterable[Series], ends: Mapping[Series, int]) -> None:
        newest = dict(ends)
        for candle in self._found:
            if candle.series not in self._position:
                newest[candle.series] = max(newest.get(candle.series, 0), candle.end_ms)
        for series in (*fresh, *newest):
            if series not in self._position:
                self._without_history.add(series)
                self._position.begin(series, newest.get(series, 0))

    def _newest_ends(self) -> dict[Series, int]:
        """Return the end of the newest candle that the partitions of each series have."""
        newest: dict[Series, int] = {}
        for partition, names, _ in self._store.newest(self._wanted):
            series = partition.series
            if not self._wanted.covers(series):
                continue
            presence = read_partition_presence(
                self._store,
                series,
                partition.date.isoformat(),
                [partition.path],
                listed=dict.fromkeys(names, ""),
            )
            if presence.footer is not None and presence.footer.rows:
                last_ms = presence.footer.last_ms
            elif presence.begins is not None and len(presence.begins):
                last_ms = int(presence.begins[-1])
            else:
                continue
            newest[series] = max(newest.get(series, 0), series.grid.end(last_ms))
        return newest

    # The present

    def _note_changes(self) -> bool:
        """Note what changed; return whether a recorder may have died, so that its journal has more."""
        changes = self._watch.changes()
        self._locks |= changes.locks
        if changes.recorders:
            self._tail.check_living()
            self._explain()
        return changes.recorders

    def _read_journals(self) -> list[FollowedCandle]:
        """Return the wanted candles of all journals."""
        found = []
        while True:
            appended = self._tail.read()
            found += self._wanted_of(appended.candles)
            if not appended.more:
                return found

    def _wanted_of(self, candles: Iterable[Candle]) -> list[FollowedCandle]:
        covers = self._wanted.covers
        return [followed(each) for each in candles if covers((each.market, each.symbol, each.interval))]

    def _look(self, most_s: float) -> list[FollowedCandle]:
        """Return candles of partitions that changed, which may be handed out already.

        Args:
            most_s: the time after which the look is interrupted. The next call goes on. If
                it is infinite, the look begins even if it is not due, and ends.
        """
        rows: list[FollowedCandle] = []
        started_s = self._now_s()
        while self._looking is not None or (
            self._locks and (most_s == math.inf or started_s >= self._look_s)
        ):
            if self._looking is None:
                locks, self._locks = self._locks, frozenset()
                self._looking = self._partitions.changed(locks, footers_suffice=self._values is None)
            for changed in self._looking:
                if changed is not None:
                    partition, table = changed
                    rows += self._perhaps_new(candles_of(repeat(partition.series), table))
                if self._now_s() >= started_s + most_s:
                    return rows
            self._looking = None
            now_s = self._now_s()
            self._look_s = now_s + max(LOOK_EVERY_S, (now_s - started_s) * LOOK_PAUSE_FACTOR)
            if most_s < math.inf:
                break
        return rows

    def _perhaps_new(self, rows: list[FollowedCandle]) -> list[FollowedCandle]:
        """Return the rows that are not handed out, or are corrections."""
        has, values = self._position.has, self._values
        return [
            each
            for each in rows
            if not has((each.market, each.symbol, each.interval), each.begin_ms)
            or (values is not None and values.is_corrected_by(each))
        ]

    def _in_order(
        self, found: Sequence[FollowedCandle], rows: Sequence[FollowedCandle] = ()
    ) -> Iterator[list[FollowedCandle]]:
        """Yield the new ones of some candles, and the corrections, by end time, in batches.

        Args:
            found: candles of journals.
            rows: candles of partitions. Only these can be corrections.
        """
        best: dict[Key, FollowedCandle] = {}
        until_ms = self._until_ms
        for candle in chain(found, rows):
            series = (candle.market, candle.symbol, candle.interval)
            if until_ms is not None and candle.begin_ms >= until_ms:
                self._past_until.add(series)
            elif not self._position.has(series, candle.begin_ms):
                key = (*series, candle.begin_ms)
                if key not in best or precedence(candle) >= precedence(best[key]):
                    best[key] = candle
        values = self._values
        handed = []
        if values is not None:
            handed = [replace(each, correction=True) for each in rows if values.is_corrected_by(each)]
            handed.sort(key=_known_at)
        for candle in sorted(best.values(), key=_known_at):
            is_late = self._position.add((candle.market, candle.symbol, candle.interval), candle.begin_ms)
            handed.append(replace(candle, late=True) if is_late else candle)
        if values is not None:
            for candle in handed:
                values.remember(candle)
        for first in range(0, len(handed), BATCH_CANDLES):
            yield handed[first : first + BATCH_CANDLES]

    def _needs(self, series: Series, start_ms: int, stop_ms: int) -> bool:
        if self._until_ms is not None:
            stop_ms = min(stop_ms, self._until_ms)
        if start_ms >= stop_ms:
            return False
        if self._values is not None:
            return stop_ms > self._first_ms(series)
        return not self._position.covers(series, start_ms, stop_ms)

    def _first_ms(self, series: Series) -> int:
        """Return the first begin time of which something can still be handed out."""
        if self._values is not None:
            return self._began_ms.get(series, self._position.from_ms)
        return self._position.first_missing_ms(series)

    def _is_over(self) -> bool:
        """Return whether there is an end, and each series has reached it."""
        until_ms, position = self._until_ms, self._position
        if until_ms is None:
            return False
        series = {*filter(self._wanted.covers, position), *self._wanted.named()}
        return bool(series) and all(
            each in self._past_until or (each in position and position.newest_ms(each) >= until_ms)
            for each in series
        )

    def _explain(self) -> None:
        """Log one line if the thing to wait for has changed."""
        if not self._root.is_dir():
            state = f"no lake at {self._root} yet; waiting for one"
        elif not self._tail.living:
            state = f"no recorder writes into {self._root}; waiting for one"
        else:
            state = ""
        if state != self._state:
            self._state = state
            log.info("%s", state or f"a recorder writes into {self._root}")


def _known_at(candle: FollowedCandle) -> tuple[int, str, str, str, int]:
    return candle.end_ms, candle.market, candle.symbol, candle.interval, candle.begin_ms
