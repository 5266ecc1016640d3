"""The reads of the page: the lake's status, series, candles, coverage and gaps, as JSON.

Each function takes the lake's URI and plain arguments, so that another process can run
it. `questions` has the limits of their answers. The page names times in milliseconds since the epoch.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec
import pyarrow as pa

from lakewriter.candle import int_column
from lakewriter.errors import without_passwords
from lakewriter.interval import DAY_MS, Interval
from lakewriter.lake.coverage.absences import AbsentCandles, absent_candles
from lakewriter.lake.coverage.days import series_coverage
from lakewriter.lake.coverage.facts import CoverageMoment
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.open import open_to_read
from lakewriter.lake.partition_filter import PartitionFilter
from lakewriter.lake.presence import presence_of
from lakewriter.lake.presence_many import known_series
from lakewriter.partition import day_of, day_start_ms
from lakewriter.query.python.series_rows import SymbolSelection, read_rows
from lakewriter.series import Series
from lakewriter.status.lake_status import lake_status
from lakewriter.status.size import LakeSize
from lakewriter.web.page.questions import (
    CANDLES_MAX,
    COVERED_DAYS_MAX,
    COVERED_SERIES_MAX,
    GAP_DAYS_MAX,
    GAPS_MAX,
    SERIES_MAX,
    CandleWindow,
)

# A longer run of missing candles is drawn with this many places. A chart of 1m would
# otherwise have half a million empty places for a year.
MISSING_PLACES_MAX = 300

# Files that are looked at for the gaps. A file with a gap on a disk takes some 1 ms.
GAP_FILES_MAX = 3_000
REMOTE_GAP_FILES_MAX = 500

# The size of a large lake takes seconds to measure, and changes slowly.
SIZE_EVERY_MS = 300_000

# The maximum time from a candle's end until it is in the journal, or its gap in the ledger.
ARRIVAL_MS = 60_000

# The length of a month for estimates. Months have no length of their own.
_MONTH_MS = 31 * DAY_MS

_COLUMNS = ("open", "high", "low", "close", "volume")


# The last measured size of each lake.
_sizes: dict[str, LakeSize] = {}


def read_status(uri: str, now_ms: int) -> bytes:
    """Return the lake's status as JSON: a `LakeStatus`.

    Args:
        now_ms: the present time by the wall clock.
    """
    size = _sizes.get(uri)
    if size is not None and not 0 <= now_ms - size.measured_at_ms < SIZE_EVERY_MS:
        size = None
    # Every visitor of the page sees the commands of its findings.
    status = lake_status(_store(uri), now_ms, lake=without_passwords(uri), size=size)
    _sizes[uri] = status.size
    return msgspec.json.encode(status)


def read_series(uri: str) -> bytes:
    """Return {"series": [[market, symbol, interval], …], "left_out": number}, sorted."""
    found = sorted(known_series(_store(uri)), key=_order)
    return _encode({"series": found[:SERIES_MAX], "left_out": max(0, len(found) - SERIES_MAX)})


def read_candles(uri: str, series: Series, window: CandleWindow) -> bytes:
    """Return the candles of one series in a window, ascending, as JSON.

    Returns:
        {"length_ms", "start_ms", "candles": [[begin_ms, open, high, low, close, volume], …],
        "more": bool}. A missing candle has its begin time only. `start_ms` is the beginning
        of the window. `more` says whether older candles exist.

    Raises:
        LakeError: if a file cannot be read.
    """
    store, grid = _store(uri), series.grid
    stop_ms = _stop_ms(store, series, window.before_ms)
    length_ms = grid.length_ms or _MONTH_MS
    answer: dict[str, Any] = {"length_ms": grid.length_ms, "start_ms": 0, "candles": [], "more": False}
    if stop_ms is None:
        return _encode(answer)
    start_ms = grid.floor(max(0, stop_ms - min(window.places, CANDLES_MAX) * length_ms))
    start_ms = max(start_ms, window.after_ms or 0)
    table = _rows(store, series, start_ms, stop_ms)
    answer["start_ms"] = start_ms
    answer["more"] = window.after_ms is None and _begins_before(store, series, start_ms)
    if table is not None:
        close_ms = window.before_ms if window.after_ms is None else None
        answer["candles"] = list(_with_missing(table, grid, close_ms))
    return _encode(answer)


def read_coverage(uri: str, chosen: Sequence[Series], days: int, now_ms: int) -> bytes:
    """Return the coverage of some series by day, as JSON.

    Args:
        chosen: at most COVERED_SERIES_MAX series.
        days: the number of days, up to the day of `now_ms` or of the newest candle.
        now_ms: the present time by the wall clock.

    Returns:
        {"days": ["2024-06-30", …], "rows": [{"series", "cells", "left_ms", "never_came"}, …]}.
        A cell is null if nothing is expected or present on the day. Otherwise it is
        [expected, present, missing, without_reason].
    """
    chosen = list(chosen)[:COVERED_SERIES_MAX]
    days = min(days, COVERED_DAYS_MAX)
    moment_ms = now_ms - ARRIVAL_MS
    since = day_of(moment_ms - (days - 1) * DAY_MS)
    wanted = _filter_of(chosen, since)
    coverage = series_coverage(_store(uri), wanted, CoverageMoment(moment_ms, moment_ms))
    asked = set(chosen)
    found = {each.series: each for each in coverage if each.series in asked}
    # A sandbox's clock may be ahead of ours.
    last = max([day_of(moment_ms), *(each.days[-1].date for each in found.values())])
    names = [day_of(day_start_ms(last) - ago * DAY_MS).isoformat() for ago in reversed(range(days))]
    rows = []
    for series in chosen:
        of_series = found.get(series)
        cells: dict[str, list[int]] = {}
        for day in of_series.days if of_series else ():
            cells[day.date.isoformat()] = [day.expected, day.present, day.missing, day.without_reason]
        rows.append(
            {
                "series": series,
                "cells": [cells.get(name) for name in names],
                "left_ms": of_series.left_ms if of_series else None,
                "never_came": of_series.never_came if of_series else "",
            }
        )
    return _encode({"days": names, "rows": rows})


def read_gaps(uri: str, days: int, now_ms: int, gaps_max: int = GAPS_MAX) -> bytes:
    """Return the newest gaps of all series, as JSON.

    Args:
        days: the number of days up to the present; the candles of a gap begin in them. They
            are fewer if the lake has many series.
        gaps_max: the number of gaps to return.

    Returns:
        {"gaps": [{"series", "start_ms", "stop_ms", "candles", "reason", "has_reason",
        "error"}, …], "left_out", "candles", "without_reason", "days"}. The newest gap is the
        first; those without a reason precede the others. `candles` and `without_reason` are
        numbers of candles in all gaps.
    """
    store, moment_ms = _store(uri), now_ms - ARRIVAL_MS
    files_max = REMOTE_GAP_FILES_MAX if store.is_remote else GAP_FILES_MAX
    series = max(1, len(known_series(store)))
    days = max(1, min(days, GAP_DAYS_MAX, files_max // series))
    since = day_of(max(0, moment_ms - (days - 1) * DAY_MS))
    found = list(absent_candles(store, PartitionFilter(since=since), CoverageMoment(moment_ms, moment_ms)))
    found.sort(key=lambda gap: (gap.has_reason, -gap.stop_ms, gap.series))
    return _encode(
        {
            "gaps": [_gap(each) for each in found[:gaps_max]],
            "left_out": max(0, len(found) - gaps_max),
            "candles": sum(each.candles for each in found),
            "without_reason": sum(each.candles for each in found if not each.has_reason),
            "days": days,
        }
    )


def _gap(gap: AbsentCandles) -> dict[str, object]:
    return {
        "series": gap.series,
        "start_ms": gap.start_ms,
        "stop_ms": gap.stop_ms,
        "candles": gap.candles,
        "reason": gap.reason,
        "has_reason": gap.has_reason,
        "error": gap.error,
    }


@lru_cache(4)
def _store(uri: str) -> LakeStore:
    return open_to_read(uri, keep_listings=True)


def _order(series: Series) -> tuple[str, str, int]:
    return series.market, series.symbol, series.grid.length_ms or _MONTH_MS


def _filter_of(chosen: Sequence[Series], since: Any) -> PartitionFilter:
    """Return a filter of some series; it may have further ones."""
    markets, symbols, intervals = (
        tuple(sorted(set(names))) for names in (zip(*chosen, strict=True) if chosen else ((), (), ()))
    )
    # An empty field selects all, and no series has these names.
    return PartitionFilter(markets or ("-",), symbols or ("-",), intervals or ("-",), since=since)


def _begins_before(store: LakeStore, series: Series, moment_ms: int) -> bool:
    """Return whether a series has a period that begins before a moment. On a disk it may have no files."""
    wanted = PartitionFilter((series.market,), (series.symbol,), (series.interval,))
    return any(found.partition.start_ms < moment_ms for found in store.partitions(wanted))


def _stop_ms(store: LakeStore, series: Series, before_ms: int | None) -> int | None:
    """Return the end of the newest candle that begins before a time; None if there is none."""
    presence = presence_of(store, series, store.unflushed().of(series))
    last_ms = presence.last_ms if before_ms is None else presence.last_before(before_ms)
    return None if last_ms is None else series.grid.anchored(last_ms).end(last_ms)


def _rows(store: LakeStore, series: Series, start_ms: int, stop_ms: int) -> pa.Table | None:
    """Return the candles of a series that begin in a range, or None if there are none."""
    if start_ms >= stop_ms:
        return None
    selection = SymbolSelection(series.market, [series.symbol], series.interval, (start_ms, stop_ms))
    return read_rows(store, selection, (start_ms, stop_ms), _COLUMNS).get(series.symbol)


def _with_missing(table: pa.Table, grid: Interval, close_ms: int | None) -> Iterator[list[float]]:
    """Yield the candles, and the begin time of each missing candle between them.

    Args:
        close_ms: the begin time of the candle that follows the table; None if it is unknown.
    """
    begins = int_column(table, "candle_begin_time")
    grid = grid.anchored(int(begins[0]))
    # Arrow imports pandas for arrays of NumPy, which takes a second.
    values = zip(*(table[name].to_pylist() for name in _COLUMNS), strict=True)
    nexts = [*begins[1:].tolist(), close_ms]
    for begin_ms, next_ms, row in zip(begins.tolist(), nexts, values, strict=True):
        yield [begin_ms, *row]
        missing_ms, places = grid.end(begin_ms), 0
        while next_ms is not None and missing_ms < next_ms and places < MISSING_PLACES_MAX:
            yield [missing_ms]
            missing_ms, places = grid.end(missing_ms), places + 1


def _encode(answer: Mapping[str, object]) -> bytes:
    return msgspec.json.encode(answer)
