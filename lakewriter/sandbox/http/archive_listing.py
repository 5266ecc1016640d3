"""The list of the sandbox's archive, as S3 writes it: directories, keys and sizes, a page at a time.

It names the files that `archive` has, each with its checksum. Sizes of zips are
estimates, for to know one its file must be made: the first lines of the
series tell how many bytes a line takes. Pure: the time is told.

Source: Amazon S3 API reference, ListObjects (its first version).
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from itertools import islice
from typing import NamedTuple
from xml.sax.saxutils import escape

from lakewriter.binance.archive_files import ArchiveFile, Period, parse_name
from lakewriter.interval import INTERVALS
from lakewriter.market import MARKETS
from lakewriter.sandbox.faults.table import Faults
from lakewriter.sandbox.http import archive
from lakewriter.sandbox.truth.candles import Truth
from lakewriter.sandbox.truth.catalogue import Catalogue
from lakewriter.series import Series

BUCKET = "data.binance.vision"

# Keys and directories of one page.
KEYS_MAX = 1000

# Lines that the estimate is made from.
_SAMPLE_LINES = 1440

# What a zip of one file has besides its lines and twice the file's name.
_ZIP_BYTES = 98


class ArchiveKey(NamedTuple):
    """What a directory of klines is about; "" for all."""

    market: str
    period: Period
    symbol: str = ""
    interval: str = ""

    @property
    def series(self) -> Series:
        """The series that a directory of files is of."""
        return Series(self.market, self.symbol, self.interval)


class _Entry(NamedTuple):
    """What one line of the list says; a directory ends with a slash and has neither size nor time."""

    key: str
    size: int = 0
    modified_ms: int = 0


# Where the klines of each market and period are, without the first slash.
_ROOTS = {
    f"{market.archive_path}/{period}/klines/"[1:]: ArchiveKey(market.name, period)
    for market in MARKETS.values()
    for period in archive.PERIODS
}


def place(directory: str) -> ArchiveKey | None:
    """Return what a directory is about, or None if it is above all klines, or below."""
    root = next((root for root in _ROOTS if directory.startswith(root)), None)
    if root is None:
        return None
    market, period, *_ = _ROOTS[root]
    names = directory[len(root) :].split("/")[:-1]
    return ArchiveKey(market, period, *names) if len(names) <= 2 else None


class Keys:
    """What the bucket lists.

    Args:
        catalogues: by market.
    """

    def __init__(self, catalogues: Mapping[str, Catalogue], truth: Truth, faults: Faults) -> None:
        self._catalogues = catalogues
        self._truth = truth
        self._faults = faults
        self._line_bytes: dict[ArchiveKey, float] = {}

    def page(self, prefix: str, marker: str, now_ms: int) -> str:
        """Return a page of what begins with the prefix and comes after the marker, up to the next slash."""
        directory = prefix[: prefix.rfind("/") + 1]
        entries = (
            entry
            for entry in self._entries(directory, marker, now_ms)
            if entry.key > marker and entry.key.startswith(prefix)
        )
        return _xml(prefix, marker, list(islice(entries, KEYS_MAX + 1)))

    def _entries(self, directory: str, marker: str, now_ms: int) -> Iterator[_Entry]:
        here = place(directory)
        if here is None:
            below = (root[len(directory) :] for root in _ROOTS if root.startswith(directory))
            names = sorted({path.partition("/")[0] for path in below})
        elif here.interval:
            yield from self._files(here, marker, now_ms)
            return
        elif here.symbol:
            names = sorted(name for name in INTERVALS if self._any(here._replace(interval=name), now_ms))
        else:
            everyone = sorted(self._catalogues[here.market].everyone())
            names = [name for name in everyone if self._any(here._replace(symbol=name), now_ms)]
        for name in names:
            yield _Entry(f"{directory}{name}/")

    def _any(self, here: ArchiveKey, now_ms: int) -> bool:
        intervals = [here.interval] if here.interval else MARKETS[here.market].intervals
        return any(True for name in intervals for _ in self._there(here._replace(interval=name), now_ms))

    def _there(self, here: ArchiveKey, now_ms: int, first: date = date.min) -> Iterator[ArchiveFile]:
        for file in archive.files(self._catalogues[here.market], here.series, here.period, now_ms, first):
            if not self._faults.of_file("archive_missing_file", file):
                yield file

    def _files(self, here: ArchiveKey, marker: str, now_ms: int) -> Iterator[_Entry]:
        zip_name = marker.rpartition("/")[2].removesuffix(".CHECKSUM")
        marked = parse_name(here.series, here.period, zip_name)
        # Who asks for the last of many pages need not wait for those before it.
        first = date.min if marked is None or marked.path[1:] > marker else marked.day
        for file in self._there(here, now_ms, first):
            path = file.path[1:]
            yield _Entry(path, self._bytes(here, file, now_ms), file.stop_ms)
            if not self._faults.of_file("archive_missing_checksum", file):
                yield _Entry(f"{path}.CHECKSUM", len(archive.checksum(file, b"").encode()), file.stop_ms)

    def _bytes(self, here: ArchiveKey, file: ArchiveFile, now_ms: int) -> int:
        if here not in self._line_bytes:
            # The first of all, whoever asks: the same file has the same size on every page.
            first = next(archive.files(self._catalogues[here.market], here.series, here.period, now_ms))
            self._line_bytes[here] = self._sampled(first)
        ranges = archive.present(self._catalogues[here.market], file)
        lines = sum(here.series.grid.count(*each) for each in ranges)
        return _bare_bytes(file) + round(lines * self._line_bytes[here])

    def _sampled(self, file: ArchiveFile) -> float:
        grid, catalogue = file.series.grid, self._catalogues[file.series.market]
        spec = catalogue.known(file.series.symbol)
        assert spec is not None
        ranges = archive.present(catalogue, file)
        start_ms, stop_ms = next(each for each in ranges if grid.count(*each))
        if grid.length_ms:
            stop_ms = min(stop_ms, start_ms + grid.length_ms * _SAMPLE_LINES)
        content = archive.zipped(file, archive.csv(self._truth, spec, file, [(start_ms, stop_ms)]))
        return (len(content) - _bare_bytes(file)) / grid.count(start_ms, stop_ms)


def _bare_bytes(file: ArchiveFile) -> int:
    return _ZIP_BYTES + 2 * len(f"{file.name}.csv".encode())


def _xml(prefix: str, marker: str, found: list[_Entry]) -> str:
    """Return the page of the first entries; one more than a page has says that it is not the last."""
    entries, more = found[:KEYS_MAX], len(found) > KEYS_MAX
    head = {
        "Name": BUCKET,
        "Prefix": prefix,
        "Marker": marker,
        **({"NextMarker": entries[-1].key} if more else {}),
        "MaxKeys": str(KEYS_MAX),
        "Delimiter": "/",
        "IsTruncated": str(more).lower(),
    }
    said = "".join(f"<{name}>{escape(text)}</{name}>" for name, text in head.items())
    contents = "".join(_content(entry) for entry in entries)
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{said}{contents}</ListBucketResult>'
    )


def _content(entry: _Entry) -> str:
    key = escape(entry.key)
    if key.endswith("/"):
        return f"<CommonPrefixes><Prefix>{key}</Prefix></CommonPrefixes>"
    modified = datetime.fromtimestamp(entry.modified_ms / 1000, UTC)
    return (
        f"<Contents><Key>{key}</Key><LastModified>{modified:%Y-%m-%dT%H:%M:%S}.000Z</LastModified>"
        f"<Size>{entry.size}</Size><StorageClass>STANDARD</StorageClass></Contents>"
    )
