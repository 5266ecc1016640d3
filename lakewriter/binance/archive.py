"""The client of the public archive: lists of a series' files, and zips whose checksums match.

    client = ArchiveClient(market, session, clock)
    for day in await client.files(series, "daily"):
        content = await client.fetch(ArchiveFile(series, "daily", day))

Contract: each failure is an `ArchiveError` that names the fault, and knows whether
a retry makes sense. The client retries and delays no request, because only the
caller knows whether the file is still needed. `wait_s` is the delay that the
archive requested.

Source: binance-public-data, README.md. The list of the bucket has the format of S3.
"""

import asyncio
import hashlib
import re
from datetime import date
from typing import Literal

import aiohttp

from lakewriter.binance.archive_files import ArchiveFile, Period, parse_name
from lakewriter.binance.archive_list import PAGE_BYTES_MAX, ArchivePage, parse_page
from lakewriter.binance.network import Network
from lakewriter.binance.retry_after import retry_after_s
from lakewriter.binance.wire import quoted
from lakewriter.clock import Clock
from lakewriter.errors import ExchangeError
from lakewriter.market import Market, is_symbol
from lakewriter.series import Series

# A checksum file has 64 digits, two blanks and a name.
_CHECKSUM_BYTES_MAX = 1024

# Ten years of daily files, each with its checksum, are 8 pages. The symbols of spot are 4 pages.
PAGES_MAX = 200

# Maximum durations of a download and of a pause in it: a large zip may take long.
TIMEOUT_S = 600.0
SILENCE_S = 30.0
PAGE_TIMEOUT_S = 60.0

# A compressed answer could inflate to any size.
_AS_IT_IS = {"Accept-Encoding": "identity"}

_PART_BYTES = 1 << 16

# Hashing this many bytes would block the event loop for milliseconds.
_THREAD_FROM_BYTES = 1024 * 1024

# Statuses after which a retry may succeed: firewall, timeout, ban, too many requests, region.
_RETRYABLE = (403, 408, 418, 429, 451)

# The format of sha256sum.
_CHECKSUM = re.compile(rb"([0-9A-Fa-f]{64})[ \t]+\*?([^\r\n]+?)\s*")

Fault = Literal["absent", "checksum", "refused", "network", "unreadable"]


class ArchiveError(ExchangeError):
    """A request to the archive that failed.

    Args:
        what: the line to log.
        fault: "absent": the file does not exist; "checksum": the checksum is missing,
            unreadable or different; "refused": the status is not 200; "network": the
            answer is missing or incomplete; "unreadable": the answer is not a list, or
            has too many bytes.
        status: the HTTP status; 0 without an answer.
        retry_after_s: the delay that the archive requested; None if it requested no delay.
    """

    def __init__(
        self, what: str, fault: Fault, *, status: int = 0, retry_after_s: float | None = None
    ) -> None:
        super().__init__(what)
        self.fault = fault
        self.status = status
        self.retry_after_s = retry_after_s

    @property
    def is_retryable(self) -> bool:
        """Whether a retry may succeed soon."""
        if self.fault == "refused":
            return self.status in _RETRYABLE or self.status >= 500
        # A file may differ from its checksum for a moment while the archive replaces it.
        return self.fault in ("network", "checksum")


class ArchiveClient:
    """The client of one market's archive.

    Args:
        market: has the URLs of the archive and its list.
        session: the open HTTP session; it limits the connections.
        clock: measures `wait_s`.

    Attributes:
        asked: number of requests so far.
    """

    def __init__(self, market: Market, session: Network, clock: Clock) -> None:
        self.market = market
        self.asked = 0
        self._session = session
        self._clock = clock
        self._blocked_until_s = clock.monotonic_s()

    @property
    def wait_s(self) -> float:
        """The rest of the delay that the archive requested, in seconds; 0 without a delay."""
        return max(0.0, self._blocked_until_s - self._clock.monotonic_s())

    async def files(self, series: Series, period: Period) -> dict[date, int]:
        """Fetch a series' list of files; return each zip's size in bytes by its first day, ascending.

        An unknown series has no files. Names that are not a zip of the series are ignored.

        Raises:
            ArchiveError: if a request fails; its fault is never "absent".
        """
        directory = ArchiveFile(series, period, date.min).directory.lstrip("/")
        found: dict[date, int] = {}
        for page in await self._pages(directory):
            for key, size in page.sizes.items():
                file = parse_name(series, period, key.rpartition("/")[2])
                if file is not None and file.path == f"/{key}":
                    found[file.day] = size
        return dict(sorted(found.items()))

    async def symbols(self, period: Period = "daily") -> list[str]:
        """Fetch the symbols with files in the archive, in the archive's order, delisted ones included.

        Raises:
            ArchiveError: if a request fails; its fault is never "absent".
        """
        directory = f"{self.market.archive_path}/{period}/klines/".lstrip("/")
        pages = await self._pages(directory)
        named = {
            prefix.removeprefix(directory).removesuffix("/"): prefix
            for page in pages
            for prefix in page.prefixes
        }
        return [name for name, prefix in named.items() if is_symbol(name) and prefix == f"{directory}{name}/"]

    async def fetch(self, file: ArchiveFile) -> bytes:
        """Fetch a zip; return its bytes.

        Raises:
            ArchiveError: if a request fails, or the checksum does not match.
        """
        url = f"{self.market.archive_url}{file.path}"
        checksum = asyncio.create_task(self._checksum(url, file))
        try:
            content = await self._ask(url, {}, TIMEOUT_S, file.zip_bytes_max)
            expected = await checksum
        finally:
            checksum.cancel()
            await asyncio.gather(checksum, return_exceptions=True)
        if await _digest(content) != expected:
            raise ArchiveError(f"{url}: the zip does not match its checksum", "checksum")
        return content

    async def _checksum(self, url: str, file: ArchiveFile) -> str:
        try:
            body = await self._ask(f"{url}.CHECKSUM", {}, PAGE_TIMEOUT_S, _CHECKSUM_BYTES_MAX)
        except ArchiveError as error:
            if error.fault in ("absent", "unreadable"):
                raise ArchiveError(error.what, "checksum", status=error.status) from None
            raise
        match = _CHECKSUM.fullmatch(body)
        if match is None or match[2] != f"{file.name}.zip".encode():
            shown = quoted(body.decode(errors="replace"))
            raise ArchiveError(f"{url}.CHECKSUM: {shown} is no checksum of it", "checksum")
        return match[1].decode().lower()

    async def _pages(self, prefix: str) -> list[ArchivePage]:
        url, marker = self.market.archive_list_url, ""
        pages: list[ArchivePage] = []
        while len(pages) < PAGES_MAX:
            params = {"delimiter": "/", "prefix": prefix} | ({"marker": marker} if marker else {})
            try:
                page = parse_page(await self._ask(url, params, PAGE_TIMEOUT_S, PAGE_BYTES_MAX))
            except ArchiveError as error:
                if error.fault != "absent":
                    raise
                # A missing list does not prove that a file is absent.
                raise ArchiveError(error.what, "refused", status=error.status) from None
            except ExchangeError as error:
                raise ArchiveError(f"{url}: {prefix}: {error}", "unreadable") from None
            pages.append(page)
            if not page.marker:
                return pages
            if page.marker <= marker:
                raise ArchiveError(f"{url}: {prefix}: its page markers do not ascend", "unreadable")
            marker = page.marker
        raise ArchiveError(f"{url}: {prefix}: more than {PAGES_MAX} pages", "unreadable")

    async def _ask(self, url: str, params: dict[str, str], timeout_s: float, bytes_max: int) -> bytes:
        self.asked += 1
        timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=SILENCE_S, sock_read=SILENCE_S)
        try:
            async with self._session.get(
                url, params=params, timeout=timeout, headers=_AS_IT_IS, allow_redirects=False
            ) as answer:
                if answer.status != 200:
                    raise self._http_error(url, answer)
                return await _read(url, answer, bytes_max)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise ArchiveError(f"{url}: {quoted(str(error) or type(error).__name__)}", "network") from None

    def _http_error(self, url: str, answer: aiohttp.ClientResponse) -> ArchiveError:
        status = answer.status
        wait_s = retry_after_s(status, answer.headers.get("Retry-After"))
        if wait_s is not None:
            self._blocked_until_s = max(self._blocked_until_s, self._clock.monotonic_s() + wait_s)
        fault: Fault = "absent" if status == 404 else "refused"
        return ArchiveError(f"{url}: HTTP {status}", fault, status=status, retry_after_s=wait_s)


async def _read(url: str, answer: aiohttp.ClientResponse, bytes_max: int) -> bytes:
    parts = []
    size = 0
    async for part in answer.content.iter_chunked(_PART_BYTES):
        size += len(part)
        if size > bytes_max:
            raise ArchiveError(f"{url}: more than {bytes_max} bytes", "unreadable")
        parts.append(part)
    return b"".join(parts)


async def _digest(content: bytes) -> str:
    digest = hashlib.sha256
    if len(content) >= _THREAD_FROM_BYTES:
        return (await asyncio.to_thread(digest, content)).hexdigest()
    return digest(content).hexdigest()
