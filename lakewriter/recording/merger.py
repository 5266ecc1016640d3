"""The merger: buffered candles into their partitions, in a few threads; it says which had to stay.

Partitions are merged in groups, whose files are synced together. A group in
which one refuses is merged once more, each by itself: merging the same rows
again changes nothing.
"""

import asyncio
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pyarrow as pa

from lakewriter.candle import to_table
from lakewriter.errors import LakeError
from lakewriter.interval import DAY_MS, INTERVALS
from lakewriter.lake.lake import BATCH_PARTITIONS_MAX, LakeStore, Merged
from lakewriter.partition import Partition
from lakewriter.recording.buffer import Batch

log = logging.getLogger(__name__)

MERGE_THREADS = 2

# A group's files are in memory together: so many rows they may have in all, some 5 MB.
# That is 64 days of minutes, but one of seconds.
GROUP_ROWS_MAX = BATCH_PARTITIONS_MAX * 1440


class FlushResult(NamedTuple):
    """What became of a batch.

    Args:
        left: what could not be merged.
        flushed: candles that are in their partitions now.
        corrections: rows replaced by ones with other prices or volumes.
    """

    left: Batch
    flushed: int
    corrections: int


# A partition that raises one of these is tried again; the others are merged all the same.
_REFUSALS = (LakeError, OSError, pa.ArrowException, MemoryError)


class _Refusal(NamedTuple):
    """Why a partition was not merged, and the file in question; "" if none was named."""

    reason: str
    path: str


class Merger:
    """Merges into one lake.

    Args:
        store: the lake.
    """

    def __init__(self, store: LakeStore) -> None:
        self._store = store
        self._threads = ThreadPoolExecutor(MERGE_THREADS, "merge")

    async def merge(self, batch: Batch) -> FlushResult:
        """Merge all that can be; what cannot be is logged, with the reason.

        Crash: each partition is as before or as after, whole.
        """
        loop = asyncio.get_running_loop()
        merging = [loop.run_in_executor(self._threads, self._merge_group, group) for group in groups(batch)]
        left: Batch = {}
        refusals: dict[str, list[tuple[Partition, str]]] = {}
        flushed = corrections = 0
        for merged_group in await asyncio.gather(*merging):
            for partition, merged in merged_group.items():
                if isinstance(merged, _Refusal):
                    left[partition] = batch[partition]
                    refusals.setdefault(merged.reason, []).append((partition, merged.path))
                    continue
                flushed += len(batch[partition])
                corrections += merged.corrections
                if merged.corrections:
                    log.warning("%s: %d candles corrected", partition, merged.corrections)
        # A full disk refuses thousands of partitions in one breath: a line for all of them.
        for reason, refused in refusals.items():
            waiting = sum(len(left[partition]) for partition, _ in refused)
            more = f" and {len(refused) - 1} more partitions" if len(refused) > 1 else ""
            partition, path = refused[0]
            where = f"{path}: " if path else ""
            log.error("%s%s: %d candles stay in the journal: %s%s", partition, more, waiting, where, reason)
        return FlushResult(left, flushed, corrections)

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown()

    def _merge_group(self, group: Batch) -> dict[Partition, Merged | _Refusal]:
        """Merge partitions together; of each that refuses return the reason."""
        items = [(partition, to_table(candles)) for partition, candles in group.items()]
        try:
            return dict(zip(group, self._store.merge_many(items), strict=True))
        except _REFUSALS:
            return {partition: self._merge(partition, rows) for partition, rows in items}

    def _merge(self, partition: Partition, rows: pa.Table) -> Merged | _Refusal:
        try:
            return self._store.merge(partition, rows)
        except LakeError as error:
            return _Refusal(error.what, "")
        except OSError as error:
            return _Refusal(error.strerror or str(error), str(error.filename or ""))
        except _REFUSALS as error:
            return _Refusal((str(error) or type(error).__name__).splitlines()[0], "")


def groups(batch: Batch) -> Iterator[Batch]:
    """Yield the batch in groups of partitions that may be merged together."""
    group: Batch = {}
    rows = 0
    for partition, candles in batch.items():
        of_day = DAY_MS // (INTERVALS[partition.interval].length_ms or DAY_MS) or 1
        if group and (len(group) == BATCH_PARTITIONS_MAX or rows + of_day > GROUP_ROWS_MAX):
            yield group
            group, rows = {}, 0
        group[partition] = candles
        rows += of_day
    if group:
        yield group
