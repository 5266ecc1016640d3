"""The public archive's client: what it lists of a series, and its zips once their checksums fit.

    client = ArchiveClient(market, session, clock)
    for day in await client.files(series, "daily"):
        content = await client.fetch(ArchiveFile(series, "daily", day))

Contract: whatever fails is one `ArchiveError` that names the fault and says
whether to ask again. Nothing is retried here, and nobody is made to wait: who
asked knows what is still wanted, and `wait_s` says what the archive asked for.

Source: binance-public-data, README.md; its bucket is listed as S3 lists.
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

# A checksum's file has 64 digits, two blanks and a name.
_CHECKSUM_BYTES_MAX = 1024

# Ten years of days, each with its checksum, are 8 pages; the symbols of spot are 4.
PAGES_MAX = 200

# A large zip may take long, but not be silent for long.
TIMEOUT_S = 600.0
SILENCE_S = 30.0
PAGE_TIMEOUT_S = 60.0

# A compressed answer could be of any size once it is not.
_AS_IT_IS = {"Accept-Encoding": "identity"}

_PART_BYTES = 1 << 16

# Hashing more than this would hold up the event loop for milliseconds.
_THREAD_FROM_BYTES = 1024 * 1024

# Statuses that mean "not now": a timeout, a ban, too many requests, the firewall's and the region's.
_LATER = (403, 408, 418, 429, 451)

# What sha256sum writes.
_CHECKSUM = re.compile(rb"([0-9A-Fa-f]{64})[ \t]+\*?([^\r\n]+?)\s*")

Trouble = Literal["absent", "checksum", "refused", "network", "unreadable"]


class ArchiveError(ExchangeError):
    """What the archive did not give as it should.

    Args:
        what: the line to log.
        fault: "absent" (there is no such file), "checksum" (missing, unreadable, or of
            other bytes), "refused" (another status than 200), "network" (no answer, or
            not all of it), "unreadable" (no list; or more than anybody reads).
        status: HTTP's; 0 if there was none.
        retry_after_s: how long it asked to be left alone; None if it did not say.
    """

    def __init__(
        self, what: str, fault: Trouble, *, status: int = 0, retry_after_s: float | None = None
    ) -> None:
        super().__init__(what)
        self.fault = fault
        self.status = status
        self.retry_after_s = retry_after_s

    @property
    def retryable(self) -> bool:
        """Whether the same question may get another answer soon."""
        if self.fault == "refused":
            return self.status in _LATER or self.status >= 500
        # A file that is being replaced does not fit its checksum for a moment.
        return self.fault in ("network", "checksum")


class ArchiveClient:
    """Asks the archive about one market.

    Args:
        market: where the archive and its list are.
        session: open while this is used; it limits the connections.
        clock: for `wait_s`.

    Attributes:
        asked: requests so far.
    """

    def __init__(self, market: Market, session: Network, clock: Clock) -> None:
        self.market = market
        self.asked = 0
        self._session = session
        self._clock = clock
        self._left_alone_until_s = clock.monotonic_s()

    @property
    def wait_s(self) -> float:
        """How long the archive still wants to be left alone, in seconds; 0 if it does not."""
        return max(0.0, self._left_alone_until_s - self._clock.monotonic_s())

    async def files(self, series: Series, period: Period) -> dict[date, int]:
        """Return what the archive lists of a series: the zip's bytes by the file's first day, ascending.

        A series that it does not know has none. Names that are no zip of the series are
        left out.

        Raises:
            ArchiveError: if it does not list them; never "absent".
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
        """Return the symbols of the market that the archive has files of, delisted ones too, in its order.

        Raises:
            ArchiveError: if it does not list them; never "absent".
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
        """Return the bytes of a zip, which are those that its checksum is of.

        Raises:
            ArchiveError: if it does not give them.
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
            raise ArchiveError(f"{url}: its bytes are not those of its checksum", "checksum")
        return content

    async def _checksum(self, url: str, file: ArchiveFile) -> str:
        try:
            said = await self._ask(f"{url}.CHECKSUM", {}, PAGE_TIMEOUT_S, _CHECKSUM_BYTES_MAX)
        except ArchiveError as error:
            if error.fault in ("absent", "unreadable"):
                raise ArchiveError(error.what, "checksum", status=error.status) from None
            raise
        match = _CHECKSUM.fullmatch(said)
        if match is None or match[2] != f"{file.name}.zip".encode():
            shown = quoted(said.decode(errors="replace"))
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
                # A list that is not there says nothing about any file.
                raise ArchiveError(error.what, "refused", status=error.status) from None
            except ExchangeError as error:
                raise ArchiveError(f"{url}: {prefix}: {error}", "unreadable") from None
            pages.append(page)
            if not page.marker:
                return pages
            if page.marker <= marker:
                raise ArchiveError(f"{url}: {prefix}: its pages go round in circles", "unreadable")
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
                    raise self._refused(url, answer)
                return await _read(url, answer, bytes_max)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise ArchiveError(f"{url}: {quoted(str(error) or type(error).__name__)}", "network") from None

    def _refused(self, url: str, answer: aiohttp.ClientResponse) -> ArchiveError:
        status = answer.status
        wait_s = retry_after_s(status, answer.headers.get("Retry-After"))
        if wait_s is not None:
            self._left_alone_until_s = max(self._left_alone_until_s, self._clock.monotonic_s() + wait_s)
        trouble: Trouble = "absent" if status == 404 else "refused"
        return ArchiveError(f"{url}: HTTP {status}", trouble, status=status, retry_after_s=wait_s)


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
