"""The sandbox's public archive: its files and their content.

Only finished days and months with at least one candle have files. A symbol that no longer
trades keeps its files. From 2025-01-01 on, spot times are in microseconds. Files of futures
begin with a header. Pure: the same file and time always give the same bytes.

Source: binance-public-data, README.md and python/enums.py.
"""

import hashlib
import io
import re
import zipfile
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta

from lakewriter.binance.archive_files import DAILY_INTERVALS, ArchiveFile, Period, parse_name
from lakewriter.interval import INTERVALS
from lakewriter.market import MARKETS
from lakewriter.ranges import Range
from lakewriter.sandbox.truth.candles import Truth
from lakewriter.sandbox.truth.catalogue import SymbolCatalogue
from lakewriter.sandbox.truth.csv_lines import csv_lines
from lakewriter.sandbox.truth.symbols import LISTED_MS, SymbolListing
from lakewriter.series import Series

# 2025-01-01. From this time on, spot files count microseconds.
MICROSECONDS_FROM_MS = 1_735_689_600_000

HEADER = (
    b"open_time,open,high,low,close,volume,close_time,quote_volume,count,"
    b"taker_buy_volume,taker_buy_quote_volume,ignore\n"
)

PERIODS: tuple[Period, ...] = ("daily", "monthly")

# The fastest level. Higher levels take five times as long, and hardly compress digits better.
_COMPRESSION = 1

# The candles that are written at once. The limit bounds memory, because a month has
# millions of 1s candles.
_CANDLES_AT_ONCE = 1 << 17

_PATH = re.compile(
    r"(?P<prefix>/data/.+)/(?P<period>daily|monthly)/klines/(?P<symbol>[^/]+)/(?P<interval>[^/]+)/"
    r"(?P<name>[^/]+)"
)


def find_file(path: str, catalogues: Mapping[str, SymbolCatalogue], now_ms: int) -> ArchiveFile | None:
    """Return the file at the path of a zip; None if the file does not exist yet.

    Args:
        path: "/data/spot/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2026-11-21.zip".
        catalogues: the symbols of each market, by its name.
    """
    match = _PATH.fullmatch(path)
    if match is None:
        return None
    market = next((item for item in MARKETS.values() if item.archive_path == match["prefix"]), None)
    if market is None or match["interval"] not in INTERVALS:
        return None
    series = Series(market.name, match["symbol"], match["interval"])
    file = parse_name(series, "daily" if match["period"] == "daily" else "monthly", match["name"])
    return file if file is not None and _exists(catalogues[market.name], file, now_ms) else None


def existing_files(
    catalogue: SymbolCatalogue, series: Series, period: Period, now_ms: int, first: date = date.min
) -> Iterator[ArchiveFile]:
    """Yield the existing files of a series, ascending.

    Args:
        first: the first day of the first file to yield.
    """
    spec = catalogue.find(series.symbol)
    ranges = [] if spec is None else catalogue.existing_ranges(spec, series.grid, LISTED_MS, now_ms)
    if not ranges or not _has_files(series, period):
        return
    day, last = max(first, _day(ranges[0][0])), _day(ranges[-1][1])
    day = day if period == "daily" else day.replace(day=1)
    while day <= last:
        file = ArchiveFile(series, period, day)
        if _exists(catalogue, file, now_ms):
            yield file
        day = day + timedelta(1) if period == "daily" else (day + timedelta(31)).replace(day=1)


def _day(time_ms: int) -> date:
    return datetime.fromtimestamp(time_ms // 1000, UTC).date()


def _has_files(series: Series, period: Period) -> bool:
    of_market = series.interval in MARKETS[series.market].intervals
    return of_market and (period == "monthly" or series.interval in DAILY_INTERVALS)


def _exists(catalogue: SymbolCatalogue, file: ArchiveFile, now_ms: int) -> bool:
    grid = file.series.grid
    # The last candle of a month may end in the next month.
    ended_ms = max(file.stop_ms, grid.end(grid.floor(file.stop_ms - 1)))
    if ended_ms > now_ms or not _has_files(file.series, file.period):
        return False
    return any(grid.ceil(start_ms) < stop_ms for start_ms, stop_ms in candle_ranges(catalogue, file))


def candle_ranges(catalogue: SymbolCatalogue, file: ArchiveFile) -> list[Range]:
    """Return the ranges of begin times of a file's candles."""
    spec = catalogue.find(file.series.symbol)
    return (
        [] if spec is None else catalogue.existing_ranges(spec, file.series.grid, file.start_ms, file.stop_ms)
    )


def csv_text(truth: Truth, spec: SymbolListing, file: ArchiveFile, ranges: list[Range]) -> bytes:
    """Return the CSV of a file with the candles that begin in the ranges."""
    grid = file.series.grid
    microseconds = spec.market == "spot" and file.start_ms >= MICROSECONDS_FROM_MS
    lines = [b"" if spec.market == "spot" else HEADER]
    for start_ms, stop_ms in ranges:
        piece_ms = _CANDLES_AT_ONCE * grid.length_ms or stop_ms - start_ms
        for from_ms in range(start_ms, stop_ms, piece_ms):
            candles = truth.integer_candles(*file.series, from_ms, min(from_ms + piece_ms, stop_ms))
            lines.append(csv_lines(spec, grid, candles, micro=microseconds))
    return b"".join(lines)


def zip_file(file: ArchiveFile, text: bytes) -> bytes:
    """Return the zip of a file's CSV, with the date of its content."""
    entry = zipfile.ZipInfo(f"{file.name}.csv", (file.day.year, file.day.month, file.day.day, 0, 0, 0))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(entry, text, zipfile.ZIP_DEFLATED, _COMPRESSION)
    return buffer.getvalue()


def checksum_text(file: ArchiveFile, content: bytes) -> str:
    """Return the content of the `.CHECKSUM` file of a zip."""
    return f"{hashlib.sha256(content).hexdigest()}  {file.name}.zip"
