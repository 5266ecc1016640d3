"""The candles that the lake has already, in the order in which they were known.

Strategy: series are read in groups, so that the present partitions of a group fit into
memory. Within a group all series advance together, a day at a time. Their candles are
ordered by end time, then by series. A candle is known at its end, so a 1h candle comes
after the 1m candles in it.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pyarrow as pa

from lakewriter.candle import int_column
from lakewriter.follow.followed_candle import FollowedCandle, candles_of
from lakewriter.follow.partition_rows import partitions_of, read_partition, rows_max
from lakewriter.interval import DAY_MS
from lakewriter.lake.lake import LakeStore
from lakewriter.partition import Partition
from lakewriter.series import Series

# Maximum number of rows of a group in memory, about 60 MB. 347 series of 1m form one group.
GROUP_ROWS_MAX = 500_000

# Candles of one batch.
BATCH_CANDLES = 2_048

Needs = Callable[[Series, int, int], bool]
Note = Callable[[Partition, str | None], None]


def groups(series: Sequence[Series], rows: int = GROUP_ROWS_MAX) -> Iterator[list[Series]]:
    """Split series into groups whose present partitions fit into memory."""
    group: list[Series] = []
    left = rows
    for each in series:
        if group and left < rows_max(each):
            yield group
            group, left = [], rows
        group.append(each)
        left -= rows_max(each)
    if group:
        yield group


def read_history(
    store: LakeStore, group: Sequence[Series], first_ms: Callable[[Series], int], needs: Needs, note: Note
) -> Iterator[list[FollowedCandle]]:
    """Yield the candles of a group of series, in batches. Some of them may not be needed.

    Args:
        first_ms: returns the first begin time that a series needs.
        needs: returns whether a series needs some begin times of a range.
        note: is called with each partition that was read, and the version of its own file.

    Raises:
        LakeError: if a file cannot be read.
    """
    cursors = [_Cursor(store, each, first_ms(each), needs, note) for each in group]
    running = [cursor for cursor in cursors if cursor.has_more]
    while running:
        # The first day in which a candle can end, after its first moment.
        day = min(cursor.next_ms for cursor in running) // DAY_MS
        parts = []
        for cursor in running:
            parts += [(cursor.series, rows) for rows in cursor.until((day + 1) * DAY_MS)]
        yield from _merged(parts)
        running = [cursor for cursor in running if cursor.has_more]


class _Cursor:
    """The place of one series in its history."""

    def __init__(self, store: LakeStore, series: Series, from_ms: int, needs: Needs, note: Note) -> None:
        self.series = series
        self._store = store
        self._from_ms = from_ms
        self._note = note
        found = partitions_of(store, series)
        self._partitions = [each for each in found if needs(series, each.start_ms, each.stop_ms)][::-1]
        self._directories = found
        self._rows: pa.Table | None = None

    @property
    def has_more(self) -> bool:
        return self._rows is not None or bool(self._partitions)

    @property
    def next_ms(self) -> int:
        """A time that is not after the end of the next candle."""
        if self._rows is not None:
            return int(int_column(self._rows, "candle_end_time")[0]) - 1
        return max(self._partitions[-1].start_ms, self._from_ms)

    def until(self, stop_ms: int) -> Iterator[pa.Table]:
        """Yield the next rows that end no later than a time."""
        while True:
            if self._rows is None:
                if not self._partitions or self._partitions[-1].start_ms >= stop_ms:
                    return
                self._read(self._partitions.pop())
                continue
            stop = int(np.searchsorted(int_column(self._rows, "candle_end_time"), stop_ms, "right"))
            if stop:
                yield self._rows.slice(0, stop)
            if stop < self._rows.num_rows:
                self._rows = self._rows.slice(stop)
                return
            self._rows = None

    def _read(self, partition: Partition) -> None:
        rows, version = read_partition(self._store, partition, self._directories[partition])
        self._note(partition, version)
        first = int(np.searchsorted(int_column(rows, "candle_begin_time"), self._from_ms))
        rows = rows.slice(first)
        self._rows = rows if rows.num_rows else None


def _merged(parts: Sequence[tuple[Series, pa.Table]]) -> Iterator[list[FollowedCandle]]:
    """Yield the rows of several series, ordered by end time, then in the order of the series."""
    if not parts:
        return
    ends = np.concatenate([int_column(rows, "candle_end_time") for _, rows in parts])
    owners = np.repeat(np.arange(len(parts)), [rows.num_rows for _, rows in parts])
    table = pa.concat_tables([rows for _, rows in parts]).combine_chunks()
    order = np.lexsort((owners, ends))
    for first in range(0, len(order), BATCH_CANDLES):
        chosen = order[first : first + BATCH_CANDLES]
        series = [parts[owner][0] for owner in owners[chosen].tolist()]
        yield candles_of(series, table.take(pa.array(chosen)))
