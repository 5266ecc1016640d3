"""The sandbox's archive over HTTP: zips, their checksums and the list of both, with their faults.

It makes each file once for all who ask for it at a time, and leaves what is in
them to `archive`, and what the list says to `keys`.
"""

import asyncio
import math
from collections import Counter, OrderedDict
from collections.abc import Mapping

from aiohttp import web

from lakewriter.binance.archive_files import ArchiveFile
from lakewriter.market import MARKETS
from lakewriter.ranges import minus
from lakewriter.sandbox.clock import SimClock
from lakewriter.sandbox.faults.table import Fault, Faults
from lakewriter.sandbox.http import archive
from lakewriter.sandbox.http.archive_listing import BUCKET, ArchiveKey, Keys, place
from lakewriter.sandbox.truth.candles import Truth
from lakewriter.sandbox.truth.catalogue import Catalogue

# Files kept, because a zip and its checksum are asked for at the same time, or one after the other.
_FILES_MAX = 32

# A larger file is kept only while it is being sent: seconds of a month have a hundred megabytes.
_KEPT_BYTES_MAX = 4 * 1024 * 1024

_SUFFIX = ".CHECKSUM"

# Bytes of a file that are flipped, from a third of it on.
_FLIPPED = 16


class Bucket:
    """Whoever answers what is asked of the archive.

    Args:
        catalogues: by market.
        requests: requests, by kind; counted here.
    """

    def __init__(
        self,
        catalogues: Mapping[str, Catalogue],
        truth: Truth,
        faults: Faults,
        clock: SimClock,
        requests: Counter[str],
    ) -> None:
        self._catalogues = catalogues
        self._truth = truth
        self._faults = faults
        self._clock = clock
        self._requests = requests
        self._keys = Keys(catalogues, truth, faults)
        self._files: OrderedDict[ArchiveFile, asyncio.Task[bytes]] = OrderedDict()

    def add_routes(self, app: web.Application) -> None:
        """Offer the files where the exchange has them, below each market too, and their list."""
        app.router.add_get(f"/{BUCKET}", self._list)
        for base in ("", *(f"/{market}" for market in MARKETS)):
            app.router.add_get(f"{base}/data/{{path:.+}}", self._file)

    def forget(self) -> None:
        """Make files and their sizes anew: other candles exist now."""
        self._files.clear()
        self._keys = Keys(self._catalogues, self._truth, self._faults)

    async def _list(self, request: web.Request) -> web.Response:
        self._requests["archive_list"] += 1
        prefix, marker = request.query.get("prefix", ""), request.query.get("marker", "")
        now_ms = self._clock.now_ms()
        here = place(prefix[: prefix.rfind("/") + 1]) or ArchiveKey("", "daily")
        refused = self._faults.active(
            "archive_list_status", here.market, here.symbol, here.interval, now_ms=now_ms
        )
        if refused is not None:
            return _refusal(refused)
        if request.query.get("delimiter") != "/":
            return _error(501, "NotImplemented", "The list needs delimiter=/.")
        page = await asyncio.to_thread(self._keys.page, prefix, marker, now_ms)
        return web.Response(text=page, content_type="application/xml")

    async def _file(self, request: web.Request) -> web.Response:
        self._requests["archive"] += 1
        path = "/data/" + request.match_info["path"]
        zip_path = path.removesuffix(_SUFFIX)
        file = archive.find(zip_path, self._catalogues, self._clock.now_ms())
        if file is None or self._faults.of_file("archive_missing_file", file):
            return _error(404, "NoSuchKey", "The specified key does not exist.")
        slow = self._faults.of_file("slow_archive", file)
        if slow is not None:
            await asyncio.sleep(slow.value)
        refused = self._faults.of_file("archive_status", file)
        if refused is not None:
            return _refusal(refused)
        content = await self._content(file)
        if path == zip_path:
            damaged = self._faults.of_file("archive_corrupt_zip", file)
            return web.Response(
                body=_flipped(content) if damaged else content, content_type="application/zip"
            )
        return self._checksum(file, content)

    def _checksum(self, file: ArchiveFile, content: bytes) -> web.Response:
        if self._faults.of_file("archive_missing_checksum", file):
            return _error(404, "NoSuchKey", "The specified key does not exist.")
        damaged = self._faults.of_file("archive_corrupt_zip", file)
        if damaged is not None and damaged.value:
            content = _flipped(content)
        if self._faults.of_file("archive_wrong_checksum", file):
            content += b"others"
        return web.Response(text=archive.checksum(file, content), content_type="binary/octet-stream")

    async def _content(self, file: ArchiveFile) -> bytes:
        making = self._files.get(file)
        if making is None:
            making = self._files[file] = asyncio.create_task(asyncio.to_thread(self._make, file))
            if len(self._files) > _FILES_MAX:
                self._files.popitem(last=False)
        # Whoever leaves takes it from nobody else.
        content = await asyncio.shield(making)
        if len(content) > _KEPT_BYTES_MAX:
            self._files.pop(file, None)
        return content

    def _make(self, file: ArchiveFile) -> bytes:
        catalogue = self._catalogues[file.series.market]
        spec = catalogue.known(file.series.symbol)
        assert spec is not None
        missing = [
            (fault.start_ms or 0, file.stop_ms if fault.stop_ms is None else fault.stop_ms)
            for fault in self._faults.of("archive_missing_rows", *file.series)
            if fault.hits(file.path)
        ]
        ranges = minus(archive.present(catalogue, file), missing)
        return archive.zipped(file, archive.csv(self._truth, spec, file, ranges))


def _flipped(content: bytes) -> bytes:
    start = len(content) // 3
    stop = start + _FLIPPED
    return content[:start] + bytes(byte ^ 0xFF for byte in content[start:stop]) + content[stop:]


def _refusal(fault: Fault) -> web.Response:
    response = _error(int(fault.value), "SlowDown", "Please reduce your request rate.")
    if fault.retry_after_s:
        response.headers["Retry-After"] = str(math.ceil(fault.retry_after_s))
    return response


def _error(status: int, code: str, words: str) -> web.Response:
    text = f"<Error><Code>{code}</Code><Message>{words}</Message></Error>"
    return web.Response(text=text, status=status, content_type="application/xml")
