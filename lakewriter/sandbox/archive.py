"""The sandbox's public archive: one zip with one CSV, and its checksum.

Only finished days and months exist. Spot times are microseconds from 2025-01-01
on; the futures' files begin with a header. Pure: a path and the time in, bytes
out, the same bytes every time.

Source: binance-public-data, README.md and python/enums.py.
"""

import hashlib
import io
import re
import zipfile
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from lakewriter.interval import INTERVALS, Interval
from lakewriter.market import MARKETS
from lakewriter.sandbox.catalogue import Catalogue
from lakewriter.sandbox.listing import LISTED_MS
from lakewriter.sandbox.protocol import kline_row
from lakewriter.sandbox.truth import Truth
from lakewriter.sandbox.units import rows

# 2025-01-01: from here on spot files count microseconds.
MICROSECONDS_FROM_MS = 1_735_689_600_000

HEADER = (
    "open_time,open,high,low,close,volume,close_time,quote_volume,count,"
    "taker_buy_volume,taker_buy_quote_volume,ignore\n"
)

# Longer candles have monthly files only.
_NOT_DAILY = ("3d", "1w", "1mo")

_PATH = re.compile(
    r"(?P<prefix>/data/.+)/(?P<period>daily|monthly)/klines/(?P<symbol>[^/]+)/(?P<interval>[^/]+)/"
    r"(?P=symbol)-(?P=interval)-(?P<date>\d{4}-\d{2}(?:-\d{2})?)\.zip"
)


class ArchiveFile(NamedTuple):
    """One file that exists.

    Args:
        name: of the zip, without the suffix.
        start_ms, stop_ms: the candles in it begin in this half-open range.
    """

    market: str
    symbol: str
    grid: Interval
    name: str
    start_ms: int
    stop_ms: int


def find(path: str, catalogues: Mapping[str, Catalogue], now_ms: int) -> ArchiveFile | None:
    """Return the file at the path of a zip, or None if there is none yet.

    Args:
        path: "/data/spot/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2026-11-21.zip".
        catalogues: by market.
    """
    match = _PATH.fullmatch(path)
    if match is None:
        return None
    market = next((item for item in MARKETS.values() if item.archive_path == match["prefix"]), None)
    grid = INTERVALS.get(match["interval"])
    daily = match["period"] == "daily"
    if market is None or grid is None or grid.name not in market.intervals:
        return None
    spec = catalogues[market.name].known(match["symbol"])
    if spec is None or spec.status != "TRADING" or (daily and grid.name in _NOT_DAILY):
        return None
    start_ms = _begin_ms(match["date"], "%Y-%m-%d" if daily else "%Y-%m")
    if start_ms is None or start_ms < LISTED_MS:
        return None
    stop_ms = INTERVALS["1d" if daily else "1mo"].end(start_ms)
    name = path.rsplit("/", 1)[-1].removesuffix(".zip")
    return ArchiveFile(market.name, spec.symbol, grid, name, start_ms, stop_ms) if stop_ms <= now_ms else None


def _begin_ms(date: str, form: str) -> int | None:
    try:
        return int(datetime.strptime(date + "+0000", form + "%z").timestamp()) * 1000
    except ValueError:
        return None


def csv(truth: Truth, catalogue: Catalogue, file: ArchiveFile) -> str | None:
    """Return the CSV in the zip; None if none of its candles exists."""
    spec = catalogue.known(file.symbol)
    if spec is None:
        return None
    micro = file.market == "spot" and file.start_ms >= MICROSECONDS_FROM_MS
    lines = []
    units = truth.units(file.market, file.symbol, file.grid.name, file.start_ms, file.stop_ms)
    for row in rows(units):
        if not catalogue.exists(spec, file.grid, row[0]):
            continue
        values = kline_row(spec, file.grid, row)
        if micro:
            values[0], values[6] = f"{values[0]}000", f"{values[6]}999"
        lines.append(",".join(map(str, values)))
    if not lines:
        return None
    return ("" if file.market == "spot" else HEADER) + "\n".join(lines) + "\n"


def zipped(name: str, text: str, start_ms: int) -> bytes:
    """Return a zip that holds `name`.csv, dated like its content."""
    day = datetime.fromtimestamp(start_ms / 1000, UTC)
    entry = zipfile.ZipInfo(f"{name}.csv", (day.year, day.month, day.day, 0, 0, 0))
    entry.compress_type = zipfile.ZIP_DEFLATED
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(entry, text)
    return buffer.getvalue()


def checksum(name: str, content: bytes) -> str:
    """Return what the `.CHECKSUM` file of a zip says."""
    return f"{hashlib.sha256(content).hexdigest()}  {name}.zip"
