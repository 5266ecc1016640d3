"""The merger: it merges buffered candles into their partitions, in a few threads.

Partitions are merged in groups, whose files are synced together. Candles of a
partition that cannot be merged are returned to the caller.
"""

import asyncio
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from lakewriter.candle import to_tables
from lakewriter.errors import LakeError
from lakewriter.interval import INTERVALS
from lakewriter.lake.lake import BATCH_PARTITIONS_MAX, LakeStore, Merged
from lakewriter.lake.storage import StoreAwayError, StoreError
from lakewriter.partition import Partition
from lakewriter.recording.flushing.buffer import Batch

log = logging.getLogger(__name__)

MERGE_THREADS = 2

# Maximum rows of a group. Its files are in memory together, about 5 MB.
# That is 64 days of 1m candles, but one day of 1s candles.
GROUP_ROWS_MAX = BATCH_PARTITIONS_MAX * 1440


class FlushResult(NamedTuple):
    """The result of merging a batch.

    Args:
        unmerged: candles that could not be merged.
        flushed: candles that are in their partitions now.
        corrections: rows replaced by rows with other prices or volumes.
        refused: number of partitions that could not be merged for another reason than `away`.
        away: the error of an object store that is away. The remaining partitions were not
            tried, and the caller logs it.
    """

    unmerged: Batch
    flushed: int
    corrections: int
    refused: int = 0
    away: StoreAwayError | None = None


class _Refusal(NamedTuple):
    """The reason why a partition was not merged, and the file that caused it; "" if unknown."""

    reason: str
    path: str


class Merger:
    """The merger of one lake.

    Args:
        store: the lake.
    """

    def __init__(self, store: LakeStore) -> None:
        self._store = store
        self._threads = ThreadPoolExecutor(MERGE_THREADS, "merge")

    async def merge(self, batch: Batch) -> FlushResult:
        """Merge all partitions; log those that cannot be merged, with the reason.

        Crash: each partition is as before or as after, whole.
        """
        loop = asyncio.get_running_loop()
        # A store's merge limits itself, and groups would make it wait for the last reply of each.
        together = [batch] if self._store.is_remote and batch else groups(batch)
        merging = [loop.run_in_executor(self._threads, self._merge_group, group) for group in together]
        away: StoreAwayError | None = None
        unmerged: Batch = {}
        refusals: dict[str, list[tuple[Partition, str]]] = {}
        flushed = corrections = 0
        for merged_group in await asyncio.gather(*merging):
            for partition, merged in merged_group.items():
                if isinstance(merged, StoreAwayError):
                    unmerged[partition] = batch[partition]
                    away = merged
                    continue
                if not isinstance(merged, Merged):
                    refusal = _refusal(merged)
                    unmerged[partition] = batch[partition]
                    refusals.setdefault(refusal.reason, []).append((partition, refusal.path))
                    continue
                flushed += len(batch[partition])
                corrections += merged.corrections
                if merged.corrections:
                    log.warning(
                        "%(partition)s: %(candles)d candles corrected",
                        {"partition": partition, "candles": merged.corrections},
                    )
        # A full disk refuses thousands of partitions at once. One line names all of them.
        for reason, refused in refusals.items():
            waiting = sum(len(unmerged[partition]) for partition, _ in refused)
            more = f" and {len(refused) - 1} more partitions" if len(refused) > 1 else ""
            partition, path = refused[0]
            where = f"{path}: " if path else ""
            log.error("%s%s: %d candles stay in the journal: %s%s", partition, more, waiting, where, reason)
        refused_partitions = sum(map(len, refusals.values()))
        return FlushResult(unmerged, flushed, corrections, refused_partitions, away)

    def close(self) -> None:
        """Stop the threads that merge."""
        self._threads.shutdown()

    def _merge_group(self, group: Batch) -> dict[Partition, Merged | Exception]:
        """Merge partitions together; return the result or the error of each partition."""
        items = list(zip(group, to_tables(group.values()), strict=True))
        return dict(zip(group, self._store.merge_many(items), strict=True))


def _refusal(error: Exception) -> _Refusal:
    if isinstance(error, StoreError):
        return _Refusal(error.reason, "")
    if isinstance(error, LakeError):
        return _Refusal(error.what, "")
    if isinstance(error, OSError):
        return _Refusal(error.strerror or str(error), str(error.filename or ""))
    return _Refusal((str(error) or type(error).__name__).splitlines()[0], "")


def groups(batch: Batch) -> Iterator[Batch]:
    """Split a batch into groups of partitions, within the limits of partitions and rows."""
    group: Batch = {}
    rows = 0
    for partition, candles in batch.items():
        of_whole = INTERVALS[partition.interval].count(partition.start_ms, partition.stop_ms) or 1
        if group and (len(group) == BATCH_PARTITIONS_MAX or rows + of_whole > GROUP_ROWS_MAX):
            yield group
            group, rows = {}, 0
        group[partition] = candles
        rows += of_whole
    if group:
        yield group
