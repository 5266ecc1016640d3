"""The sandbox's archive over HTTP: its list, the content of its files, and each of its faults."""

import asyncio
import hashlib
import io
import zipfile
import zlib
from collections import Counter
from datetime import UTC, datetime
from typing import Any
from xml.etree import ElementTree

import aiohttp
import msgspec
import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import given
from hypothesis import strategies as st

from lakewriter.errors import UsageError
from lakewriter.interval import DAY_MS, HOUR_MS, INTERVALS, MINUTE_MS
from lakewriter.market import MARKETS
from lakewriter.sandbox import Fault, Sandbox, SandboxOptions, Truth
from lakewriter.sandbox.clock import SimClock
from lakewriter.sandbox.exchange import SimulatedExchange
from lakewriter.sandbox.faults.fault_set import FaultSet
from lakewriter.sandbox.faults.table import FAULTS, STATUSES
from lakewriter.sandbox.http.archive_http import ArchiveHttp
from lakewriter.sandbox.streams.protocol import kline_row
from lakewriter.sandbox.truth.catalogue import SymbolCatalogue
from lakewriter.sandbox.truth.csv_lines import csv_lines
from lakewriter.sandbox.truth.integer_candles import IntegerCandles, rows
from lakewriter.sandbox.truth.symbols import LISTED_MS, listing
from support.sandboxes import EVERY_MARKET, MARKET_SYMBOLS, START_MS, get, klines, run

# Nothing moves.
STILL = SandboxOptions(speed=0.001, start_ms=START_MS + HOUR_MS, push_every_ms=0)
DAYS = "data/spot/daily/klines/BTCUSDT/1m/"


def still(*faults: Fault) -> SandboxOptions:
    return SandboxOptions(speed=0.001, start_ms=START_MS + HOUR_MS, push_every_ms=0, faults=faults)


async def listed(sandbox: Sandbox, prefix: str, **params: str) -> tuple[list[str], list[str], str]:
    """Return the keys, the directories and the marker of one page."""
    status, body, _ = await get(sandbox, "/data.binance.vision", delimiter="/", prefix=prefix, **params)
    assert status == 200
    root = ElementTree.fromstring(body)
    return (
        [each.findtext("{*}Key") or "" for each in root.iterfind("{*}Contents")],
        [each.findtext("{*}Prefix") or "" for each in root.iterfind("{*}CommonPrefixes")],
        root.findtext("{*}NextMarker") or "",
    )


async def all_keys(sandbox: Sandbox, prefix: str) -> list[str]:
    """Return the keys of all pages."""
    found, marker = [], ""
    while True:
        keys, _, marker = await listed(sandbox, prefix, marker=marker)
        found += keys
        if not marker:
            return found


def day_path(day_ms: int, symbol: str = "BTCUSDT") -> str:
    day = f"{datetime.fromtimestamp(day_ms / 1000, UTC):%Y-%m-%d}"
    return f"/data/spot/daily/klines/{symbol}/1m/{symbol}-1m-{day}.zip"


async def fetched(sandbox: Sandbox, path: str) -> tuple[bytes, bool]:
    """Return a zip, and whether its checksum matches."""
    status, content, _ = await get(sandbox, path)
    assert status == 200
    said = (await get(sandbox, f"{path}.CHECKSUM"))[1].decode()
    digest, name = said.split("  ")
    assert name == path.rpartition("/")[2]
    return content, digest == hashlib.sha256(content).hexdigest()


def lines(content: bytes) -> list[list[str]]:
    with zipfile.ZipFile(io.BytesIO(content)) as opened:
        (name,) = opened.namelist()
        return [line.split(",") for line in opened.read(name).decode().splitlines()]


@given(
    market=st.sampled_from(list(MARKETS)),
    symbol=st.sampled_from(
        ["BTCUSDT", "BTCUSD_PERP", "PEPEUSDT", "BELBTC", "XRPUSD_PERP", "龙虾USDT", "A017"]
    ),
    interval=st.sampled_from(list(INTERVALS)),
    begin=st.integers(LISTED_MS, START_MS),
    count=st.integers(0, 40),
    micro=st.booleans(),
)
def test_lines_are_the_rows_of_rest(
    market: str, symbol: str, interval: str, begin: int, count: int, micro: bool
) -> None:
    """Lines made by column and by row are equal, byte for byte."""
    spec, grid = listing(market, symbol), INTERVALS[interval]
    stop = begin + count * (grid.length_ms or 31 * DAY_MS)
    units = Truth(7).integer_candles(market, symbol, interval, begin, stop)
    written = []
    for row in rows(units):
        values = kline_row(spec, grid, row)
        if micro:
            values[0], values[6] = f"{values[0]}000", f"{values[6]}999"
        written.append(",".join(map(str, values)) + "\n")
    assert csv_lines(spec, grid, units, micro=micro) == "".join(written).encode()


@given(st.lists(st.integers(0, 2**62), min_size=1, max_size=20), st.sampled_from(list(MARKETS)))
def test_numbers_of_any_length(values: list[int], market: str) -> None:
    """One column can have zero, one digit and nineteen digits, with and without decimals."""
    spec, grid = listing(market, "BTCUSDT"), INTERVALS["1m"]
    units = IntegerCandles(*(_rotated(values, at) for at in range(len(IntegerCandles._fields))))
    units = units._replace(begin_ms=units.begin_ms % 10**13)
    expected = "".join(",".join(map(str, kline_row(spec, grid, row))) + "\n" for row in rows(units))
    assert csv_lines(spec, grid, units, micro=False) == expected.encode()


def _rotated(values: list[int], by: int) -> Any:
    return np.roll(np.array(values, np.int64), by)


def test_the_list_is_a_tree() -> None:
    """From the bucket's root to the files, each directory lists the next ones."""

    async def scenario(sandbox: Sandbox) -> None:
        for prefix, names in (
            ("", ["data/"]),
            ("da", ["data/"]),
            ("data/", ["data/futures/", "data/spot/"]),
            ("data/futures/", ["data/futures/cm/", "data/futures/um/"]),
            ("data/spot/", ["data/spot/daily/", "data/spot/monthly/"]),
            ("data/spot/daily/", ["data/spot/daily/klines/"]),
            ("data/spot/daily/klines/BTC", ["data/spot/daily/klines/BTCUSDT/"]),
            ("data/spot/daily/klines/NOSUCH/", []),
            ("nothing/", []),
            (f"{DAYS}deeper/", []),
        ):
            assert await listed(sandbox, prefix) == ([], names, "")
        _, intervals, _ = await listed(sandbox, "data/spot/daily/klines/BTCUSDT/")
        names = {name.split("/")[-2] for name in intervals}
        assert names == set(INTERVALS) - {"3d", "1w", "1mo"}
        _, intervals, _ = await listed(sandbox, "data/futures/um/monthly/klines/BTCUSDT/")
        assert {name.split("/")[-2] for name in intervals} == set(INTERVALS) - {"1s"}
        assert (await listed(sandbox, f"{DAYS}BTCUSDT-1m-2025-12-3"))[0] == [
            f"{DAYS}BTCUSDT-1m-2025-12-{day}.zip{suffix}" for day in (30, 31) for suffix in ("", ".CHECKSUM")
        ]
        assert (await get(sandbox, "/data.binance.vision", prefix=DAYS))[0] == 501

    run(scenario, STILL)


def test_pages_of_the_list() -> None:
    """A page has a thousand keys, ascending and unique, with size and time; the last page has no marker."""

    async def scenario(sandbox: Sandbox) -> None:
        first, _, marker = await listed(sandbox, DAYS)
        assert len(first) == 1000
        assert marker == first[-1]
        elsewhere = "data/elsewhere/BTCUSDT-1m-2025-12-31.zip"
        assert (await listed(sandbox, DAYS, marker=elsewhere))[0] == first
        assert (await listed(sandbox, DAYS, marker=first[0]))[0][0] == first[1]
        keys = await all_keys(sandbox, DAYS)
        assert keys == sorted(set(keys))
        assert len(keys) == 2 * (START_MS - LISTED_MS) // DAY_MS
        _, body, _ = await get(sandbox, "/data.binance.vision", delimiter="/", prefix=DAYS)
        (one, two, *_) = ElementTree.fromstring(body).iterfind("{*}Contents")
        assert one.findtext("{*}LastModified") == "2018-01-02T00:00:00.000Z"
        status, content, _ = await get(sandbox, f"/{two.findtext('{*}Key')}")
        assert (status, len(content)) == (200, int(two.findtext("{*}Size") or ""))

    run(scenario, STILL)


def test_the_same_file_has_the_same_size_on_every_page() -> None:
    """The pages of a list agree on a file's size, whichever page is requested first."""
    last = f"{DAYS}BTCUSDT-1m-2025-12-30.zip.CHECKSUM"

    def scenario(*markers: str) -> list[bytes]:
        answers: list[bytes] = []

        async def asking(sandbox: Sandbox) -> None:
            for marker in markers:
                params = {"delimiter": "/", "prefix": DAYS, "marker": marker}
                answers.append((await get(sandbox, "/data.binance.vision", **params))[1])

        run(asking, STILL)
        return answers

    assert scenario(last, "") == scenario("", last)[::-1]


def test_a_thousand_symbols_are_two_pages() -> None:
    """Directories are paged like keys."""

    async def scenario(sandbox: Sandbox) -> None:
        root = "data/futures/cm/daily/klines/"
        _, first, marker = await listed(sandbox, root)
        assert (len(first), marker) == (1000, first[-1])
        _, second, end = await listed(sandbox, root, marker=marker)
        assert (len(second), end) == (200, "")
        assert sorted(f"{root}{symbol}/" for symbol in sandbox.symbols("coin_futures")) == first + second

    run(scenario, SandboxOptions(speed=0.001, start_ms=START_MS, symbols=1200))


@EVERY_MARKET
@pytest.mark.parametrize("vanishing", [0, 1])
def test_whoever_is_delisted_keeps_its_files(market: str, vanishing: int) -> None:
    """A delisted symbol's files stay listed and served, even if exchangeInfo no longer has it."""
    symbol = MARKET_SYMBOLS[market]
    end_ms = START_MS - 3 * DAY_MS + HOUR_MS

    async def scenario(sandbox: Sandbox) -> None:
        assert symbol not in sandbox.symbols(market)
        root = f"{MARKETS[market].archive_path}/daily/klines/"[1:]
        assert f"{root}{symbol}/" in (await listed(sandbox, root))[1]
        keys = await all_keys(sandbox, f"{root}{symbol}/1m/")
        assert keys[-2] == f"{root}{symbol}/1m/{symbol}-1m-2025-12-29.zip"
        _, content, _ = await get(sandbox, f"/{keys[-2]}")
        last = [line[0] for line in lines(content) if line[0].isdigit()][-1]
        assert int(last[:13]) == end_ms - MINUTE_MS
        assert (await get(sandbox, f"/{keys[-2]}".replace("-29.", "-30.")))[0] == 404

    run(scenario, still(Fault("delisting", market, (symbol,), start_ms=end_ms, value=vanishing)))


def test_files_begin_with_the_listing() -> None:
    """A symbol has files from its first day on, and none before."""

    async def scenario(sandbox: Sandbox) -> None:
        keys = await all_keys(sandbox, DAYS.replace("BTCUSDT", "NEWUSDT"))
        assert [key.rpartition("/")[2] for key in keys[::2]] == [
            "NEWUSDT-1m-2025-12-30.zip",
            "NEWUSDT-1m-2025-12-31.zip",
        ]
        _, content, _ = await get(sandbox, f"/{keys[0]}")
        assert len(lines(content)) == 720
        assert await all_keys(sandbox, DAYS.replace("BTCUSDT", "TODAYUSDT")) == []
        assert "TODAYUSDT" not in str(await listed(sandbox, "data/spot/daily/klines/"))

    run(
        scenario,
        still(
            Fault("new_listing", "spot", ("NEWUSDT",), start_ms=START_MS - 36 * HOUR_MS),
            Fault("new_listing", "spot", ("TODAYUSDT",), start_ms=START_MS),
        ),
    )


def test_a_day_without_candles_is_not_listed() -> None:
    """A day that is halted whole has no file and no key; a candle of a partly halted month exists."""
    halt = Fault("exchange_halt", "spot", ("BTCUSDT",), start_ms=START_MS - 3 * DAY_MS, stop_ms=START_MS)

    async def scenario(sandbox: Sandbox) -> None:
        assert (await all_keys(sandbox, DAYS))[-2] == f"{DAYS}BTCUSDT-1m-2025-12-28.zip"
        assert (await get(sandbox, day_path(START_MS - DAY_MS)))[0] == 404
        months = await all_keys(sandbox, "data/spot/monthly/klines/BTCUSDT/1mo/")
        assert months[-2].endswith("BTCUSDT-1mo-2025-12.zip")

    run(scenario, still(halt))


class CountingTruth(Truth):
    """A truth that counts its calls."""

    asked = 0

    def integer_candles(
        self, market: str, symbol: str, interval: str, start_ms: int, stop_ms: int
    ) -> IntegerCandles:
        self.asked += 1
        return super().integer_candles(market, symbol, interval, start_ms, stop_ms)


def test_a_file_is_made_once_for_all_who_ask() -> None:
    """Concurrent requests for a zip and its checksum make the file once; a changed fault makes it again."""
    truth, faults = CountingTruth(), FaultSet()
    catalogues = {"spot": SymbolCatalogue("spot", [listing("spot", "BTCUSDT")], faults)}
    clock = SimClock(START_MS, 0.001)
    bucket = ArchiveHttp(SimulatedExchange(catalogues, truth, faults, clock, Counter(), Counter()))
    path = day_path(START_MS - DAY_MS)

    async def main() -> None:
        app = web.Application()
        bucket.add_routes(app)
        async with TestServer(app) as server, aiohttp.ClientSession() as session:

            async def fetch(suffix: str) -> bytes:
                async with session.get(server.make_url(path + suffix)) as response:
                    return await response.read()

            await asyncio.gather(*(fetch(suffix) for suffix in ("", ".CHECKSUM") * 4))
            assert truth.asked == 1
            faults.add(Fault("archive_missing_rows", stop_ms=START_MS - HOUR_MS), START_MS)
            bucket.clear_cache()
            assert len(lines(await fetch(""))) == 60
            assert truth.asked == 2

    asyncio.run(main())


NEW_YEARS_EVE = Fault("archive_status", "spot", ("BTCUSDT",), "1m", START_MS - DAY_MS, START_MS)


@pytest.mark.parametrize("status", [403, 429, 503])
def test_files_are_refused(status: int) -> None:
    """Files of the range are refused with Retry-After; other files and the list are not."""

    async def scenario(sandbox: Sandbox) -> None:
        for suffix in ("", ".CHECKSUM"):
            answered, _, headers = await get(sandbox, day_path(START_MS - DAY_MS) + suffix)
            assert (answered, headers["Retry-After"]) == (status, "7")
        await fetched(sandbox, day_path(START_MS - 2 * DAY_MS))
        await fetched(sandbox, day_path(START_MS - DAY_MS, "ETHUSDT"))
        assert (await listed(sandbox, DAYS))[2]

    run(scenario, still(msgspec.structs.replace(NEW_YEARS_EVE, value=status, retry_after_s=6.5)))


def test_lists_are_refused() -> None:
    """While the fault lasts its series' list is refused; other lists and files are not."""

    async def scenario(sandbox: Sandbox) -> None:
        fault = sandbox.add_fault(Fault("archive_list_status", "spot", ("BTCUSDT",), retry_after_s=3))
        params = {"delimiter": "/", "prefix": DAYS}
        status, _, headers = await get(sandbox, "/data.binance.vision", **params)
        assert (status, headers["Retry-After"]) == (403, "3")
        for other in (
            DAYS.replace("BTC", "ETH"),
            DAYS.replace("spot", "futures/um"),
            "data/spot/daily/klines/",
        ):
            await listed(sandbox, other)
        await fetched(sandbox, day_path(START_MS - DAY_MS))
        sandbox.remove_fault(fault)
        assert (await get(sandbox, "/data.binance.vision", **params))[0] == 200

    run(scenario, STILL)


def test_the_archive_is_slow() -> None:
    """A file takes the fault's real seconds; a list does not."""

    async def scenario(sandbox: Sandbox) -> None:
        before_s = sandbox.clock.real_s()
        await get(sandbox, day_path(START_MS - DAY_MS))
        assert sandbox.clock.real_s() - before_s >= 0.2

    run(scenario, still(Fault("slow_archive", value=0.2)))


def test_files_are_missing() -> None:
    """The files and their checksums are a 404, and are not listed."""

    async def scenario(sandbox: Sandbox) -> None:
        path = day_path(START_MS - DAY_MS)
        for suffix in ("", ".CHECKSUM"):
            assert (await get(sandbox, path + suffix))[0] == 404
        assert path[1:] not in str(await all_keys(sandbox, DAYS))
        assert len(await all_keys(sandbox, DAYS)) == 2 * (START_MS - LISTED_MS) // DAY_MS - 2
        assert sandbox.expected("spot", "BTCUSDT", "1m", START_MS - DAY_MS, START_MS)

    run(
        scenario,
        still(Fault("archive_missing_file", interval="1m", start_ms=START_MS - DAY_MS, stop_ms=START_MS)),
    )


def test_checksums_are_missing() -> None:
    """The zip is served and listed, and its checksum is not."""

    async def scenario(sandbox: Sandbox) -> None:
        path = day_path(START_MS - DAY_MS)
        assert (await get(sandbox, path))[0] == 200
        assert (await get(sandbox, f"{path}.CHECKSUM"))[0] == 404
        assert (await all_keys(sandbox, DAYS))[-3:] == [
            f"{DAYS}BTCUSDT-1m-2025-12-30.zip",
            f"{DAYS}BTCUSDT-1m-2025-12-30.zip.CHECKSUM",
            f"{DAYS}BTCUSDT-1m-2025-12-31.zip",
        ]

    run(scenario, still(Fault("archive_missing_checksum", start_ms=START_MS - DAY_MS)))


def test_checksums_are_wrong() -> None:
    """The zip is whole, and its checksum does not fit."""

    async def scenario(sandbox: Sandbox) -> None:
        content, fits = await fetched(sandbox, day_path(START_MS - DAY_MS))
        assert not fits
        assert len(lines(content)) == 1440

    run(scenario, still(Fault("archive_wrong_checksum")))


@pytest.mark.parametrize("value", [0, 1])
@pytest.mark.parametrize("interval", ["1m", "1d"])
def test_zips_are_corrupt(value: int, interval: str) -> None:
    """The zips cannot be unpacked; by the fault's value their checksums fit the damaged bytes or do not."""

    async def scenario(sandbox: Sandbox) -> None:
        path = day_path(START_MS - DAY_MS).replace("1m", interval)
        content, fits = await fetched(sandbox, path)
        assert fits == bool(value)
        with pytest.raises((zipfile.BadZipFile, zlib.error)):
            lines(content)

    run(scenario, still(Fault("archive_corrupt_zip", value=value)))


def test_rows_are_missing_from_files() -> None:
    """Candles of the range are in no archive file; REST has them, and they are expected."""
    start_ms, stop_ms = START_MS - DAY_MS + 10 * MINUTE_MS, START_MS - DAY_MS + 15 * MINUTE_MS

    async def scenario(sandbox: Sandbox) -> None:
        content, fits = await fetched(sandbox, day_path(START_MS - DAY_MS))
        assert fits
        there = [int(line[0]) // 1000 for line in lines(content)]
        grid = range(START_MS - DAY_MS, START_MS, MINUTE_MS)
        assert there == [at for at in grid if not start_ms <= at < stop_ms]
        rest = await klines(sandbox, "spot", "BTCUSDT", startTime=start_ms, limit=5)
        assert [row[0] for row in rest] == list(range(start_ms, stop_ms, MINUTE_MS))
        assert len(sandbox.expected("spot", "BTCUSDT", "1m", start_ms, stop_ms)) == 5

    run(scenario, still(Fault("archive_missing_rows", start_ms=start_ms, stop_ms=stop_ms)))


def test_a_share_of_the_files() -> None:
    """About the given share of files is affected, the same each time; other faults affect other files."""

    async def scenario(sandbox: Sandbox) -> None:
        days = (START_MS - LISTED_MS) // DAY_MS
        keys = await all_keys(sandbox, DAYS)
        assert 0.7 * days < len(keys) - days < 0.8 * days
        assert keys == await all_keys(sandbox, DAYS)
        checked = {key.removesuffix(".CHECKSUM") for key in keys if key.endswith(".CHECKSUM")}
        bare = {key for key in keys if key.endswith(".zip")} - checked
        assert len(bare) + len(checked) == days
        hit = Fault("archive_wrong_checksum", share=0.25)
        both = [key for key in bare if hit.affects_file(f"/{key}")]
        assert 0 < len(both) < len(bare)

    run(scenario, still(Fault("archive_missing_checksum", share=0.25)))


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault("slow_rest", share=0.5), "fault: slow_rest is not of archive files: it takes no share"),
        (Fault("archive_list_status", share=0.5), "archive_list_status is not of archive files"),
        (Fault("archive_status", share=0), "fault: share: 0 is not above 0, and 1 at most"),
        (Fault("archive_status", share=1.5), "fault: share: 1.5 is not above 0"),
        (Fault("archive_status", share=float("nan")), "fault: share: nan is not above 0"),
        (Fault("archive_status", value=200), "HTTP status, 400, 403, 404, 418, 429, 451 or 5xx"),
        (Fault("archive_corrupt_zip", value=2), "1: their checksums are of the flipped ones, 0, 1"),
    ],
)
def test_what_cannot_be_is_one_line(fault: Fault, said: str) -> None:
    """Shares out of range, or for faults without files, are refused."""
    with pytest.raises(UsageError) as refused:
        FaultSet().add(fault, 0)
    assert said in refused.value.what
    assert FAULTS["archive_status"].choices == STATUSES
