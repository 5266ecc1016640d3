"""The list of the sandbox's archive in S3's format: pages of directories, keys and sizes.

It names the files of `archive` and their checksums. The size of a zip is an estimate,
because the exact size requires the zip. A sample of the series' first lines gives the bytes
of a line. Pure: the time is passed in.

Source: Amazon S3 API reference, ListObjects, first version.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime
from itertools import islice
from typing import NamedTuple
from xml.sax.saxutils import escape

from lakewriter.binance.archive_files import ArchiveFile, Period, parse_name
from lakewriter.interval import INTERVALS
from lakewriter.market import MARKETS
from lakewriter.sandbox.exchange import SimulatedExchange
from lakewriter.sandbox.http import archive
from lakewriter.series import Series

BUCKET_NAME = "data.binance.vision"

# The maximum keys and directories of one page.
KEYS_MAX = 1000

# The maximum lines of a sample for the estimate.
_SAMPLE_LINES = 1440

# The size of a zip without its lines and without the file's name, which occurs twice.
_ZIP_BYTES = 98


class ArchiveKey(NamedTuple):
    """The market, period, symbol and interval of a directory of klines. "" stands for all."""

    market: str
    period: Period
    symbol: str = ""
    interval: str = ""

    @property
    def series(self) -> Series:
        """The series of a directory of files."""
        return Series(self.market, self.symbol, self.interval)


class _Entry(NamedTuple):
    """One entry of the list. A directory ends with a slash, and has neither size nor time."""

    key: str
    size: int = 0
    modified_ms: int = 0


# The directories of the klines of each market and period, without the first slash.
_ROOTS = {
    f"{market.archive_path}/{period}/klines/"[1:]: ArchiveKey(market.name, period)
    for market in MARKETS.values()
    for period in archive.PERIODS
}


def parse_directory(directory: str) -> ArchiveKey | None:
    """Return the key of a directory; None if it has no klines, or is too deep."""
    root = next((root for root in _ROOTS if directory.startswith(root)), None)
    if root is None:
        return None
    market, period, *_ = _ROOTS[root]
    names = directory[len(root) :].split("/")[:-1]
    return ArchiveKey(market, period, *names) if len(names) <= 2 else None


class ArchiveListing:
    """The list of the archive's files, with a cache of estimates."""

    def __init__(self, exchange: SimulatedExchange) -> None:
        self._exchange = exchange
        self._line_bytes: dict[ArchiveKey, float] = {}

    def page(self, prefix: str, marker: str, now_ms: int) -> str:
        """Return a page of the listing, in XML, with the delimiter `/`.

        The page has keys with this prefix that sort after the marker. Keys below a
        directory are replaced by the directory's name.
        """
        directory = prefix[: prefix.rfind("/") + 1]
        entries = (
            entry
            for entry in self._entries(directory, marker, now_ms)
            if entry.key > marker and entry.key.startswith(prefix)
        )
        return _page_xml(prefix, marker, list(islice(entries, KEYS_MAX + 1)))

    def _entries(self, directory: str, marker: str, now_ms: int) -> Iterator[_Entry]:
        key = parse_directory(directory)
        if key is None:
            below = (root[len(directory) :] for root in _ROOTS if root.startswith(directory))
            names = sorted({path.partition("/")[0] for path in below})
        elif key.interval:
            yield from self._file_entries(key, marker, now_ms)
            return
        elif key.symbol:
            names = sorted(name for name in INTERVALS if self._has_files(key._replace(interval=name), now_ms))
        else:
            symbols = sorted(self._exchange.catalogues[key.market].symbols())
            names = [name for name in symbols if self._has_files(key._replace(symbol=name), now_ms)]
        for name in names:
            yield _Entry(f"{directory}{name}/")

    def _has_files(self, key: ArchiveKey, now_ms: int) -> bool:
        intervals = [key.interval] if key.interval else MARKETS[key.market].intervals
        return any(
            True for name in intervals for _ in self._existing_files(key._replace(interval=name), now_ms)
        )

    def _existing_files(self, key: ArchiveKey, now_ms: int, first: date = date.min) -> Iterator[ArchiveFile]:
        for file in archive.existing_files(
            self._exchange.catalogues[key.market], key.series, key.period, now_ms, first
        ):
            if not self._exchange.faults.active_for_file("archive_missing_file", file):
                yield file

    def _file_entries(self, key: ArchiveKey, marker: str, now_ms: int) -> Iterator[_Entry]:
        zip_name = marker.rpartition("/")[2].removesuffix(".CHECKSUM")
        marked_file = parse_name(key.series, key.period, zip_name)
        # The last of many pages must not take the time of all previous pages.
        first = date.min if marked_file is None or marked_file.path[1:] > marker else marked_file.day
        for file in self._existing_files(key, now_ms, first):
            path = file.path[1:]
            yield _Entry(path, self._estimated_bytes(key, file, now_ms), file.stop_ms)
            if not self._exchange.faults.active_for_file("archive_missing_checksum", file):
                yield _Entry(f"{path}.CHECKSUM", len(archive.checksum_text(file, b"").encode()), file.stop_ms)

    def _estimated_bytes(self, key: ArchiveKey, file: ArchiveFile, now_ms: int) -> int:
        if key not in self._line_bytes:
            # The sample always comes from the first file, so a file has the same size on each page.
            first = next(
                archive.existing_files(self._exchange.catalogues[key.market], key.series, key.period, now_ms)
            )
            self._line_bytes[key] = self._sample_line_bytes(first)
        ranges = archive.candle_ranges(self._exchange.catalogues[key.market], file)
        lines = sum(key.series.grid.count(*each) for each in ranges)
        return _empty_zip_bytes(file) + round(lines * self._line_bytes[key])

    def _sample_line_bytes(self, file: ArchiveFile) -> float:
        grid, catalogue = file.series.grid, self._exchange.catalogues[file.series.market]
        spec = catalogue.find(file.series.symbol)
        assert spec is not None
        ranges = archive.candle_ranges(catalogue, file)
        start_ms, stop_ms = next(each for each in ranges if grid.count(*each))
        if grid.length_ms:
            stop_ms = min(stop_ms, start_ms + grid.length_ms * _SAMPLE_LINES)
        content = archive.zip_file(
            file, archive.csv_text(self._exchange.truth, spec, file, [(start_ms, stop_ms)])
        )
        return (len(content) - _empty_zip_bytes(file)) / grid.count(start_ms, stop_ms)


def _empty_zip_bytes(file: ArchiveFile) -> int:
    return _ZIP_BYTES + 2 * len(f"{file.name}.csv".encode())


def _page_xml(prefix: str, marker: str, found: list[_Entry]) -> str:
    """Return a page as XML. An additional entry shows that another page follows."""
    entries, more = found[:KEYS_MAX], len(found) > KEYS_MAX
    head = {
        "Name": BUCKET_NAME,
        "Prefix": prefix,
        "Marker": marker,
        **({"NextMarker": entries[-1].key} if more else {}),
        "MaxKeys": str(KEYS_MAX),
        "Delimiter": "/",
        "IsTruncated": str(more).lower(),
    }
    head_xml = "".join(f"<{name}>{escape(text)}</{name}>" for name, text in head.items())
    contents = "".join(_entry_xml(entry) for entry in entries)
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{head_xml}{contents}</ListBucketResult>'
    )


def _entry_xml(entry: _Entry) -> str:
    key = escape(entry.key)
    if key.endswith("/"):
        return f"<CommonPrefixes><Prefix>{key}</Prefix></CommonPrefixes>"
    modified = datetime.fromtimestamp(entry.modified_ms / 1000, UTC)
    return (
        f"<Contents><Key>{key}</Key><LastModified>{modified:%Y-%m-%dT%H:%M:%S}.000Z</LastModified>"
        f"<Size>{entry.size}</Size><StorageClass>STANDARD</StorageClass></Contents>"
    )
