"""The sandbox's archive over HTTP: zips, their checksums and their list, with faults.

Simultaneous requests share one zip. `archive` makes the content of zips, and
`archive_listing` makes the list.
"""

import asyncio
import math
from collections import OrderedDict

from aiohttp import web

from lakewriter.binance.archive_files import ArchiveFile
from lakewriter.market import MARKETS
from lakewriter.ranges import minus
from lakewriter.sandbox.exchange import SimulatedExchange
from lakewriter.sandbox.faults.table import Fault
from lakewriter.sandbox.http import archive
from lakewriter.sandbox.http.archive_listing import BUCKET_NAME, ArchiveKey, ArchiveListing, parse_directory

# The maximum cached zips. A client requests a zip and its checksum together or in succession.
_CACHED_FILES_MAX = 32

# The maximum size of a cached zip. A month of 1s candles has a hundred megabytes. A larger
# zip is cached only while it is sent.
_CACHED_BYTES_MAX = 4 * 1024 * 1024

_CHECKSUM_SUFFIX = ".CHECKSUM"

# The number of flipped bytes. They begin at a third of the file.
_FLIPPED_BYTES = 16


class ArchiveHttp:
    """The handlers of the archive's URLs.

    Args:
        exchange: the exchange, which counts the requests.
    """

    def __init__(self, exchange: SimulatedExchange) -> None:
        self._exchange = exchange
        self._listing = ArchiveListing(exchange)
        self._cached: OrderedDict[ArchiveFile, asyncio.Task[bytes]] = OrderedDict()

    def add_routes(self, app: web.Application) -> None:
        """Add the routes of the files and their list, also below each market."""
        app.router.add_get(f"/{BUCKET_NAME}", self._answer_list)
        for base in ("", *(f"/{market}" for market in MARKETS)):
            app.router.add_get(f"{base}/data/{{path:.+}}", self._answer_file)

    def clear_cache(self) -> None:
        """Remove cached zips and sizes after a change of the existing candles."""
        self._cached.clear()
        self._listing = ArchiveListing(self._exchange)

    async def _answer_list(self, request: web.Request) -> web.Response:
        self._exchange.requests["archive_list"] += 1
        prefix, marker = request.query.get("prefix", ""), request.query.get("marker", "")
        now_ms = self._exchange.clock.now_ms()
        key = parse_directory(prefix[: prefix.rfind("/") + 1]) or ArchiveKey("", "daily")
        refusal = self._exchange.faults.active(
            "archive_list_status", key.market, key.symbol, key.interval, now_ms=now_ms
        )
        if refusal is not None:
            return _refusal_response(refusal)
        if request.query.get("delimiter") != "/":
            return _error_response(501, "NotImplemented", "The list needs delimiter=/.")
        page = await asyncio.to_thread(self._listing.page, prefix, marker, now_ms)
        return web.Response(text=page, content_type="application/xml")

    async def _answer_file(self, request: web.Request) -> web.Response:
        self._exchange.requests["archive"] += 1
        path = "/data/" + request.match_info["path"]
        zip_path = path.removesuffix(_CHECKSUM_SUFFIX)
        file = archive.find_file(zip_path, self._exchange.catalogues, self._exchange.clock.now_ms())
        if file is None or self._exchange.faults.active_for_file("archive_missing_file", file):
            return _error_response(404, "NoSuchKey", "The specified key does not exist.")
        slow = self._exchange.faults.active_for_file("slow_archive", file)
        if slow is not None:
            await asyncio.sleep(slow.value)
        refusal = self._exchange.faults.active_for_file("archive_status", file)
        if refusal is not None:
            return _refusal_response(refusal)
        content = await self._zip_of(file)
        if path == zip_path:
            damaged = self._exchange.faults.active_for_file("archive_corrupt_zip", file)
            return web.Response(
                body=_flipped(content) if damaged else content, content_type="application/zip"
            )
        return self._answer_checksum(file, content)

    def _answer_checksum(self, file: ArchiveFile, content: bytes) -> web.Response:
        if self._exchange.faults.active_for_file("archive_missing_checksum", file):
            return _error_response(404, "NoSuchKey", "The specified key does not exist.")
        damaged = self._exchange.faults.active_for_file("archive_corrupt_zip", file)
        if damaged is not None and damaged.value:
            content = _flipped(content)
        if self._exchange.faults.active_for_file("archive_wrong_checksum", file):
            content += b"others"
        return web.Response(text=archive.checksum_text(file, content), content_type="binary/octet-stream")

    async def _zip_of(self, file: ArchiveFile) -> bytes:
        making = self._cached.get(file)
        if making is None:
            making = self._cached[file] = asyncio.create_task(asyncio.to_thread(self._make_zip, file))
            if len(self._cached) > _CACHED_FILES_MAX:
                self._cached.popitem(last=False)
        # A disconnected client must not cancel the zip for other clients.
        content = await asyncio.shield(making)
        if len(content) > _CACHED_BYTES_MAX:
            self._cached.pop(file, None)
        return content

    def _make_zip(self, file: ArchiveFile) -> bytes:
        catalogue = self._exchange.catalogues[file.series.market]
        spec = catalogue.find(file.series.symbol)
        assert spec is not None
        missing = [
            (fault.start_ms or 0, file.stop_ms if fault.stop_ms is None else fault.stop_ms)
            for fault in self._exchange.faults.concerning("archive_missing_rows", *file.series)
            if fault.affects_file(file.path)
        ]
        ranges = minus(archive.candle_ranges(catalogue, file), missing)
        return archive.zip_file(file, archive.csv_text(self._exchange.truth, spec, file, ranges))


def _flipped(content: bytes) -> bytes:
    start = len(content) // 3
    stop = start + _FLIPPED_BYTES
    return content[:start] + bytes(byte ^ 0xFF for byte in content[start:stop]) + content[stop:]


def _refusal_response(fault: Fault) -> web.Response:
    response = _error_response(int(fault.value), "SlowDown", "Please reduce your request rate.")
    if fault.retry_after_s:
        response.headers["Retry-After"] = str(math.ceil(fault.retry_after_s))
    return response


def _error_response(status: int, code: str, message: str) -> web.Response:
    text = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return web.Response(text=text, status=status, content_type="application/xml")
