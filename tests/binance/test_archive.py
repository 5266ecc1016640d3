"""The archive's client, against the sandbox's archive and against servers with wrong answers."""

import asyncio
import hashlib
import io
import zipfile
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import date, timedelta

import aiohttp
import msgspec
import pytest
from aiohttp import web

from lakewriter.binance import archive
from lakewriter.binance.archive import ArchiveClient, ArchiveError
from lakewriter.binance.archive_files import ArchiveFile
from lakewriter.clock import Clock
from lakewriter.interval import DAY_MS
from lakewriter.market import MARKETS, Market, served_at
from lakewriter.sandbox import Fault, Sandbox, SandboxOptions, serve
from lakewriter.series import Series
from support.http_server import Handler, serve_routes
from support.running import PATIENCE_S
from support.sandboxes import EVERY_MARKET, MARKET_SYMBOLS, START_MS

pytestmark = pytest.mark.slow

SPOT = Series("spot", "BTCUSDT", "1m")
FILE = ArchiveFile(SPOT, "daily", date(2025, 12, 31))
# Nothing moves.
STILL = SandboxOptions(speed=0.001, start_ms=START_MS + 3_600_000, push_every_ms=0)


class SetClock(Clock):
    """A clock whose time the test sets."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic_s(self) -> float:
        return self.now_s


def against_sandbox(
    scenario: Callable[[Sandbox, Callable[[str], ArchiveClient]], Awaitable[None]], *faults: Fault
) -> None:
    """Run a scenario with a sandbox and clients of its markets."""

    async def main() -> None:
        options = msgspec.structs.replace(STILL, faults=faults)
        async with asyncio.timeout(PATIENCE_S), serve(options) as sandbox, aiohttp.ClientSession() as session:

            def client(market: str) -> ArchiveClient:
                return ArchiveClient(served_at(MARKETS[market], sandbox.url), session, Clock())

            await scenario(sandbox, client)

    asyncio.run(main())


@asynccontextmanager
async def server(handler: Handler):
    """Run a server with one handler for every path; yield a market with its URLs."""
    async with serve_routes(handler) as url:
        yield served_at(MARKETS["spot"], url)


def against(handler: Handler, scenario: Callable[[ArchiveClient], Awaitable[object]]) -> object:
    """Return the result of a scenario with a client of a server."""

    async def main() -> object:
        async with asyncio.timeout(PATIENCE_S), server(handler) as market, aiohttp.ClientSession() as session:
            return await scenario(ArchiveClient(market, session, Clock()))

    return asyncio.run(main())


def refusal_of(handler: Handler, scenario: Callable[[ArchiveClient], Awaitable[object]]) -> ArchiveError:
    """Return the error that ends a scenario."""
    with pytest.raises(ArchiveError) as caught:
        against(handler, scenario)
    assert "\n" not in caught.value.what
    return caught.value


def fetched(client: ArchiveClient) -> Awaitable[bytes]:
    return client.fetch(FILE)


def listed(client: ArchiveClient) -> Awaitable[dict[date, int]]:
    return client.files(SPOT, "daily")


@EVERY_MARKET
def test_every_file_that_is_listed_is_there(market: str) -> None:
    """A series' list has each day from the listing to yesterday, and a listed file is a zip."""

    async def scenario(sandbox: Sandbox, client: Callable[[str], ArchiveClient]) -> None:
        series = Series(market, MARKET_SYMBOLS[market], "1h")
        files = await client(market).files(series, "daily")
        days = (START_MS // DAY_MS) - date(2018, 1, 1).toordinal() + date(1970, 1, 1).toordinal()
        assert list(files) == [date(2018, 1, 1) + timedelta(n) for n in range(days)]
        assert days * 2 > 5 * 1000  # keys: more than five pages
        assert sandbox.requests["archive_list"] == 6
        for day in (date(2018, 1, 1), date(2025, 12, 31)):
            file = ArchiveFile(series, "daily", day)
            content = await client(market).fetch(file)
            with zipfile.ZipFile(io.BytesIO(content)) as opened:
                assert opened.namelist() == [f"{file.name}.csv"]
            # What the sandbox lists is an estimate.
            assert files[day] == pytest.approx(len(content), rel=0.1)

    against_sandbox(scenario)


def test_months() -> None:
    """A monthly file is listed by the first day of its month; months and weeks have no daily files."""

    async def scenario(_: Sandbox, client: Callable[[str], ArchiveClient]) -> None:
        asking = client("spot")
        for interval in ("1m", "1mo"):
            files = await asking.files(SPOT._replace(interval=interval), "monthly")
            assert list(files) == [date(2018 + n // 12, 1 + n % 12, 1) for n in range(96)]
        weeks = await asking.files(SPOT._replace(interval="1w"), "monthly")
        # The week of 2025-12-29 is not over.
        assert max(weeks) == date(2025, 11, 1)
        assert await asking.files(SPOT._replace(interval="1w"), "daily") == {}

    against_sandbox(scenario)


def test_what_is_unknown_has_no_files() -> None:
    """An unknown series has an empty list, and its file is absent."""

    async def scenario(_: Sandbox, client: Callable[[str], ArchiveClient]) -> None:
        series = Series("spot", "NOSUCH", "1m")
        assert await client("spot").files(series, "daily") == {}
        with pytest.raises(ArchiveError) as caught:
            await client("spot").fetch(FILE._replace(series=series))
        assert (caught.value.fault, caught.value.status, caught.value.is_retryable) == ("absent", 404, False)
        assert caught.value.what.endswith("/NOSUCH-1m-2025-12-31.zip: HTTP 404")

    against_sandbox(scenario)


def test_symbols() -> None:
    """The symbols with files come in the archive's order, delisted and foreign ones included."""

    async def scenario(sandbox: Sandbox, client: Callable[[str], ArchiveClient]) -> None:
        names = await client("usdt_futures").symbols()
        assert names == sorted(names)
        assert {"BTCUSDT", "1000PEPEUSDT", "币安人生USDT", "DOTUSDT"} <= set(names)
        assert "BTCUSDT_261225" in names
        assert not {"BNXUSDT", "SPACEUSDT", "NEWUSDT"} & set(names)
        assert "DOTUSDT" not in sandbox.symbols("usdt_futures")
        assert await client("usdt_futures").symbols("monthly") == names
        coin = Series("usdt_futures", "币安人生USDT", "1d")
        days = list(await client("usdt_futures").files(coin, "daily"))
        assert await client("usdt_futures").fetch(ArchiveFile(coin, "daily", days[0]))

    delisted = Fault("delisting", "usdt_futures", ("DOTUSDT",), start_ms=START_MS - 400 * DAY_MS, value=1)
    listed_today = Fault("new_listing", "usdt_futures", ("NEWUSDT",), start_ms=START_MS)
    against_sandbox(scenario, delisted, listed_today)


def xml(inside: str) -> web.Response:
    return web.Response(text=f"<ListBucketResult>{inside}</ListBucketResult>", content_type="application/xml")


DIRECTORY = "data/spot/daily/klines/BTCUSDT/1m/"


def test_strange_names_are_left_out() -> None:
    """Only zips of the series' days and directories of valid symbols count."""
    keys = (
        f"{DIRECTORY}BTCUSDT-1m-2025-12-31.zip",
        f"{DIRECTORY}BTCUSDT-1m-2025-12-31.zip.CHECKSUM",
        f"{DIRECTORY}BTCUSDT-1m-20251230.zip",
        f"{DIRECTORY}BTCUSDT-1m-2025-12.zip",
        f"{DIRECTORY}BTCUSDT-1m-2025-02-30.zip",
        f"{DIRECTORY}ETHUSDT-1m-2025-12-29.zip",
        f"{DIRECTORY}x/BTCUSDT-1m-2025-12-28.zip",
        "BTCUSDT-1m-2025-12-27.zip",
        f"{DIRECTORY}index.html",
    )
    root = "data/spot/daily/klines/"
    prefixes = (f"{root}BTCUSDT/", f"{root}龙虾USDT/", f"{root}../", f"{root}btcusdt/", f"{root}A/B/", "C/")

    async def handler(_: web.Request) -> web.Response:
        contents = "".join(f"<Contents><Key>{key}</Key><Size>7</Size></Contents>" for key in keys)
        return xml(
            contents
            + "".join(f"<CommonPrefixes><Prefix>{each}</Prefix></CommonPrefixes>" for each in prefixes)
        )

    async def scenario(client: ArchiveClient) -> None:
        assert await client.files(SPOT, "daily") == {date(2025, 12, 31): 7}
        assert await client.symbols() == ["BTCUSDT", "龙虾USDT"]

    against(handler, scenario)


def test_the_list_is_asked_as_s3_is() -> None:
    """A request has a delimiter and a prefix; without NextMarker the next page begins after the last key."""
    asked = []

    async def handler(request: web.Request) -> web.Response:
        asked.append((request.path, dict(request.query)))
        day = 10 + len(asked)
        more = str(len(asked) < 3).lower()
        return xml(
            f"<IsTruncated>{more}</IsTruncated>"
            f"<Contents><Key>{DIRECTORY}BTCUSDT-1m-2025-12-{day}.zip</Key><Size>{day}</Size></Contents>"
        )

    files = against(handler, listed)
    assert files == {date(2025, 12, 11): 11, date(2025, 12, 12): 12, date(2025, 12, 13): 13}
    common = {"delimiter": "/", "prefix": DIRECTORY}
    assert asked == [
        ("/data.binance.vision", common),
        ("/data.binance.vision", {**common, "marker": f"{DIRECTORY}BTCUSDT-1m-2025-12-11.zip"}),
        ("/data.binance.vision", {**common, "marker": f"{DIRECTORY}BTCUSDT-1m-2025-12-12.zip"}),
    ]


def test_a_list_without_end() -> None:
    """A list whose pages go back, or that has too many pages, is refused."""

    async def circle(_: web.Request) -> web.Response:
        return xml("<IsTruncated>true</IsTruncated><NextMarker>a</NextMarker>")

    error = refusal_of(circle, listed)
    assert (error.fault, error.is_retryable) == ("unreadable", False)
    assert error.what.endswith(f"{DIRECTORY}: its page markers do not ascend")

    asked = []

    async def endless(request: web.Request) -> web.Response:
        asked.append(request)
        return xml(f"<IsTruncated>true</IsTruncated><NextMarker>{len(asked):06d}</NextMarker>")

    error = refusal_of(endless, listed)
    assert error.what.endswith(f"more than {archive.PAGES_MAX} pages")
    assert len(asked) == archive.PAGES_MAX


@pytest.mark.parametrize(
    "body",
    ["<html>", "<!DOCTYPE x [<!ENTITY a 'b'>]><ListBucketResult/>", "<ListBucketResult>" + " " * 5_000_000],
)
def test_a_list_that_is_none(body: str) -> None:
    """An answer that is no page of a list is unreadable, and not retryable."""

    async def handler(_: web.Request) -> web.Response:
        return web.Response(text=body, content_type="application/xml")

    error = refusal_of(handler, listed)
    assert (error.fault, error.is_retryable) == ("unreadable", False)


@pytest.mark.parametrize(
    ("status", "retryable"),
    [
        (403, True),
        (408, True),
        (429, True),
        (451, True),
        (500, True),
        (503, True),
        (400, False),
        (410, False),
    ],
)
def test_refusals(status: int, retryable: bool) -> None:
    """Any other status is a refusal with its Retry-After; temporary ones are retryable."""

    async def handler(_: web.Request) -> web.Response:
        return web.Response(status=status, headers={"Retry-After": "7"})

    for scenario in (fetched, listed):
        error = refusal_of(handler, scenario)
        assert (error.fault, error.status, error.is_retryable) == ("refused", status, retryable)
        assert error.retry_after_s == 7


def test_a_list_that_is_not_there_is_no_absent_file() -> None:
    """A 404 for the list is a refusal; it does not prove that files are absent."""

    async def handler(_: web.Request) -> web.Response:
        return web.Response(status=404)

    error = refusal_of(handler, listed)
    assert (error.fault, error.status, error.is_retryable) == ("refused", 404, False)


@pytest.mark.parametrize(
    ("header", "wait_s"), [(None, None), ("soon", None), ("-1", None), ("1e9", None), ("999999999", 3_600)]
)
def test_how_long_to_wait(header: str | None, wait_s: float | None) -> None:
    """Retry-After counts only as a number of seconds, up to an hour."""

    async def handler(_: web.Request) -> web.Response:
        return web.Response(status=503, headers={} if header is None else {"Retry-After": header})

    assert refusal_of(handler, listed).retry_after_s == wait_s


def test_the_client_remembers_how_long_to_wait() -> None:
    """`wait_s` is the longest requested delay, minus the time since."""
    clock = SetClock()
    waits = iter(["30", "10"])

    async def handler(_: web.Request) -> web.Response:
        return web.Response(status=429, headers={"Retry-After": next(waits)})

    async def main() -> None:
        async with server(handler) as market, aiohttp.ClientSession() as session:
            client = ArchiveClient(market, session, clock)
            assert client.wait_s == 0
            for left_s in (30, 25):
                with pytest.raises(ArchiveError):
                    await client.files(SPOT, "daily")
                assert client.wait_s == left_s
                clock.now_s += 5
            clock.now_s += 20
            assert client.wait_s == 0
            assert client.asked == 2

    asyncio.run(main())


@pytest.mark.parametrize("scenario", [fetched, listed])
def test_redirects_are_not_followed(scenario: Callable[[ArchiveClient], Awaitable[object]]) -> None:
    """A redirect is refused, and its target gets no request."""
    asked = []

    async def handler(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response(status=302, headers={"Location": "/elsewhere"})

    error = refusal_of(handler, scenario)
    assert (error.fault, error.status, error.is_retryable) == ("refused", 302, False)
    assert "/elsewhere" not in asked


def archive_of(content: bytes, checksum: bytes | None) -> Handler:
    """Return a server with one zip and this checksum text."""

    async def handler(request: web.Request) -> web.Response:
        if not request.path.endswith(".CHECKSUM"):
            return web.Response(body=content)
        return web.Response(status=404) if checksum is None else web.Response(body=checksum)

    return handler


CONTENT = b"any bytes"
DIGEST = hashlib.sha256(CONTENT).hexdigest().encode()
NAME = f"{FILE.name}.zip".encode()


@pytest.mark.parametrize(
    "checksum",
    [
        DIGEST + b"  " + NAME,
        DIGEST.upper() + b"  " + NAME + b"\n",
        DIGEST + b" *" + NAME + b"\r\n",
        DIGEST + b"\t" + NAME,
    ],
)
def test_checksums_that_fit(checksum: bytes) -> None:
    """A checksum matches in either case, with or without an asterisk and an end of line."""
    assert against(archive_of(CONTENT, checksum), fetched) == CONTENT


@pytest.mark.parametrize(
    ("checksum", "said"),
    [
        (None, ".zip.CHECKSUM: HTTP 404"),
        (DIGEST[::-1] + b"  " + NAME, ".zip: the zip does not match its checksum"),
        (DIGEST, "is no checksum of it"),
        (DIGEST[1:] + b"  " + NAME, "is no checksum of it"),
        (DIGEST + b"  BTCUSDT-1m-2025-12-30.zip", "is no checksum of it"),
        (b"", "is no checksum of it"),
        (b"<html>\xff\0\n</html>", "is no checksum of it"),
        (b"x" * 5000, "more than 1024 bytes"),
    ],
)
def test_checksums_that_do_not(checksum: bytes | None, said: str) -> None:
    """The zip is refused if its checksum is missing, torn, of another file, or of other bytes."""
    error = refusal_of(archive_of(CONTENT, checksum), fetched)
    assert (error.fault, error.is_retryable) == ("checksum", True)
    assert error.what.endswith(said)


def test_a_large_zip() -> None:
    """A large zip is hashed in a thread, with the right result."""
    content = bytes(range(256)) * 8192
    file = ArchiveFile(Series("spot", "BTCUSDT", "1s"), "daily", FILE.day)
    digest = hashlib.sha256(content).hexdigest().encode()
    checksum = digest + b"  " + f"{file.name}.zip".encode()
    assert against(archive_of(content, checksum), lambda client: client.fetch(file)) == content


def test_a_zip_that_is_too_large() -> None:
    """A zip larger than a file's candles allow is not read to its end."""
    sent = 0

    async def handler(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        if request.path.endswith(".CHECKSUM"):
            return web.Response(body=DIGEST + b"  " + NAME)
        response = web.StreamResponse()
        await response.prepare(request)
        part = bytes(1 << 16)
        while request.transport is not None and not request.transport.is_closing():
            await response.write(part)
            sent += len(part)
        return response

    error = refusal_of(handler, fetched)
    assert (error.fault, error.is_retryable) == ("unreadable", False)
    assert error.what.endswith(f".zip: more than {FILE.zip_bytes_max} bytes")
    assert sent < FILE.zip_bytes_max + (1 << 25)


def test_a_torn_answer() -> None:
    """A connection that ends within an answer is a retryable network error."""

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b"half")
        assert request.transport is not None
        request.transport.abort()
        return response

    for scenario in (fetched, listed):
        error = refusal_of(handler, scenario)
        assert (error.fault, error.status, error.is_retryable) == ("network", 0, True)


def test_nobody_answers() -> None:
    """A refused connection is a network error."""

    async def main() -> None:
        async def handler(_: web.Request) -> web.Response:
            return web.Response()

        async with server(handler) as market:
            gone: Market = market
        async with aiohttp.ClientSession() as session:
            with pytest.raises(ArchiveError) as caught:
                await ArchiveClient(gone, session, Clock()).fetch(FILE)
        assert (caught.value.fault, caught.value.is_retryable) == ("network", True)

    asyncio.run(main())


def test_zip_and_checksum_are_fetched_at_the_same_time() -> None:
    """Both requests are pending at once; a cancelled fetch leaves no task."""
    both = asyncio.Barrier(2)

    async def handler(request: web.Request) -> web.Response:
        await both.wait()
        return web.Response(body=DIGEST + b"  " + NAME if request.path.endswith("SUM") else CONTENT)

    assert against(handler, fetched) == CONTENT

    async def never(_: web.Request) -> web.Response:
        return await asyncio.get_running_loop().create_future()

    async def leave(client: ArchiveClient) -> None:
        before = asyncio.all_tasks()
        fetching = asyncio.create_task(client.fetch(FILE))
        while client.asked < 2:
            await asyncio.sleep(0)
        fetching.cancel()
        await asyncio.gather(fetching, return_exceptions=True)
        left = [task for task in asyncio.all_tasks() - before if "ArchiveClient" in repr(task.get_coro())]
        assert left == []

    against(never, leave)
