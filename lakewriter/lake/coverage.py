"""Complete or explained: the tables `gaps`, `coverage`, `instruments` and `subscriptions`.

The ledgers and the journal are read before any file is listed: a candle that
is healed in between is then both in a ledger and there, and what is there
counts. A series spans from its first candle or ledger entry to the end of its
last one.
"""

from collections.abc import Iterable, Iterator
from datetime import date, timedelta
from itertools import chain
from typing import NamedTuple

import pyarrow as pa

from lakewriter.candle import Candle
from lakewriter.gap import IDLE
from lakewriter.interval import Interval
from lakewriter.lake.gaps.ledgers import ORPHANED, Told, read_told
from lakewriter.lake.instruments import read_instruments
from lakewriter.lake.journal import read_hot
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.partition_filter import ALL, PartitionFilter
from lakewriter.lake.prefetch import AT_ONCE, ahead
from lakewriter.lake.presence import Presence, presence_of
from lakewriter.lake.presence_many import presences
from lakewriter.lake.subscriptions import read_periods
from lakewriter.partition import Partition, day_of
from lakewriter.ranges import Range, minus, union, within
from lakewriter.series import Series

_TIME = pa.timestamp("ms", tz="UTC")

GAPS_SCHEMA = pa.schema(
    [
        ("market", pa.string()),
        ("symbol", pa.string()),
        ("interval", pa.string()),
        ("start", _TIME),
        ("stop", _TIME),
        ("candles", pa.int64()),
        ("reason", pa.string()),
        ("detected_at", _TIME),
        ("resolved_at", _TIME),
        ("error", pa.string()),
    ]
)

COVERAGE_SCHEMA = pa.schema(
    [
        ("market", pa.string()),
        ("symbol", pa.string()),
        ("interval", pa.string()),
        ("date", pa.date32()),
        ("expected", pa.int64()),
        ("present", pa.int64()),
        ("missing", pa.int64()),
        ("explained", pa.int64()),
    ]
)

INSTRUMENTS_SCHEMA = pa.schema(
    [
        ("market", pa.string()),
        ("symbol", pa.string()),
        ("status", pa.string()),
        ("contract_type", pa.string()),
        ("onboard_at", _TIME),
        ("delivery_at", _TIME),
        ("first_seen", _TIME),
        ("last_seen", _TIME),
    ]
)


SUBSCRIPTIONS_SCHEMA = pa.schema(
    [
        ("market", pa.string()),
        ("symbol", pa.string()),
        ("interval", pa.string()),
        ("start", _TIME),
        ("stop", _TIME),
        ("last_seen", _TIME),
        ("recorder", pa.string()),
    ]
)


class Absent(NamedTuple):
    """A run of candles that a ledger tells of, and that are not there.

    Args:
        told: what the ledger tells of them, and more around them.
        start_ms, stop_ms: from the first one's begin to the last one's end.
        candles: how many.
    """

    told: Told
    start_ms: int
    stop_ms: int
    candles: int

    @property
    def has_reason(self) -> bool:
        """Whether they cannot be had, or somebody who lives is about to get them."""
        return self.told.gap.reason != "unhealable" and self.told.accounts


class Day(NamedTuple):
    """A day of a series.

    Args:
        expected: candles that its grid has that day, within its span.
        present: how many are there.
        missing: how many are not.
        explained: how many of the missing ones a ledger accounts for.
        unhealable: how many of the explained ones could be had, but not by us.
    """

    series: Series
    date: date
    expected: int
    present: int
    missing: int
    explained: int
    unhealable: int = 0

    @property
    def without_reason(self) -> int:
        """How many are missing though nobody heals them and the exchange may have them."""
        return self.missing - self.explained + self.unhealable


def absent(store: LakeStore, wanted: PartitionFilter = ALL) -> Iterator[Absent]:
    """Yield what ledgers tell of and is not there, by series and time.

    Args:
        wanted: which series, and days on which the candles begin.

    Raises:
        LakeError: if a ledger, the journal or a file cannot be read.
    """
    told = _by_series(_told(store), wanted)
    hot = _hot(store, set(told))

    def of_one(series: Series) -> Iterator[Absent]:
        there = presence_of(store, series, hot.get(series, ()))
        for each in told[series]:
            gap = each.gap
            start_ms, stop_ms = _clipped(wanted, gap.start_ms, gap.stop_ms)
            # Of a series without a candle, the gap itself is on the grid.
            grid = there.grid if there.first_ms is not None else series.grid.anchored(gap.start_ms)
            if start_ms < stop_ms:
                gone = [(start_ms, stop_ms)] if there.first_ms is None else there.missing(start_ms, stop_ms)
                for low_ms, high_ms in gone:
                    yield Absent(each, low_ms, high_ms, grid.count(low_ms, high_ms))

    if store.far:
        yield from chain.from_iterable(ahead(lambda series: list(of_one(series)), sorted(told), AT_ONCE))
    else:
        yield from chain.from_iterable(map(of_one, sorted(told)))


def coverage(store: LakeStore, wanted: PartitionFilter = ALL, until_ms: int | None = None) -> Iterator[Day]:
    """Yield each day of each series, by series and day.

    Args:
        wanted: which series and days.
        until_ms: every series spans to here at least, but for those that were
            delisted or delivered, or are not listed yet; candles that are not
            closed by then are not expected.

    Raises:
        LakeError: if a ledger, the journal or a file cannot be read.
    """
    told = _by_series(_told(store), wanted)
    hot = _hot(store, None)
    others = (*told, *(each for each in hot if wanted.covers(each)))
    for there in presences(store, wanted, others, hot):
        yield from _days(there, told.get(there.series, []), wanted, until_ms)


def gaps_table(store: LakeStore, wanted: PartitionFilter = ALL) -> pa.Table:
    """Return the rows of the table `gaps`."""
    return absent_table(absent(store, wanted))


def absent_table(found: Iterable[Absent]) -> pa.Table:
    """Return runs of absent candles as rows of GAPS_SCHEMA."""
    rows = [
        (
            *each.told.gap.series, each.start_ms, each.stop_ms, each.candles, each.told.gap.reason,
            each.told.gap.detected_ms, each.told.gap.resolved_ms, _error(each.told),
        )
        for each in found
    ]  # fmt: skip
    return _table(rows, GAPS_SCHEMA)


def coverage_table(store: LakeStore, wanted: PartitionFilter = ALL, until_ms: int | None = None) -> pa.Table:
    """Return the rows of the table `coverage`."""
    return _table([(*day.series, *day[1:6]) for day in coverage(store, wanted, until_ms)], COVERAGE_SCHEMA)


def instruments_table(store: LakeStore) -> pa.Table:
    """Return the rows of the table `instruments`."""
    with store.ledgers() as root:
        return _table(read_instruments(root), INSTRUMENTS_SCHEMA)


def subscriptions_table(store: LakeStore) -> pa.Table:
    """Return the rows of the table `subscriptions`."""
    with store.ledgers() as root:
        return _table(
            [
                (*each.series, each.start_ms, each.stop_ms, each.seen_ms, each.recorder)
                for each in read_periods(root)
            ],
            SUBSCRIPTIONS_SCHEMA,
        )


def _days(there: Presence, told: list[Told], wanted: PartitionFilter, until_ms: int | None) -> Iterator[Day]:
    starts = [each.gap.start_ms for each in told]
    if there.first_ms is not None:
        starts.append(there.first_ms)
    if not starts:
        return
    grid = there.grid if there.first_ms is not None else there.series.grid.anchored(min(starts))
    start_ms = grid.ceil(min(starts))
    stops = [each.gap.stop_ms for each in told]
    if there.last_ms is not None:
        stops.append(grid.end(there.last_ms))
    idle = any(each.gap.reason in IDLE and each.gap.stop_ms == max(stops) for each in told)
    if until_ms is not None and not idle:
        stops.append(grid.floor(until_ms))
    accounted = [each.gap for each in told if each.accounts]
    known = union((gap.start_ms, gap.stop_ms) for gap in accounted)
    given_up = union((gap.start_ms, gap.stop_ms) for gap in accounted if gap.reason == "unhealable")
    stop_ms = max(stops)
    low_ms, high_ms = _clipped(wanted, start_ms, stop_ms)
    day = day_of(low_ms)
    while low_ms < high_ms and day <= day_of(high_ms - 1):
        found = _day(there, grid, day, (start_ms, stop_ms), known, given_up)
        if found.expected or found.present:
            yield found
        day += timedelta(days=1)


def _day(
    there: Presence, grid: Interval, day: date, span: Range, known: list[Range], given_up: list[Range]
) -> Day:
    partition = Partition(*there.series, day)
    start_ms, stop_ms = max(partition.start_ms, span[0]), min(partition.stop_ms, span[1])
    expected = grid.count(start_ms, stop_ms)
    present = there.count(day)
    missing = max(0, expected - present)
    known = within(known, start_ms, stop_ms)
    explained = unhealable = 0
    if missing and known:
        gone = [(start_ms, stop_ms)] if there.first_ms is None else there.missing(start_ms, stop_ms)

        def count(ranges: list[Range]) -> int:
            both = minus(gone, minus(gone, ranges))
            return min(missing, sum(grid.count(low, min(high, stop_ms)) for low, high in both))

        explained = count(known)
        unhealable = count(within(given_up, start_ms, stop_ms))
    return Day(there.series, day, expected, present, missing, explained, unhealable)


def _told(store: LakeStore) -> list[Told]:
    with store.ledgers() as root:
        return read_told(root)


def _by_series(told: list[Told], wanted: PartitionFilter) -> dict[Series, list[Told]]:
    found: dict[Series, list[Told]] = {}
    for each in told:
        if wanted.covers(each.gap.series):
            found.setdefault(each.gap.series, []).append(each)
    return found


def _hot(store: LakeStore, wanted: set[Series] | None) -> dict[Series, list[Candle]]:
    """Return the journal's candles by series; of all series if None."""
    found: dict[Series, list[Candle]] = {}
    for candle in read_hot(store.root):
        series = Series(candle.market, candle.symbol, candle.interval)
        if wanted is None or series in wanted:
            found.setdefault(series, []).append(candle)
    return found


def _clipped(wanted: PartitionFilter, start_ms: int, stop_ms: int) -> Range:
    """Return the part of a range that lies in the wanted days."""
    if wanted.since is not None:
        start_ms = max(start_ms, Partition("", "", "", wanted.since).start_ms)
    if wanted.until is not None:
        stop_ms = min(stop_ms, Partition("", "", "", wanted.until).stop_ms)
    return start_ms, stop_ms


def _error(told: Told) -> str:
    return told.gap.error if told.accounts else told.gap.error or ORPHANED


def _table(rows: Iterable[tuple[object, ...]], schema: pa.Schema) -> pa.Table:
    columns = list(zip(*rows, strict=True)) or [()] * len(schema)
    return pa.Table.from_arrays(
        [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)], schema=schema
    )
