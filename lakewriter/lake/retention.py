"""Retention: the forgetting of partitions whose candles are all older than a limit.

Only whole partitions are removed, so no file is rewritten: a day of short intervals, a month or
a year of long ones. Each batch is recorded like a command of `lakewriter forget`, before its
first removal and after its last one.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from lakewriter.lake.forget import (
    ForgetResult,
    Selection,
    forget_partition,
    outcomes_to_record,
    removed_by_series,
)
from lakewriter.lake.forgotten import ForgetPurpose, record_finish, record_start
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.listing import PartitionDirs
from lakewriter.lake.partition_filter import PartitionFilter
from lakewriter.partition import day_of
from lakewriter.series import Series


class RetentionResult(NamedTuple):
    """What a batch removed.

    Args:
        series: the series that lost candles.
        partitions, candles, file_bytes: the removed partitions, their candles and the bytes of their files.
        errors: why partitions stay.
    """

    series: frozenset[Series]
    partitions: int
    candles: int
    file_bytes: int
    errors: tuple[str, ...]


def old_partitions(store: LakeStore, series: Iterable[Series], before_ms: int) -> Iterator[PartitionDirs]:
    """Yield the partitions of which every candle begins before a time, by series."""
    for market, symbol, interval in sorted(series):
        wanted = PartitionFilter((market,), (symbol,), (interval,), None, day_of(before_ms - 1))
        for item in store.partitions(wanted):
            if item.partition.stop_ms <= before_ms:
                yield item


def forget_old(
    store: LakeStore, items: Sequence[PartitionDirs], purpose: ForgetPurpose, finished_ms: int
) -> RetentionResult:
    """Remove whole partitions, with a record.

    Args:
        finished_ms: the time for the record, by the host's clock.

    Raises:
        LakeError, OSError: if the record cannot be read or written. Then nothing is removed.

    Crash: some partitions are there and others gone, each whole; the record has all of them,
    without an end. The next call for the remaining ones finishes the work.
    """
    chosen = [(item, _whole(item)) for item in items]
    planned = [forget_partition(store, item, selection, dry_run=True) for item, selection in chosen]
    todo = [pair for pair, outcome in zip(chosen, planned, strict=True) if outcome.removed]
    plans = [outcome for outcome in planned if outcome.removed]
    outcomes: list[ForgetResult] = []
    if todo:
        command = record_start(store, removed_by_series(plans), purpose)
        try:
            for item, selection in todo:
                outcomes.append(forget_partition(store, item, selection))
        finally:
            went = removed_by_series(outcomes_to_record(store, todo, plans, outcomes))
            record_finish(store, command, went, purpose, finished_ms)
    done = [each for each in outcomes if each.removed]
    return RetentionResult(
        frozenset(each.partition.series for each in done),
        len(done),
        sum(each.candles for each in done),
        sum(each.bytes_before - each.bytes_after for each in done),
        tuple(each.error for each in (*planned, *outcomes) if each.error),
    )


def _whole(item: PartitionDirs) -> Selection:
    partition = item.partition
    return Selection((partition.series,), partition.start_ms, partition.stop_ms)
