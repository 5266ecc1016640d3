"""The open gaps of a lake, by its ledgers: candles being healed, and candles without a reason.

Candles that no ledger knows are left to `lakewriter coverage`, which reads more files.
A ledger may list candles that a backfill fetched since, so the lake's files are read for
them, up to a limit.
"""

from collections.abc import Iterable, Mapping

import msgspec

from lakewriter.candle import Candle
from lakewriter.clock import present_ms
from lakewriter.lake.gaps.ledgers import ReportedGap, read_reported
from lakewriter.lake.host_reports import living_anywhere
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.presence import presence_of
from lakewriter.lake.published import current_ledgers
from lakewriter.lake.subscriptions import read_periods
from lakewriter.lake.unflushed import read_unflushed
from lakewriter.partition import partition_at
from lakewriter.ranges import Range, minus, union
from lakewriter.series import Series
from lakewriter.subscribed_period import SubscribedPeriod, unsubscribed_ranges

# Maximum number of files that are read to check gaps. A week of 1m has 8.
CHECKED_FILES_MAX = 400


class OpenGaps(msgspec.Struct, frozen=True, kw_only=True):
    """The open gaps of a lake.

    Args:
        healing_candles, healing_series: absent candles that a living recorder heals, and
            the number of their series.
        reasonless_candles, reasonless_series: absent candles that could not be healed, or
            whose recorder died, and the number of their series.
        example: one of these series, or None.
        unchecked_candles: candles that a ledger lists as unhealed, and for which no file was
            read, because they are too many. Some may be in the lake.
    """

    healing_candles: int = 0
    healing_series: int = 0
    reasonless_candles: int = 0
    reasonless_series: int = 0
    example: tuple[str, str, str] | None = None
    unchecked_candles: int = 0


def read_open_gaps(store: LakeStore, files_max: int = CHECKED_FILES_MAX) -> OpenGaps:
    """Return the open gaps of a lake.

    Args:
        files_max: the maximum number of files that are read.

    Raises:
        LakeError: if a ledger or a file cannot be read.
    """
    with current_ledgers(store) as root:
        living = living_anywhere(store, root, present_ms()) if store.is_remote else None
        reported = read_reported(root, living)
        open_gaps = [each for each in reported if each.gap.reason in ("pending", "unhealable")]
        periods = _by_series(read_periods(root)) if open_gaps else {}
    healing = [each for each in open_gaps if each.gap.reason == "pending" and each.alive]
    unhealed: dict[Series, list[Range]] = {}
    for each in open_gaps:
        if each not in healing:
            unhealed.setdefault(each.gap.series, []).append((each.gap.start_ms, each.gap.stop_ms))
    # The journal is read before any file: a candle that leaves it later is in its partition.
    unflushed = _unflushed(store) if unhealed else {}
    missing: dict[Series, int] = {}
    unchecked, files_left = 0, files_max
    for series, gone in unhealed.items():
        ranges = minus(union(gone), unsubscribed_ranges(periods[series]) if series in periods else [])
        files = _files(series, ranges)
        if files > files_left:
            unchecked += sum(series.grid.count(*each) for each in ranges)
            continue
        files_left -= files
        presence = presence_of(store, series, unflushed.get(series, ()))
        absent = [run for each in ranges for run in presence.missing(*each)]
        candles = sum(presence.grid.count(*run) for run in absent)
        if candles:
            missing[series] = candles
    return OpenGaps(
        healing_candles=sum(_candles(each) for each in healing),
        healing_series=len({each.gap.series for each in healing}),
        reasonless_candles=sum(missing.values()),
        reasonless_series=len(missing),
        example=min(missing, default=None),
        unchecked_candles=unchecked,
    )


def _candles(reported: ReportedGap) -> int:
    gap = reported.gap
    return gap.series.grid.anchored(gap.start_ms).count(gap.start_ms, gap.stop_ms)


def _files(series: Series, ranges: Iterable[Range]) -> int:
    """Return the number of files that a check of these ranges reads, at most."""
    files = 1  # the first candle's file has the grid
    for start_ms, stop_ms in ranges:
        first, last = partition_at(series, start_ms), partition_at(series, stop_ms - 1)
        files += round((last.start_ms - first.start_ms) / (first.stop_ms - first.start_ms)) + 1
    return files


def _unflushed(store: LakeStore) -> dict[Series, list[Candle]]:
    found: dict[Series, list[Candle]] = {}
    for candle in read_unflushed(store.state_dir):
        found.setdefault(candle.series, []).append(candle)
    return found


def _by_series(periods: Iterable[SubscribedPeriod]) -> Mapping[Series, list[SubscribedPeriod]]:
    found: dict[Series, list[SubscribedPeriod]] = {}
    for period in periods:
        found.setdefault(period.series, []).append(period)
    return found
