"""The lake's facts about its series: gaps, subscriptions, lists, journals and presence.

They are read in the order in which candles move through the lake: ledgers and
journals before any file is listed. A candle that is healed in between is in a ledger
and in the lake, and counts as present.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import NamedTuple, TypeVar

import msgspec

from lakewriter.candle import Candle
from lakewriter.clock import present_ms
from lakewriter.lake.forgotten import read_forgotten, with_forgotten
from lakewriter.lake.gaps.ledgers import ReportedGap, read_reported
from lakewriter.lake.host_reports import flushed_until_ms, living_anywhere
from lakewriter.lake.instruments import MarketList, read_last_lists
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.partition_filter import PartitionFilter
from lakewriter.lake.presence import Presence
from lakewriter.lake.presence_many import presence_of_many
from lakewriter.lake.published import current_ledgers
from lakewriter.lake.subscriptions import read_periods
from lakewriter.lake.unflushed import read_unflushed
from lakewriter.ranges import Range, union
from lakewriter.series import Series
from lakewriter.subscribed_period import SubscribedPeriod

T = TypeVar("T")


class CoverageMoment(NamedTuple):
    """The end of a coverage, and the present time.

    Args:
        until_ms: the time up to which subscribed series have expected candles; None for
            the last candle or ledger entry of each.
        now_ms: a time shortly before now by the wall clock, or None for a coverage of
            the past.
    """

    until_ms: int | None = None
    now_ms: int | None = None


class LakeFacts:
    """Facts about the whole lake, except the candles in its files.

    Args:
        reported: gaps of ledgers and forgotten ranges, by series, each candle once.
        forgotten: all forgotten ranges, by series.
        periods: the subscribed periods, by series.
        lists: the last list of each market.
        unflushed: the journal's candles, by series.
        alive: names of the living recorders' journals. Those of other hosts are known from
            their last report.
        flushed_until_ms: the time up to which the candles of a recorder on another host are in
            files, by the name of its journal. This host cannot read that journal.
    """

    def __init__(
        self,
        reported: Mapping[Series, list[ReportedGap]],
        forgotten: Mapping[Series, list[Range]],
        periods: Mapping[Series, list[SubscribedPeriod]],
        lists: Mapping[str, MarketList],
        unflushed: Mapping[Series, list[Candle]],
        alive: frozenset[str],
        flushed_until_ms: Mapping[str, int],
    ) -> None:
        self.reported = reported
        self.forgotten = forgotten
        self.periods = periods
        self.lists = lists
        self.unflushed = unflushed
        self.alive = alive
        self.flushed_until_ms = flushed_until_ms

    @property
    def knows_subscriptions(self) -> bool:
        """Whether a recorder ever wrote its subscriptions."""
        return bool(self.periods)

    @cached_property
    def seen_ms(self) -> int:
        """The time of the last confirmation of subscriptions by any recorder, or 0 without one."""
        return max((period.seen_ms for periods in self.periods.values() for period in periods), default=0)


class SeriesFacts(NamedTuple):
    """Facts about one series.

    Args:
        presence: the candles of the series.
        reported: its gaps from ledgers and its forgotten ranges from `edge_ms` on, by time.
        edge_ms: the end of the forgotten candles before its first candle, or None if no
            such candles were forgotten.
        periods: its subscribed periods.
        lake: the facts of the whole lake.
    """

    presence: Presence
    reported: list[ReportedGap]
    edge_ms: int | None
    periods: list[SubscribedPeriod]
    lake: LakeFacts

    @property
    def series(self) -> Series:
        """The series."""
        return self.presence.series

    @property
    def open_periods(self) -> list[SubscribedPeriod]:
        """The periods without an end."""
        return [period for period in self.periods if period.is_open]

    def readable_until_ms(self, until_ms: int) -> int:
        """Return the time up to which this host can see the candles of its living recorders.

        Later candles may be in a journal on another host.
        """
        alive = [period.journal for period in self.open_periods if period.journal in self.lake.alive]
        seen_ms = [self.lake.flushed_until_ms.get(journal, until_ms) for journal in alive]
        return min(until_ms, max(seen_ms, default=until_ms))


def series_facts(store: LakeStore, wanted: PartitionFilter, *, whole: bool = False) -> Iterator[SeriesFacts]:
    """Yield the facts of each wanted series, in order.

    Args:
        whole: whether subscriptions or a directory of ledgers that cannot be read are an
            error. Otherwise they are left out, with a warning.

    Raises:
        LakeError: if a ledger, the journal or a file cannot be read.
    """
    lake = _lake_facts(store, whole=whole)
    known = (*lake.reported, *lake.periods, *lake.unflushed)
    for presence in presence_of_many(store, wanted, filter(wanted.covers, known), lake.unflushed):
        series = presence.series
        edge_ms = _edge(lake.forgotten.get(series, []), presence.first_ms)
        reported = _reported_from(lake.reported.get(series, []), edge_ms)
        yield SeriesFacts(presence, reported, edge_ms, lake.periods.get(series, []), lake)


def _lake_facts(store: LakeStore, *, whole: bool) -> LakeFacts:
    with current_ledgers(store, whole=whole) as root:
        flushed = flushed_until_ms(store, root)
        alive = living_anywhere(store, root, present_ms())
        known = read_reported(root, alive if store.is_remote else None)
        reported = _by_series((each.gap.series, each) for each in known)
        lines = _by_series((line.series, line) for line in read_forgotten(root))
        periods = _by_series((each.series, each) for each in read_periods(root, whole=whole))
        lists = read_last_lists(root)
    unflushed = _by_series((candle.series, candle) for candle in read_unflushed(store.state_dir))
    reported |= {
        series: with_forgotten(reported.get(series, []), of_series) for series, of_series in lines.items()
    }
    forgotten = {
        series: union(each for line in of_series for each in line.ranges)
        for series, of_series in lines.items()
    }
    return LakeFacts(reported, forgotten, periods, lists, unflushed, alive, flushed)


def _edge(forgotten: list[Range], first_ms: int | None) -> int | None:
    """Return the end of the last forgotten range before the first candle, or None without such a range.

    A range may reach beyond the first candle, if some of its candles came back.
    """
    if first_ms is None:
        return max((stop for _, stop in forgotten), default=None)
    return max((min(stop, first_ms) for start, stop in forgotten if start < first_ms), default=None)


def _reported_from(reported: list[ReportedGap], edge_ms: int | None) -> list[ReportedGap]:
    """Return the gaps of a series from `edge_ms` on."""
    if edge_ms is None:
        return reported
    return [
        each._replace(gap=msgspec.structs.replace(each.gap, start_ms=max(each.gap.start_ms, edge_ms)))
        for each in reported
        if each.gap.stop_ms > edge_ms
    ]


def _by_series(pairs: Iterable[tuple[Series, T]]) -> dict[Series, list[T]]:
    found: dict[Series, list[T]] = {}
    for series, each in pairs:
        found.setdefault(series, []).append(each)
    return found
