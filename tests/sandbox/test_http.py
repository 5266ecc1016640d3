"""The sandbox's REST calls, archive and recordings, and its command."""

import asyncio
import hashlib
import io
import json
import signal
import socket
import struct
import urllib.request
import zipfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from websockets.asyncio.client import connect

from lakewriter.errors import UsageError
from lakewriter.interval import DAY_MS, INTERVALS, MINUTE_MS
from lakewriter.market import MARKETS, served_at
from lakewriter.sandbox import Sandbox, SandboxOptions, serve
from lakewriter.sandbox.http.archive import HEADER
from lakewriter.sandbox.streams.replay import load_recording
from lakewriter.sandbox.truth.symbols import LISTED_MS
from support.piped import Piped
from support.running import CAPTURES, PATIENCE_S

pytestmark = pytest.mark.slow

NEW_YEAR_MS = 1_767_225_600_000  # 2026-01-01
STILL = SandboxOptions(speed=0.001, start_ms=NEW_YEAR_MS + 90 * MINUTE_MS + 30_000)
SYMBOLS = {"spot": "BTCUSDT", "usdt_futures": "BTCUSDT", "coin_futures": "BTCUSD_PERP"}
EVERY_MARKET = pytest.mark.parametrize("market", MARKETS)

Fetch = Callable[..., Awaitable[tuple[int, Any, Any]]]


def run(scenario: Callable[[Sandbox, Fetch], Awaitable[None]], options: SandboxOptions = STILL) -> None:
    async def main() -> None:
        async with (
            asyncio.timeout(PATIENCE_S),
            serve(options) as sandbox,
            aiohttp.ClientSession() as session,
        ):

            async def fetch(path: str, **params: Any) -> tuple[int, Any, Any]:
                async with session.get(sandbox.url + path, params=params) as response:
                    content = await response.read()
                    is_json = response.content_type == "application/json"
                    return response.status, json.loads(content) if is_json else content, response.headers

            await scenario(sandbox, fetch)

    asyncio.run(main())


def rest(market: str, call: str) -> str:
    return f"/{market}{MARKETS[market].rest_path}/{call}"


@EVERY_MARKET
def test_rows_are_the_truth_and_the_last_may_be_open(market: str) -> None:
    """Rows of closed candles equal the streamed ones; the row of the current minute is unfinished."""

    async def scenario(sandbox: Sandbox, fetch: Fetch) -> None:
        status, rows, _ = await fetch(
            rest(market, "klines"),
            symbol=SYMBOLS[market],
            interval="1m",
            startTime=NEW_YEAR_MS,
            endTime=NEW_YEAR_MS + DAY_MS,
            limit=499,
        )
        assert status == 200
        assert [row[0] for row in rows] == [NEW_YEAR_MS + n * MINUTE_MS for n in range(91)]
        truth = sandbox.truth.candles(market, SYMBOLS[market], "1m", NEW_YEAR_MS, rows[-1][0])
        for row, candle in zip(rows, truth, strict=False):
            assert row[1:6] == list(candle[2:7])
            assert [row[6] + 1, *row[7:11], row[11]] == [candle.end_ms, *candle[7:11], "0"]
        assert rows[-1][6] > sandbox.now_ms()

    run(scenario)


def test_a_range_longer_than_the_limit() -> None:
    """Of a long range spot and USDⓈ-M return the oldest rows, COIN-M the newest."""

    async def scenario(sandbox: Sandbox, fetch: Fetch) -> None:
        for market, first in (("spot", 0), ("usdt_futures", 0), ("coin_futures", 51)):
            _, rows, _ = await fetch(
                rest(market, "klines"),
                symbol=SYMBOLS[market],
                interval="1m",
                startTime=NEW_YEAR_MS,
                endTime=NEW_YEAR_MS + 60 * MINUTE_MS,
                limit=10,
            )
            assert [row[0] for row in rows] == [NEW_YEAR_MS + (first + n) * MINUTE_MS for n in range(10)]

    run(scenario)


@EVERY_MARKET
def test_without_a_range_come_the_newest_rows(market: str) -> None:
    """Without a range the newest 500 rows are returned, the open one last, none before the listing."""

    async def scenario(sandbox: Sandbox, fetch: Fetch) -> None:
        _, rows, _ = await fetch(rest(market, "klines"), symbol=SYMBOLS[market], interval="1m")
        assert len(rows) == 500
        assert rows[-1][0] == NEW_YEAR_MS + 90 * MINUTE_MS
        _, months, _ = await fetch(rest(market, "klines"), symbol=SYMBOLS[market], interval="1M")
        assert months[-1][0] == NEW_YEAR_MS
        if market != "coin_futures":  # its answers span 200 days at most
            assert months[0][0] == LISTED_MS
            assert len(months) == 97

    run(scenario)


@EVERY_MARKET
def test_wrong_parameters_have_the_exchanges_codes(market: str) -> None:
    """Each wrong parameter is a 400 with its documented code, and costs weight."""

    async def scenario(sandbox: Sandbox, fetch: Fetch) -> None:
        symbol = SYMBOLS[market]
        for code, params in (
            (-1102, {"interval": "1m"}),
            (-1121, {"symbol": "NOSUCH", "interval": "1m"}),
            (-1121, {"symbol": symbol.lower(), "interval": "1m"}),
            (-1120, {"symbol": symbol, "interval": "7m"}),
            (-1100, {"symbol": symbol, "interval": "1m", "startTime": "yesterday"}),
            (-1130, {"symbol": symbol, "interval": "1m", "limit": "0"}),
        ):
            status, body, headers = await fetch(rest(market, "klines"), **params)
            assert (status, body["code"]) == (400, code)
            assert int(headers["x-mbx-used-weight-1m"]) > 0
        too_many, answer, _ = await fetch(rest(market, "klines"), symbol=symbol, interval="1m", limit=1501)
        assert (too_many, len(answer)) == (200, 1000) if market == "spot" else answer["code"] == -1130
        seconds, answer, _ = await fetch(rest(market, "klines"), symbol=symbol, interval="1s")
        assert seconds == 200 if market == "spot" else answer["code"] == -1120

    run(scenario)


def test_an_overspent_minute_is_a_429() -> None:
    """Both futures share 2400 per minute; beyond it calls get 429, Retry-After and a violation."""

    async def scenario(sandbox: Sandbox, fetch: Fetch) -> None:
        params = {"symbol": "NOSUCH", "interval": "1m", "limit": 1500}
        for number in range(240):
            market = "usdt_futures" if number % 2 else "coin_futures"
            status, _, headers = await fetch(rest(market, "klines"), **params)
            assert (status, headers["x-mbx-used-weight-1m"]) == (400, str(10 * number + 10))
        status, body, headers = await fetch(rest("usdt_futures", "time"))
        assert (status, body["code"]) == (429, -1003)
        assert 1 <= int(headers["Retry-After"]) <= 60
        assert sandbox.violations == {"weight": 1}
        assert (await fetch(rest("spot", "time")))[0] == 200

    run(scenario)


@EVERY_MARKET
def test_exchange_info_lists_what_trades_and_what_does_not(market: str) -> None:
    """The status is in the market's own field, and at least one listed symbol does not trade."""

    async def scenario(sandbox: Sandbox, fetch: Fetch) -> None:
        status, info, _ = await fetch(rest(market, "exchangeInfo"))
        assert status == 200
        field = MARKETS[market].status_field
        assert all(("status" in item) == (field == "status") for item in info["symbols"])
        trading = [item["symbol"] for item in info["symbols"] if item[field] == "TRADING"]
        idle = [item["symbol"] for item in info["symbols"] if item[field] != "TRADING"]
        assert trading == sandbox.symbols(market)
        assert len(trading) == 60
        assert idle
        assert (await fetch(rest(market, "klines"), symbol=idle[0], interval="1m"))[1] == []
        assert (await fetch(rest(market, "time")))[1] == {"serverTime": sandbox.now_ms()}
        assert (await fetch(rest(market, "ping")))[1] == {}

    run(scenario)


@EVERY_MARKET
@pytest.mark.parametrize(
    ("period", "date", "interval", "start_ms", "stop_ms"),
    [
        ("daily", "2025-12-31", "1m", NEW_YEAR_MS - DAY_MS, NEW_YEAR_MS),
        ("daily", "2024-12-31", "1h", NEW_YEAR_MS - 366 * DAY_MS, NEW_YEAR_MS - 365 * DAY_MS),
        ("monthly", "2025-12", "1d", NEW_YEAR_MS - 31 * DAY_MS, NEW_YEAR_MS),
        ("monthly", "2025-12", "1mo", NEW_YEAR_MS - 31 * DAY_MS, NEW_YEAR_MS),
    ],
)
def test_archive_files_hold_the_truth(
    market: str, period: str, date: str, interval: str, start_ms: int, stop_ms: int
) -> None:
    """A file is a zip with one CSV of the candles, and its checksum fits."""

    async def scenario(sandbox: Sandbox, fetch: Fetch) -> None:
        symbol = SYMBOLS[market]
        name = f"{symbol}-{interval}-{date}"
        path = f"{MARKETS[market].archive_path}/{period}/klines/{symbol}/{interval}/{name}.zip"
        status, content, _ = await fetch(path)
        assert status == 200
        assert (await fetch(f"/{market}{path}.CHECKSUM"))[1] == (
            f"{hashlib.sha256(content).hexdigest()}  {name}.zip".encode()
        )
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            assert archive.namelist() == [f"{name}.csv"]
            text = archive.read(f"{name}.csv").decode()
        assert text.startswith(HEADER.decode()) == (market != "spot")
        lines = text.removeprefix(HEADER.decode()).splitlines()
        after_2025 = market == "spot" and date >= "2025"
        unit, last = (1000, 999) if after_2025 else (1, 0)
        expected = [
            [c.begin_ms * unit, *c[2:7], (c.end_ms - 1) * unit + last, *c[7:11], "0"]
            for c in sandbox.truth.candles(market, symbol, interval, start_ms, stop_ms)
        ]
        assert [line.split(",") for line in lines] == [[str(value) for value in row] for row in expected]

    run(scenario)


def test_what_the_archive_has_not_is_a_404() -> None:
    """Unfinished periods, daily weeks, futures' seconds and unknown symbols are a 404."""

    async def scenario(sandbox: Sandbox, fetch: Fetch) -> None:
        for path in (
            "/data/spot/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2026-01-01.zip",
            "/data/spot/monthly/klines/BTCUSDT/1m/BTCUSDT-1m-2026-01.zip",
            "/data/spot/daily/klines/BTCUSDT/1w/BTCUSDT-1w-2025-12-31.zip",
            "/data/spot/daily/klines/BTCUSDT/1M/BTCUSDT-1M-2025-12-31.zip",
            "/data/spot/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2025-02-30.zip",
            "/data/spot/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2017-12-31.zip.CHECKSUM",
            "/data/futures/um/daily/klines/BTCUSDT/1s/BTCUSDT-1s-2025-12-31.zip",
            "/data/spot/daily/klines/NOSUCH/1m/NOSUCH-1m-2025-12-31.zip",
            "/data/spot/daily/klines/BTCUSDT/1m/ETHUSDT-1m-2025-12-31.zip",
            "/data/option/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2025-12-31.zip",
        ):
            assert (await fetch(path))[0] == 404, path

    run(scenario)


def test_the_routes_are_where_clients_look() -> None:
    """The URLs of `served_at`, which `--exchange` uses, match all routes."""

    async def scenario(sandbox: Sandbox, fetch: Fetch) -> None:
        for market in MARKETS.values():
            there = served_at(market, sandbox.url)
            path = (there.rest_url + there.rest_path).removeprefix(sandbox.url)
            assert (await fetch(f"{path}/ping"))[0] == 200
            name = f"{SYMBOLS[market.name].lower()}@kline_1m"
            async with connect(f"{there.stream_url}/stream?streams={name}") as ws:
                assert json.loads(await ws.recv())["stream"] == name

    run(scenario, SandboxOptions(speed=600, push_every_ms=20))


LOG = """\
wss://fstream.binance.com/stream?streams=a@kline_1m <-> 1626992740.179554
1626992741.0: {"stream":"a@aggTrade","data":{}}
1626992741.2: {"e":"kline", "x": true}
1626992746.0: last

"""


def test_a_recording_is_sent_as_it_was(tmp_path: Path) -> None:
    """All recorded frames are sent once, in order, byte for byte, after the first subscription."""
    log = tmp_path / "session.log"
    log.write_text(LOG)

    async def scenario(sandbox: Sandbox, fetch: Fetch) -> None:
        base = f"ws{sandbox.url.removeprefix('http')}"
        async with connect(f"{base}/usdt_futures/market/ws") as ws:
            await ws.send('{"method":"SUBSCRIBE","params":["x@kline_1m"],"id":1}')
            assert json.loads(await ws.recv()) == {"result": None, "id": 1}
            assert [await ws.recv() for _ in range(3)] == [
                '{"stream":"a@aggTrade","data":{}}',
                '{"e":"kline", "x": true}',
                "last",
            ]
            await ws.send('{"method":"LIST_SUBSCRIPTIONS","id":2}')
            assert json.loads(await ws.recv())["result"] == ["x@kline_1m"]
        async with connect(f"{base}/spot/ws/btcusdt@kline_1m") as ws:
            assert json.loads(await ws.recv())["s"] == "BTCUSDT"

    run(scenario, SandboxOptions(speed=100, replay=(str(log),), push_every_ms=20))


def test_which_market_was_recorded(tmp_path: Path) -> None:
    """The host of the first line or the argument sets the market; anything else is an error."""
    log = tmp_path / "session.log"
    for host, market in (
        ("stream.binance.com:9443", "spot"),
        ("stream-cloud.trbinance.com", "spot"),
        ("fstream.binance.com", "usdt_futures"),
        ("dstream.binance.com", "coin_futures"),
    ):
        log.write_text(f"wss://{host}/stream?streams=x <-> 1.5\n2.0: a\n2.5: b\n")
        assert load_recording(str(log)) == (market, [(0.0, b"a"), (0.5, b"b")])
        assert load_recording(f"coin_futures={log}").market == "coin_futures"
    log.write_text("hello\n")
    with pytest.raises(UsageError, match="names no market"):
        load_recording(str(log))
    log.write_text("wss://stream.binance.com\n1.0: a\nnot a frame\n")
    with pytest.raises(UsageError, match="line 3 is not TIME: FRAME"):
        load_recording(str(log))
    with pytest.raises(UsageError, match="No such file"):
        load_recording(str(tmp_path / "absent.log"))


@pytest.mark.captures
@pytest.mark.skipif(not CAPTURES.is_dir(), reason="no recorded sessions here")
def test_real_recordings_can_be_read() -> None:
    """Each recorded session has a market, and frames in the order of their times."""
    markets = []
    for log in sorted((CAPTURES / "ws").glob("*.ws.log")):
        recording = load_recording(str(log))
        offsets = [offset_s for offset_s, _ in recording.frames]
        assert offsets[0] == 0
        assert offsets == sorted(offsets)
        assert all(json.loads(frame) for _, frame in recording.frames)
        markets.append(recording.market)
    assert markets == ["spot", "coin_futures", "usdt_futures", "spot"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_says_where_it_is_and_stops_when_told(number: signal.Signals) -> None:
    """The first line on stdout is the URL; a signal exits 0, a taken port exits 1."""
    with Piped("sandbox", "--port", "0", "--speed", "60", "--start", "2026-01-01") as process:
        url = process.stdout.readline().decode().strip()
        port = url.removeprefix("http://127.0.0.1:")
        assert port.isdigit()
        with Piped("sandbox", "--port", port) as second:
            said = second.communicate(PATIENCE_S)[1].decode()
            assert second.returncode == 1
            assert said.startswith(f"lakewriter: port: cannot listen on 127.0.0.1:{port}: ")
            assert "Traceback" not in said
        process.send_signal(number)
        out, err = process.communicate(PATIENCE_S)
    said = err.decode()
    assert process.returncode == 0
    assert out == b""
    assert f"--exchange {url}" in said
    assert "2026-01-01 00:00" in said


HANDSHAKE = b"""GET /spot/stream?streams=btcusdt@kline_1m HTTP/1.1\r
Host: here\r
Upgrade: websocket\r
Connection: Upgrade\r
Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r
Sec-WebSocket-Version: 13\r
\r
"""


def test_clients_that_leave_in_their_handshake_are_no_error() -> None:
    """A client that leaves during its handshake is not logged, and the next one is served."""
    at_once = struct.pack("ii", 1, 0)  # a reset, not a farewell
    with Piped("sandbox", "--port", "0") as process:
        url = process.stdout.readline().decode().strip()
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as client:
                client.sendall(HANDSHAKE)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
        with urllib.request.urlopen(f"{url}/control") as answer:
            assert answer.status == 200
        process.terminate()
        _, err = process.communicate(PATIENCE_S)
    said = err.decode()
    assert "Error" not in said
    assert said.endswith("stopped; limits broken: none\n")


@pytest.mark.parametrize(
    "arguments",
    [("--start", "soon"), ("--push-every", "often"), ("--speed", "0"), ("--replay", "/absent.log")],
)
def test_wrong_arguments_are_usage_errors(arguments: tuple[str, str]) -> None:
    """A wrong argument exits 2 with one line, and nothing on stdout."""
    with Piped("sandbox", "--port", "0", *arguments) as process:
        out, err = process.communicate(PATIENCE_S)
    said = err.decode()
    assert (process.returncode, out) == (2, b"")
    assert "Traceback" not in said
    assert arguments[1] in said


def test_every_interval_has_rows() -> None:
    """Each interval has rows under the exchange's name, all sixteen on spot."""

    async def scenario(sandbox: Sandbox, fetch: Fetch) -> None:
        for interval in INTERVALS.values():
            _, rows, _ = await fetch(
                rest("spot", "klines"), symbol="ETHUSDT", interval=interval.wire_name, limit=3
            )
            assert [row[0] for row in rows] == interval.grid(rows[0][0], sandbox.now_ms() + 1)

    run(scenario)
