"""The copy of what a lake knows beyond candles: gaps, subscriptions, instruments, forgotten ranges.

The target gets what it does not know yet, and loses nothing. Locks, journals, and what
belongs to a host stay where they are.
"""

import zlib
from typing import NamedTuple

import msgspec

from lakewriter.copying.pair import Pair
from lakewriter.gap import Gap
from lakewriter.lake.forgotten import Forgotten, add_forgotten, read_forgotten, unknown_forgotten
from lakewriter.lake.gaps.ledgers import add_gaps, read_gaps, unknown_gaps
from lakewriter.lake.instruments import (
    InstrumentPeriod,
    add_instruments,
    read_instruments,
    unknown_instruments,
)
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.partition_filter import PartitionFilter
from lakewriter.lake.published import host_name, publish
from lakewriter.lake.subscriptions import (
    add_periods,
    end_periods_elsewhere,
    read_host_periods,
    read_periods,
    unknown_periods,
)
from lakewriter.ranges import union, within
from lakewriter.subscribed_period import SubscribedPeriod

# The name of a ledger of copied gaps. No recorder's name begins so.
_LEDGER = "copy"


class RecordCounts(NamedTuple):
    """Numbers of records that the target got, or would get."""

    gaps: int = 0
    subscriptions: int = 0
    instruments: int = 0
    forgotten: int = 0


class _Records(NamedTuple):
    gaps: list[Gap]
    periods: list[SubscribedPeriod]
    instruments: list[InstrumentPeriod]
    forgotten: list[Forgotten]


def copy_records(pair: Pair, wanted: PartitionFilter, *, change: bool) -> RecordCounts:
    """Add the source's records of the wanted series to the target.

    Args:
        wanted: the filter. Ranges are clipped to its days. Lists of instruments are copied
            whole for each wanted market.
        change: whether the target may be written.

    Raises:
        LakeError: if a record cannot be read, or the store refuses.
        OSError: if the disk refuses.

    Crash: each record is as before or as after; running it again adds the others.
    """
    found = _chosen(_read(pair.source), wanted)
    known = _read(pair.target)
    unknown = _Records(
        unknown_gaps(known.gaps, found.gaps),
        unknown_periods(pair.target, known.periods, found.periods),
        unknown_instruments(known.instruments, found.instruments),
        unknown_forgotten(known.forgotten, found.forgotten),
    )
    if change:
        _add(pair, unknown)
    return RecordCounts(
        len(unknown.gaps), len(unknown.periods), len(unknown.instruments), len(unknown.forgotten)
    )


def _read(store: LakeStore) -> _Records:
    with store.ledgers(whole=True) as root:  # a copy without some records would not be proven
        return _Records(read_gaps(root), read_periods(root), read_instruments(root), read_forgotten(root))


def _chosen(found: _Records, wanted: PartitionFilter) -> _Records:
    gaps = []
    for gap in filter(lambda each: wanted.covers(each.series), found.gaps):
        start_ms, stop_ms = wanted.clipped(gap.start_ms, gap.stop_ms)
        if start_ms < stop_ms:
            gaps.append(msgspec.structs.replace(gap, start_ms=start_ms, stop_ms=stop_ms))
    forgotten = []
    for line in filter(lambda each: wanted.covers(each.series), found.forgotten):
        ranges = union(line.ranges)
        kept = within(ranges, *wanted.clipped(ranges[0][0], ranges[-1][1]))
        if kept:
            forgotten.append(msgspec.structs.replace(line, ranges=tuple(kept)))
    return _Records(
        gaps,
        [period for period in found.periods if wanted.covers(period.series)],
        [each for each in found.instruments if not wanted.markets or each.market in wanted.markets],
        forgotten,
    )


def _add(pair: Pair, unknown: _Records) -> None:
    target = pair.target
    if unknown.gaps:
        add_gaps(target.state_dir, _ledger_name(pair), unknown.gaps)
    if unknown.periods:
        add_periods(target, unknown.periods)
        _end_older_copies(target, unknown.periods)
    if unknown.instruments:
        add_instruments(target, unknown.instruments)
    if unknown.forgotten:
        add_forgotten(target, unknown.forgotten)
    # It also publishes what an interrupted copy has left in the state directory.
    publish(target)


def _end_older_copies(target: LakeStore, added: list[SubscribedPeriod]) -> None:
    """End open periods that other hosts have of the added ones. A host that lives confirms its own again."""
    own, keys = host_name(target), {(period.series, period.start_ms) for period in added}
    with target.ledgers() as root:
        older = [
            each
            for each in read_host_periods(root)
            if each.host not in ("", own)
            and each.period.is_open
            and (each.period.series, each.period.start_ms) in keys
        ]
    if older:
        end_periods_elsewhere(target, older)


def _ledger_name(pair: Pair) -> str:
    """Return the name of the ledger of this source's gaps. In a store each host has its own."""
    host = host_name(pair.target)
    return "-".join(filter(None, (_LEDGER, host, f"{zlib.crc32(pair.source.name.encode()):08x}")))
