"""Each fault of the sandbox, seen from outside: over sockets and HTTP."""

import asyncio
import contextlib
import io
import json
import zipfile
from typing import Any

import pytest
import websockets
from websockets.asyncio.client import ClientConnection

from lakewriter.errors import UsageError
from lakewriter.interval import DAY_MS, HOUR_MS, INTERVALS, MINUTE_MS, SECOND_MS
from lakewriter.market import MARKETS
from lakewriter.sandbox import FAULTS, Fault, Sandbox, SandboxOptions
from lakewriter.sandbox.faults.caller_limits import IN_FLIGHT_S
from lakewriter.sandbox.faults.fault_set import FaultSet
from lakewriter.sandbox.faults.table import STATUSES
from support.running import until
from support.sandboxes import (
    EVERY_MARKET,
    MARKET_SYMBOLS,
    QUIET,
    START_MS,
    ask,
    closed_candles,
    dial,
    get,
    klines,
    run,
)

pytestmark = pytest.mark.slow

BTC = "btcusdt@kline_1m"
BOTH = "/stream?streams=btcusdt@kline_1m/ethusdt@kline_1m"

# Nothing moves: for REST.
STILL = SandboxOptions(speed=0.001, start_ms=START_MS + 90 * MINUTE_MS + 30_000)


def staged(*faults: Fault, options: SandboxOptions = QUIET, **changes: Any) -> SandboxOptions:
    fields = {name: getattr(options, name) for name in options.__struct_fields__}
    return SandboxOptions(**{**fields, **changes, "faults": faults})


async def next_kline(ws: ClientConnection) -> dict[str, Any]:
    frame = json.loads(await ws.recv())
    event: dict[str, Any] = frame.get("data", frame)
    return event


async def end_of(ws: ClientConnection) -> tuple[int | None, str | None]:
    """Read to the end; return how the connection ended."""
    with contextlib.suppress(websockets.ConnectionClosed):
        while True:
            await ws.recv()
    return ws.close_code, ws.close_reason


def begins(rows: list[list[Any]]) -> list[int]:
    return [row[0] for row in rows]


def test_acknowledged_and_then_silent() -> None:
    """Connections opened during the fault get acknowledgements and no candles, also after it; others get all."""

    async def scenario(sandbox: Sandbox) -> None:
        async with dial(sandbox, "spot", f"/ws/{BTC}") as before:
            fault = sandbox.add_fault(Fault("ack_then_silence", market="spot"))
            async with (
                dial(sandbox, "spot", f"/ws/{BTC}") as silent,
                dial(sandbox, "usdt_futures", f"/ws/{BTC}") as other,
            ):
                assert (await ask(silent, "SUBSCRIBE", "ethusdt@kline_1m"))["result"] is None
                sandbox.remove_fault(fault)
                await closed_candles(before, 5)
                await closed_candles(other, 5)
                await silent.send('{"method":"LIST_SUBSCRIPTIONS","id":9}')
                # Frames come in order: had one been sent, it would come before the answer.
                assert json.loads(await silent.recv())["result"] == [BTC, "ethusdt@kline_1m"]
            async with dial(sandbox, "spot", f"/ws/{BTC}") as after:
                await closed_candles(after, 1)

    run(scenario)


def test_a_silent_stream_is_one_series() -> None:
    """Frames of the fault's symbol and interval are lost; other series get theirs."""

    async def scenario(sandbox: Sandbox) -> None:
        names = "btcusdt@kline_1m/btcusdt@kline_3m/ethusdt@kline_1m"
        async with dial(sandbox, "spot", f"/stream?streams={names}") as ws:
            seen = {(event["s"], event["k"]["i"]) for event in await closed_candles(ws, 30)}
        assert seen == {("BTCUSDT", "3m"), ("ETHUSDT", "1m")}

    run(scenario, staged(Fault("silent_stream", "spot", ("BTCUSDT",), "1m")))


def test_a_stalled_socket_is_half_open() -> None:
    """A stalled socket stays open without pongs, answers or a close; later sockets work."""

    async def scenario(sandbox: Sandbox) -> None:
        async with (
            dial(sandbox, "spot", f"/ws/{BTC}", close_timeout=0.1, ping_interval=None) as old,
            dial(sandbox, "coin_futures", "/ws/btcusd_perp@kline_1m") as elsewhere,
        ):
            await closed_candles(old, 1)
            sandbox.add_fault(Fault("stalled_socket", market="spot"))
            async with dial(sandbox, "spot", f"/ws/{BTC}") as new:
                pong = await old.ping()
                await old.send('{"method":"LIST_SUBSCRIPTIONS","id":9}')
                await closed_candles(new, 10)
                await closed_candles(elsewhere, 10)
                assert not pong.done()
                assert old.state is websockets.State.OPEN
                assert sandbox.connections == 3
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    while True:  # what was on its way before
                        assert "result" not in json.loads(await old.recv())
        await until(lambda: sandbox.connections == 0)

    run(scenario)


def test_a_stall_can_be_planned() -> None:
    """A stall with a start affects the connections that are open at that time."""
    start_ms = START_MS + 15 * MINUTE_MS

    async def scenario(sandbox: Sandbox) -> None:
        async with dial(sandbox, "spot", f"/ws/{BTC}", close_timeout=0.1, ping_interval=None) as old:
            await closed_candles(old, 3)
            # A fault begins at the sandbox's next check, some hundredths of a second later.
            await until(lambda: sandbox.now_ms() > start_ms + 10 * MINUTE_MS)
            async with dial(sandbox, "spot", f"/ws/{BTC}") as new:
                (first, *_) = await closed_candles(new, 10)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    while True:
                        assert (await next_kline(old))["E"] < first["E"]

    run(scenario, staged(Fault("stalled_socket", start_ms=start_ms)))


def test_late_closes_are_late_and_whole() -> None:
    """Closing frames have the real time of sending, and open frames of the next candle come first."""

    async def scenario(sandbox: Sandbox) -> None:
        async with dial(sandbox, "spot", f"/ws/{BTC}") as ws:
            closes: list[int] = []
            open_meanwhile = 0
            while len(closes) < 10:
                event = await next_kline(ws)
                k = event["k"]
                if k["x"]:
                    closes.append(k["t"])
                    assert event["E"] - k["T"] >= 90 * SECOND_MS
                    assert event["E"] <= sandbox.now_ms()
                    truth = sandbox.truth.candle("spot", "BTCUSDT", "1m", k["t"])
                    assert (k["c"], k["v"], k["n"]) == (truth.close, truth.volume, truth.trade_num)
                elif closes and k["t"] > closes[-1] + MINUTE_MS:
                    open_meanwhile += 1
        assert closes == list(range(closes[0], closes[0] + 10 * MINUTE_MS, MINUTE_MS))
        assert open_meanwhile

    run(scenario, staged(Fault("late_close", value=90), push_every_ms=7))


def test_missing_closes() -> None:
    """Candles open, and their closing frames are lost."""

    async def scenario(sandbox: Sandbox) -> None:
        async with dial(sandbox, "usdt_futures", BOTH) as ws:
            events = [await next_kline(ws) for _ in range(40)]
        assert {event["k"]["x"] for event in events if event["s"] == "BTCUSDT"} == {False}
        assert len({event["k"]["t"] for event in events if event["s"] == "BTCUSDT"}) > 3
        assert any(event["k"]["x"] for event in events if event["s"] == "ETHUSDT")

    run(scenario, staged(Fault("missing_close", symbols=("BTCUSDT",)), push_every_ms=7))


def test_closes_from_ahead() -> None:
    """A closing frame has a candle that has not begun, with the event time of its later close."""

    async def scenario(sandbox: Sandbox) -> None:
        async with dial(sandbox, "spot", BOTH) as ws:
            events = [await next_kline(ws) for _ in range(20)]
        now_ms = sandbox.now_ms()
        for event in events:
            ahead = event["s"] == "BTCUSDT"
            assert event["k"]["x"]
            assert (event["k"]["t"] > now_ms, event["E"] > now_ms) == (ahead, ahead)
            assert 0 <= event["E"] - event["k"]["T"] < 10 * SECOND_MS
        assert len({event["s"] for event in events}) == 2

    run(scenario, staged(Fault("close_ahead", symbols=("BTCUSDT",), value=365 * 86_400)))


@pytest.mark.parametrize(
    ("faults", "least_ms", "most_ms"),
    [
        ((Fault("time_off"),), 3_600_000, 3_600_000),
        ((Fault("time_off", value=-60),), -60_000, -60_000),
        ((Fault("time_microseconds"),), START_MS * 998, START_MS * 1002),
    ],
)
def test_a_server_time_that_is_wrong(faults: tuple[Fault, ...], least_ms: int, most_ms: int) -> None:
    """serverTime is off by the fault's value, or in other units."""

    async def scenario(sandbox: Sandbox) -> None:
        before_ms = sandbox.now_ms()
        _, said, _ = await get(sandbox, "/spot/api/v3/time")
        assert before_ms + least_ms <= said["serverTime"] <= sandbox.now_ms() + most_ms

    run(scenario, staged(*faults))


def test_duplicate_closes() -> None:
    """Each closing frame arrives twice, byte for byte."""

    async def scenario(sandbox: Sandbox) -> None:
        async with dial(sandbox, "spot", f"/ws/{BTC}") as ws:
            frames = [await ws.recv() for _ in range(20)]
        assert frames[::2] == frames[1::2]
        assert len(set(frames)) == 10

    run(scenario, staged(Fault("duplicate_close")))


def test_out_of_order_closes() -> None:
    """Of two candles the newer one arrives first, then the older one; none is missing."""

    async def scenario(sandbox: Sandbox) -> None:
        async with dial(sandbox, "spot", f"/ws/{BTC}") as ws:
            times = [event["k"]["t"] for event in await closed_candles(ws, 10)]
        first = min(times)
        assert times == [first + offset * MINUTE_MS for offset in (1, 0, 3, 2, 5, 4, 7, 6, 9, 8)]

    run(scenario, staged(Fault("out_of_order_closes")))


def test_candles_without_trades_may_stay_silent() -> None:
    """Candles without trades have no frames, open or closed; all others do."""

    async def scenario(sandbox: Sandbox) -> None:
        async with dial(sandbox, "spot", "/ws/belbtc@kline_1m") as ws:
            events = await closed_candles(ws, 25)
        times = [event["k"]["t"] for event in events]
        truth = sandbox.truth.candles("spot", "BELBTC", "1m", times[0], times[-1] + 1)
        assert times == [candle.begin_ms for candle in truth if candle.trade_num]
        assert len(truth) > len(times)
        assert sandbox.expected("spot", "BELBTC", "1m", times[0], times[-1] + 1) == [
            candle.begin_ms for candle in truth
        ]

    run(scenario, staged(Fault("silent_zero_trades")))


@pytest.mark.parametrize(("hours", "speed"), [(0.25, 3000), (0, 400_000)])
def test_connections_end_of_age(hours: float, speed: float) -> None:
    """A connection is closed after a day of simulated time, or the fault's age."""

    async def scenario(sandbox: Sandbox) -> None:
        opened_ms = sandbox.now_ms()
        async with dial(sandbox, "coin_futures", "/ws") as ws:
            assert (await end_of(ws))[0] == 1001
            assert sandbox.now_ms() - opened_ms >= (hours or 24) * HOUR_MS
        assert not sandbox.violations

    faults = (Fault("connection_age", value=hours),) if hours else ()
    run(scenario, staged(*faults, speed=speed))


def test_a_shutdown_is_announced() -> None:
    """Raw and combined connections get the notice in their own format, continue, and are closed with 1001."""

    async def scenario(sandbox: Sandbox) -> None:
        async with (
            dial(sandbox, "spot", f"/ws/{BTC}") as raw,
            dial(sandbox, "spot", f"/stream?streams={BTC}") as wrapped,
            dial(sandbox, "usdt_futures", f"/ws/{BTC}") as other,
        ):
            before_ms = sandbox.now_ms()
            sandbox.add_fault(Fault("server_shutdown", market="spot", value=0.2))
            for ws in (raw, wrapped):
                notice: dict[str, Any] = {}
                while "serverShutdown" not in str(notice):
                    notice = json.loads(await ws.recv())
                event = notice if ws is raw else notice["data"]
                assert list(event) == ["e", "E"]
                assert before_ms <= event["E"] <= sandbox.now_ms()
                assert notice.get("stream") == (None if ws is raw else "!serverShutdown")
                await closed_candles(ws, 2)
                assert (await end_of(ws))[0] == 1001
            await closed_candles(other, 2)
            async with dial(sandbox, "spot", f"/ws/{BTC}") as later:
                await closed_candles(later, 2)

    run(scenario)


@pytest.mark.parametrize("code", [1001, 1006, 1008])
def test_connections_end_with_a_code(code: int) -> None:
    """Open connections are closed once with the code; later ones stay open."""

    async def scenario(sandbox: Sandbox) -> None:
        async with dial(sandbox, "spot", f"/ws/{BTC}") as ws:
            sandbox.add_fault(Fault("close_code", value=code))
            assert (await end_of(ws))[0] == code
        async with dial(sandbox, "spot", f"/ws/{BTC}") as ws:
            await closed_candles(ws, 10)

    run(scenario)


@EVERY_MARKET
def test_fewer_streams_fit(market: str) -> None:
    """One stream above the lowered limit gets error 4 and close 1008, without a violation."""

    async def scenario(sandbox: Sandbox) -> None:
        async with dial(sandbox, market, "/ws") as ws:
            assert (await ask(ws, "SUBSCRIBE", "a", "b", "c"))["result"] is None
            answer = await ask(ws, "SUBSCRIBE", "d")
            assert (answer if market == "spot" else answer["error"])["code"] == 4
            assert (await end_of(ws))[0] == 1008
        assert not sandbox.violations

    run(scenario, staged(Fault("fewer_streams", value=3)))


def test_fewer_messages_are_allowed() -> None:
    """One message per second above the lowered limit closes with 1008, without a violation."""

    async def scenario(sandbox: Sandbox) -> None:
        async with dial(sandbox, "usdt_futures", "/ws") as ws:
            for _ in range(3):
                await ws.ping()
            assert await end_of(ws) == (1008, "Too many requests")
        assert not sandbox.violations

    run(scenario, staged(Fault("fewer_messages", value=2)))


def test_handshakes_are_refused_for_a_while() -> None:
    """During the fault the market's handshakes get its status and Retry-After; other markets' do not."""

    async def scenario(sandbox: Sandbox) -> None:
        for status in (403, 418, 429, 451, 503):
            fault = sandbox.add_fault(Fault("refuse_handshake", "spot", value=status, retry_after_s=7))
            with pytest.raises(websockets.InvalidStatus) as refused:
                await dial(sandbox, "spot", "/ws")
            response = refused.value.response
            assert (response.status_code, response.headers["Retry-After"]) == (status, "7")
            async with dial(sandbox, "coin_futures", "/ws"):
                pass
            sandbox.remove_fault(fault)
        async with dial(sandbox, "spot", "/ws"):
            pass

    run(scenario)


@pytest.mark.parametrize("status", [403, 418, 429, 451, 503])
def test_rest_calls_are_refused(status: int) -> None:
    """Calls get the status and Retry-After; a call before that time counts as a violation."""

    async def scenario(sandbox: Sandbox) -> None:
        fault = sandbox.add_fault(Fault("rest_status", "spot", value=status, retry_after_s=60))
        answered, body, headers = await get(sandbox, "/spot/api/v3/time")
        assert (answered, headers["Retry-After"]) == (status, "60")
        assert isinstance(body, dict) == (status in (418, 429))
        assert not sandbox.violations
        assert (await get(sandbox, "/coin_futures/dapi/v1/time"))[0] == 200
        sandbox.remove_fault(fault)
        await asyncio.sleep(IN_FLIGHT_S)  # sooner it could have been on its way
        assert (await get(sandbox, "/spot/api/v3/time"))[0] == 200
        assert sandbox.violations == ({"retry_after": 1} if status in (418, 429) else {})

    run(scenario)


def test_whoever_waits_is_not_counted() -> None:
    """A call after the seconds of Retry-After is no violation."""

    async def scenario(sandbox: Sandbox) -> None:
        fault = sandbox.add_fault(Fault("rest_status", value=429, retry_after_s=0.2))
        assert (await get(sandbox, "/spot/api/v3/time"))[0] == 429
        sandbox.remove_fault(fault)
        told_s = sandbox.clock.real_s()
        await until(lambda: sandbox.clock.real_s() > told_s + 0.2)
        assert (await get(sandbox, "/spot/api/v3/time"))[0] == 200
        assert not sandbox.violations

    run(scenario)


def test_rows_appear_late() -> None:
    """klines lack a candle until the delay after its close; streams do not wait."""

    async def scenario(sandbox: Sandbox) -> None:
        rows = await klines(sandbox, "spot", "BTCUSDT", startTime=START_MS)
        assert begins(rows) == list(range(START_MS, START_MS + 85 * MINUTE_MS, MINUTE_MS))
        rows = await klines(sandbox, "spot", "ETHUSDT", startTime=START_MS)
        assert len(rows) == 91

    run(scenario, staged(Fault("rest_lag", symbols=("BTCUSDT",), value=300), options=STILL))


def test_rows_settle_late() -> None:
    """Until the delay after its close, a candle's row has fewer trades and less volume."""

    async def scenario(sandbox: Sandbox) -> None:
        rows = await klines(sandbox, "usdt_futures", "BTCUSDT", startTime=START_MS)
        truth = sandbox.truth.candles("usdt_futures", "BTCUSDT", "1m", START_MS, rows[-1][0])
        for row, candle in zip(rows, truth, strict=False):
            settled = sandbox.now_ms() >= candle.end_ms + 120_000
            assert (row[8] == candle.trade_num) == settled
            assert (row[5] == candle.volume) == settled
            assert float(row[5]) <= float(candle.volume)

    run(scenario, staged(Fault("rest_unsettled", value=120), options=STILL))


def test_rows_are_missing() -> None:
    """Candles of the range are absent from klines, and are expected."""

    async def scenario(sandbox: Sandbox) -> None:
        rows = await klines(sandbox, "spot", "BTCUSDT", startTime=START_MS, limit=30)
        assert begins(rows) == [START_MS + n * MINUTE_MS for n in range(30) if not 10 <= n < 15]
        assert len(sandbox.expected("spot", "BTCUSDT", "1m", START_MS, START_MS + HOUR_MS)) == 60
        assert len(await klines(sandbox, "spot", "ETHUSDT", startTime=START_MS, limit=30)) == 30

    missing = Fault(
        "rest_missing_rows", "spot", ("BTCUSDT",), "1m", START_MS + 10 * MINUTE_MS, START_MS + 15 * MINUTE_MS
    )
    run(scenario, staged(missing, options=STILL))


def test_rest_is_slow() -> None:
    """An answer takes the fault's real seconds."""

    async def scenario(sandbox: Sandbox) -> None:
        before_s = sandbox.clock.real_s()
        assert (await get(sandbox, "/spot/api/v3/ping"))[0] == 200
        assert sandbox.clock.real_s() - before_s >= 0.2

    run(scenario, staged(Fault("slow_rest", value=0.2), options=STILL))


@EVERY_MARKET
def test_a_halt_leaves_a_gap_everywhere(market: str) -> None:
    """Halted candles are in no stream, row or archive file, and are not expected; others are."""
    symbol = MARKET_SYMBOLS[market]

    async def scenario(sandbox: Sandbox) -> None:
        async with dial(sandbox, market, f"/ws/{symbol.lower()}@kline_1m") as ws:
            [first] = await closed_candles(ws, 1)
            # A busy machine connects late, so the halt begins some candles from now.
            start_ms = sandbox.now_ms() // MINUTE_MS * MINUTE_MS + 8 * MINUTE_MS
            stop_ms = start_ms + 4 * MINUTE_MS
            sandbox.add_fault(Fault("exchange_halt", start_ms=start_ms, stop_ms=stop_ms))
            times = [event["k"]["t"] for event in [first, *await closed_candles(ws, 20)]]
        there = [at for at in range(times[0], times[-1] + 1, MINUTE_MS) if not start_ms <= at < stop_ms]
        assert times == there
        assert times[0] < start_ms < stop_ms < times[-1]
        assert sandbox.expected(market, symbol, "1m", times[0], times[-1] + 1) == there
        params = {"startTime": times[0], "endTime": times[-1]}
        assert begins(await klines(sandbox, market, symbol, **params)) == there

    run(scenario, staged())


@EVERY_MARKET
def test_what_was_halted_is_no_row_of_a_page(market: str) -> None:
    """A page has the requested number of candles, also across a halt."""
    halt_ms = START_MS + 10 * MINUTE_MS
    halt = Fault("exchange_halt", start_ms=halt_ms, stop_ms=halt_ms + 30 * MINUTE_MS)
    symbol = MARKET_SYMBOLS[market]

    async def scenario(sandbox: Sandbox) -> None:
        end_ms = START_MS + 60 * MINUTE_MS - 1
        rows = await klines(sandbox, market, symbol, startTime=START_MS, endTime=end_ms, limit=20)
        oldest = [*range(10), *range(40, 50)]
        newest = list(range(40, 60))
        wanted = newest if market == "coin_futures" else oldest
        assert begins(rows) == [START_MS + each * MINUTE_MS for each in wanted]
        back = await klines(sandbox, market, symbol, endTime=halt_ms + 20 * MINUTE_MS, limit=3)
        assert begins(back) == [halt_ms - each * MINUTE_MS for each in (3, 2, 1)]

    run(scenario, staged(halt, options=STILL))


def test_the_archive_has_the_halt_too() -> None:
    """A day with a halt has fewer rows, and a fully halted day has no file."""
    day_ms = START_MS - DAY_MS
    halts = (
        Fault("exchange_halt", "spot", ("BTCUSDT",), start_ms=day_ms, stop_ms=day_ms + HOUR_MS),
        Fault("exchange_halt", "spot", ("ETHUSDT",), start_ms=day_ms, stop_ms=START_MS),
    )

    async def scenario(sandbox: Sandbox) -> None:
        path = "/data/spot/daily/klines/{0}/1m/{0}-1m-2025-12-31.zip"
        assert (await get(sandbox, path.format("ETHUSDT")))[0] == 404
        _, content, _ = await get(sandbox, path.format("BTCUSDT"))
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            lines = archive.read("BTCUSDT-1m-2025-12-31.csv").decode().splitlines()
        assert len(lines) == 1440 - 60
        assert int(lines[0].split(",")[0]) == (day_ms + HOUR_MS) * 1000

    run(scenario, staged(*halts, options=STILL))


def test_a_halt_that_is_taken_away_ends() -> None:
    """After the removal of a halt new candles appear; those of the halt never do."""

    async def scenario(sandbox: Sandbox) -> None:
        async with dial(sandbox, "spot", f"/ws/{BTC}") as ws:
            times = [event["k"]["t"] for event in await closed_candles(ws, 3)]
            halt = sandbox.add_fault(Fault("exchange_halt"))
            from_ms = sandbox.faults.all()[halt].start_ms
            assert from_ms is not None
            await until(lambda: sandbox.now_ms() > from_ms + 10 * MINUTE_MS)
            sandbox.remove_fault(halt)
            assert not sandbox.faults.all()
            times += [event["k"]["t"] for event in await closed_candles(ws, 10)]
        there = sandbox.expected("spot", "BTCUSDT", "1m", times[0], times[-1] + 1)
        assert times == there
        assert len(there) <= (times[-1] - times[0]) // MINUTE_MS - 8

    run(scenario)


def test_a_new_listing() -> None:
    """A new symbol is unknown before its listing, then listed with its day, streamed, and in klines."""
    start_ms = START_MS + 15 * MINUTE_MS + 30_000

    async def scenario(sandbox: Sandbox) -> None:
        market = "usdt_futures"
        for symbol in ("ETHUSDT", "BRANDNEWUSDT"):
            assert symbol not in sandbox.symbols(market)
            assert (await klines(sandbox, market, symbol))["code"] == -1121
        names = "ethusdt@kline_1m/brandnewusdt@kline_1m/ethusdt@kline_1h"
        async with dial(sandbox, market, f"/stream?streams={names}") as ws:
            events = [await next_kline(ws) for _ in range(30)]
        assert min(event["E"] for event in events) >= start_ms
        assert {event["s"] for event in events} == {"ETHUSDT", "BRANDNEWUSDT"}
        assert min(event["k"]["t"] for event in events if event["k"]["i"] == "1m") == start_ms - 30_000
        _, info, _ = await get(sandbox, "/usdt_futures/fapi/v1/exchangeInfo")
        onboard = {item["symbol"]: item["onboardDate"] for item in info["symbols"]}
        assert onboard["ETHUSDT"] == onboard["BRANDNEWUSDT"] == start_ms
        assert onboard["BTCUSDT"] < START_MS
        assert (await klines(sandbox, market, "BRANDNEWUSDT", startTime=0))[0][0] == start_ms - 30_000
        assert begins(await klines(sandbox, market, "ETHUSDT", "1h"))[0] == START_MS
        assert sandbox.expected(market, "ETHUSDT", "5m", START_MS, START_MS + HOUR_MS)[0] == (
            START_MS + 15 * MINUTE_MS
        )

    listing = Fault("new_listing", "usdt_futures", ("ETHUSDT", "BRANDNEWUSDT"), start_ms=start_ms)
    run(scenario, staged(listing, push_every_ms=7))


@EVERY_MARKET
@pytest.mark.parametrize("vanishing", [0, 1])
def test_a_delisting(market: str, vanishing: int) -> None:
    """The current candle closes, then the streams are silent; the status changes or the symbol is removed."""
    symbol = MARKET_SYMBOLS[market]

    async def scenario(sandbox: Sandbox) -> None:
        other = next(name for name in sandbox.symbols(market) if name != symbol)
        names = f"{symbol.lower()}@kline_1m/{other.lower()}@kline_1m"
        assert symbol in sandbox.symbols(market)
        async with dial(sandbox, market, f"/stream?streams={names}") as ws:
            events = await closed_candles(ws, 2)
            last_ms = sandbox.now_ms() // MINUTE_MS * MINUTE_MS + 10 * MINUTE_MS
            start_ms = last_ms + 30_000
            fault = Fault("delisting", market, (symbol,), start_ms=start_ms, value=vanishing)
            sandbox.add_fault(fault)
            while events[-1]["E"] < start_ms + 10 * MINUTE_MS:
                events += await closed_candles(ws, 1)
        times = [event["k"]["t"] for event in events if event["s"] == symbol]
        assert times[-1] == last_ms
        assert sandbox.expected(market, symbol, "1m", times[0], events[-1]["E"]) == times
        assert symbol not in sandbox.symbols(market)
        _, info, _ = await get(sandbox, f"/{market}{MARKETS[market].rest_path}/exchangeInfo")
        field = MARKETS[market].status_field
        status = {item["symbol"]: item[field] for item in info["symbols"]}.get(symbol)
        rows = await klines(sandbox, market, symbol, startTime=times[0])
        newest = await klines(sandbox, market, symbol, limit=5)
        if vanishing:
            assert (status, rows["code"], newest["code"]) == (None, -1121, -1121)
        else:
            assert status == ("BREAK" if market == "spot" else "SETTLING")
            assert begins(rows) == times
            assert begins(newest) == times[-5:]

    run(scenario)


@pytest.mark.parametrize(
    ("market", "symbol", "status"),
    [("usdt_futures", "BTCUSDT_261225", "SETTLING"), ("coin_futures", "BTCUSD_261225", "DELIVERED")],
)
def test_contracts_end_at_their_delivery(market: str, symbol: str, status: str) -> None:
    """At 08:00 of the delivery day the streams fall silent and the status changes; older rows stay."""
    delivery_ms = 1_798_185_600_000  # 2026-12-25T08:00

    async def scenario(sandbox: Sandbox) -> None:
        witness = MARKET_SYMBOLS[market]
        names = f"{symbol.lower()}@kline_1m/{witness.lower()}@kline_1m"
        assert symbol in sandbox.symbols(market)
        async with dial(sandbox, market, f"/stream?streams={names}") as ws:
            events = await closed_candles(ws, 50)
        assert max(event["k"]["t"] for event in events if event["s"] == symbol) == delivery_ms - MINUTE_MS
        assert max(event["k"]["t"] for event in events) > delivery_ms
        assert symbol not in sandbox.symbols(market)
        _, info, _ = await get(sandbox, f"/{market}{MARKETS[market].rest_path}/exchangeInfo")
        (listed,) = (item for item in info["symbols"] if item["symbol"] == symbol)
        assert (listed[MARKETS[market].status_field], listed["deliveryDate"]) == (status, delivery_ms)
        rows = await klines(sandbox, market, symbol, startTime=delivery_ms - HOUR_MS)
        assert begins(rows) == list(range(delivery_ms - HOUR_MS, delivery_ms, MINUTE_MS))

    run(scenario, staged(start_ms=delivery_ms - 10 * MINUTE_MS))


def test_faults_can_be_cleared() -> None:
    """After all faults are cleared, muted and refused series work again."""

    async def scenario(sandbox: Sandbox) -> None:
        sandbox.mute("spot", "BTCUSDT")
        sandbox.mute("spot", "BTCUSDT")
        sandbox.refuse(503)
        sandbox.add_fault(Fault("missing_close"))
        assert len(sandbox.faults.all()) == 3
        sandbox.clear_faults()
        sandbox.refuse(0)
        sandbox.unmute("spot", "BTCUSDT")
        async with dial(sandbox, "spot", f"/ws/{BTC}") as ws:
            await closed_candles(ws, 2)
        with pytest.raises(UsageError, match="fault: no id 99"):
            sandbox.remove_fault(99)

    run(scenario)


def test_what_is_expected_is_the_grid() -> None:
    """Without faults all grid times since the listing are expected; idle and unknown symbols have none."""

    async def scenario(sandbox: Sandbox) -> None:
        for name, grid in INTERVALS.items():
            start_ms = START_MS - (HOUR_MS if name == "1s" else 70 * DAY_MS)
            assert sandbox.expected("spot", "BTCUSDT", name, start_ms, START_MS) == (
                grid.grid(start_ms, START_MS)
            )
        assert sandbox.expected("spot", "XMRUSDT", "1m", START_MS, START_MS + HOUR_MS) == []
        assert sandbox.expected("spot", "NOSUCH", "1m", START_MS, START_MS + HOUR_MS) == []
        with pytest.raises(UsageError, match="interval: usdt_futures has no 1s"):
            sandbox.expected("usdt_futures", "BTCUSDT", "1s", 0, 1)
        with pytest.raises(UsageError, match="market: 'moon' is unknown"):
            sandbox.expected("moon", "BTCUSDT", "1s", 0, 1)

    run(scenario, STILL)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault("nothing"), "fault: 'nothing' is unknown"),
        (Fault("rest_lag", market="moon"), "market: 'moon' is unknown"),
        (Fault("rest_lag", interval="7m"), "interval: '7m' is unknown"),
        (Fault("rest_lag", symbols=("a b",)), "symbol: 'a b' cannot be a symbol"),
        (Fault("rest_lag", value=-1), "fault: rest_lag: -1 is no value: simulated seconds, 0.001 to 86400"),
        (Fault("rest_lag", value=float("nan")), "fault: rest_lag: nan is no value"),
        (Fault("missing_close", value=1), "fault: missing_close takes no value"),
        (Fault("rest_status", value=200), "HTTP status, 400, 403, 404, 418, 429, 451 or 5xx"),
        (Fault("close_code", value=1000), "close code; 1006 ends without a word, 1001, 1006, 1008"),
        (Fault("close_code", symbols=("BTCUSDT",)), "fault: close_code is of whole markets"),
        (Fault("rest_lag", start_ms=5, stop_ms=5), "fault: rest_lag stops before it starts"),
        (Fault("rest_status", retry_after_s=-1), "fault: retry_after_s: -1 is not between"),
    ],
)
def test_what_cannot_be_is_one_line(fault: Fault, said: str) -> None:
    """Unknown names, markets, intervals and symbols, and invalid values, are refused in one line."""
    with pytest.raises(UsageError) as refused:
        FaultSet().add(fault, 0)
    assert said in refused.value.what
    assert "\n" not in refused.value.what


def test_defaults_are_values_that_are_allowed() -> None:
    """Each fault is accepted by its name alone."""
    faults = FaultSet()
    for name, kind in FAULTS.items():
        fault_id = faults.add(Fault(name), 7)
        staged_fault = faults.all()[fault_id]
        assert staged_fault.value == kind.default
        assert not kind.choices or kind.default in kind.choices
        assert faults.active(name, "spot", "BTCUSDT", "1m", now_ms=7) == staged_fault
    assert 599 in STATUSES
    assert len(faults.all()) == len(FAULTS)


def test_a_fault_has_its_time_and_its_series() -> None:
    """A fault holds from its start to before its stop, and only for its series."""
    faults = FaultSet()
    assert not faults
    faults.add(Fault("late_close", "spot", ("btcusdt",), "1M", 10, 20), 0)
    held = [at for at in range(30) if faults.active("late_close", "spot", "BTCUSDT", "1mo", now_ms=at)]
    assert held == list(range(10, 20))
    for series in (
        ("usdt_futures", "BTCUSDT", "1mo"),
        ("spot", "ETHUSDT", "1mo"),
        ("spot", "BTCUSDT", "1m"),
        ("spot", "", ""),
    ):
        assert faults.active("late_close", *series, now_ms=15) is None
