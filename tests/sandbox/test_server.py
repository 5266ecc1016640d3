"""The sandbox over real sockets: streams, control messages, limits and faults."""

import asyncio
import contextlib
import json
from typing import Any

import pytest
import websockets

from lakewriter.errors import LakewriterError
from lakewriter.interval import INTERVALS, MINUTE_MS
from lakewriter.sandbox import Sandbox, SandboxOptions, serve
from support.sandboxes import EVERY_MARKET, MARKET_SYMBOLS, QUIET, ask, closed_candles, dial, run, values

pytestmark = pytest.mark.slow


@EVERY_MARKET
def test_every_closed_candle_comes_once_in_order_and_is_true(market: str) -> None:
    """All closed candles arrive once, in order, and equal the truth."""

    async def scenario(sandbox: Sandbox) -> None:
        symbol = MARKET_SYMBOLS[market]
        async with dial(sandbox, market, f"/ws/{symbol.lower()}@kline_1m") as ws:
            events = await closed_candles(ws, 40)
        begins = [event["k"]["t"] for event in events]
        assert begins == list(range(begins[0], begins[0] + 40 * MINUTE_MS, MINUTE_MS))
        for event in events:
            truth = sandbox.truth.candle(market, symbol, "1m", event["k"]["t"])
            assert values(event["k"]) == tuple(truth)
            assert event["s"] == event["k"]["s"] == symbol

    run(scenario)


@pytest.mark.parametrize(
    ("market", "low", "high"), [("spot", 2, 6), ("usdt_futures", 200, 2000), ("coin_futures", 4, 4)]
)
def test_closing_frames_are_as_late_as_the_markets(market: str, low: int, high: int) -> None:
    """Event times follow close times by the delays measured at each market, and are not in the future."""

    async def scenario(sandbox: Sandbox) -> None:
        async with dial(sandbox, market, f"/ws/{MARKET_SYMBOLS[market].lower()}@kline_1m") as ws:
            for event in await closed_candles(ws, 20):
                assert low <= event["E"] - event["k"]["T"] <= high
                assert event["E"] <= sandbox.now_ms()

    run(scenario, QUIET)


@EVERY_MARKET
def test_open_candles_grow_and_stay_inside_the_closed_one(market: str) -> None:
    """An open candle only gains trades, and stays within its final range."""

    async def scenario(sandbox: Sandbox) -> None:
        open_frames = 0
        async with dial(sandbox, market, f"/ws/{MARKET_SYMBOLS[market].lower()}@kline_5m") as ws:
            last: dict[str, Any] = {"t": 0, "x": True, "n": 0}
            while open_frames < 40:
                k = json.loads(await ws.recv())["k"]
                if k["t"] == last["t"]:
                    assert not last["x"]
                    assert k["n"] >= last["n"]
                elif last["t"]:
                    assert last["x"]
                    assert k["t"] == last["t"] + 5 * MINUTE_MS
                truth = sandbox.truth.candle(market, MARKET_SYMBOLS[market], "5m", k["t"])
                assert float(k["l"]) <= min(float(k["o"]), float(k["c"]))
                assert float(k["h"]) >= max(float(k["o"]), float(k["c"]))
                if k["n"]:
                    assert float(truth.low) <= float(k["l"]) <= float(k["h"]) <= float(truth.high)
                assert float(k["V"]) <= float(k["v"]) <= float(truth.volume)
                open_frames += not k["x"]
                last = k

    run(scenario)


def test_the_bytes_are_the_exchanges() -> None:
    """Fields and spacing equal those of captured frames."""

    async def scenario(sandbox: Sandbox) -> None:
        async with dial(sandbox, "spot", "/ws/btcusdt@kline_1m") as ws:
            spot = str(await ws.recv())
        async with dial(sandbox, "usdt_futures", "/stream?streams=btcusdt@kline_1m") as ws:
            futures = str(await ws.recv())
        keys = ["t", "T", "s", "i", "f", "L", "o", "c", "h", "l", "v", "n", "x", "q", "V", "Q", "B"]
        event = json.loads(spot)
        assert list(event) == ["e", "E", "s", "k"]
        assert list(event["k"]) == keys
        assert spot == json.dumps(event, separators=(",", ":"))
        head, k = futures.split('"k":')
        assert head.startswith('{"stream":"btcusdt@kline_1m","data":{"e":"kline","E":')
        assert k.removesuffix("}}") == json.dumps(json.loads(k.removesuffix("}}")), separators=(", ", ":"))

    run(scenario)


def test_every_interval_streams() -> None:
    """All sixteen intervals stream on spot, months under the exchange's name."""

    async def scenario(sandbox: Sandbox) -> None:
        names = [f"ethusdt@kline_{interval.wire_name}" for interval in INTERVALS.values()]
        async with dial(sandbox, "spot", "/stream?streams=" + "/".join(names), max_queue=None) as ws:
            missing = set(names)
            while missing:
                missing.discard(json.loads(await ws.recv())["stream"])

    run(scenario, SandboxOptions(speed=1, push_every_ms=20))


def test_a_lagging_client_is_served_late_but_whole() -> None:
    """A client that stops reading gets all frames later, and others do not wait for it."""

    async def scenario(sandbox: Sandbox) -> None:
        names = "/".join(f"{symbol.lower()}@kline_1s" for symbol in sandbox.symbols("spot")[:40])
        async with (
            dial(sandbox, "spot", f"/stream?streams={names}", max_queue=4) as slow,
            dial(sandbox, "spot", "/ws/btcusdt@kline_1m") as other,
        ):
            await closed_candles(other, 8)
            seen: dict[str, list[int]] = {}
            for event in await closed_candles(slow, 4_000):
                seen.setdefault(event["s"], []).append(event["k"]["t"])
            slow.transport.abort()
        for begins in seen.values():
            assert begins == list(range(begins[0], begins[0] + 1000 * len(begins), 1000))
        assert len(seen) == 40

    run(scenario, SandboxOptions(speed=300, start_ms=1_767_225_600_000, push_every_ms=0))


def test_control_messages() -> None:
    """Subscriptions, lists and properties are answered as by the exchange."""

    async def scenario(sandbox: Sandbox) -> None:
        async with dial(sandbox, "usdt_futures", "/ws") as ws:
            assert await ask(ws, "SUBSCRIBE", "btcusdt@kline_1m", "币安人生usdt@kline_1m") == {
                "result": None,
                "id": 1,
            }
            names = ["btcusdt@kline_1m", "币安人生usdt@kline_1m"]
            assert await ask(ws, "LIST_SUBSCRIPTIONS", request_id=2) == {"result": names, "id": 2}
            assert await ask(ws, "UNSUBSCRIBE", names[0], "never@kline_1m", request_id=3) == {
                "result": None,
                "id": 3,
            }
            assert {event["s"] for event in await closed_candles(ws, 5)} == {"币安人生USDT"}
            assert await ask(ws, "GET_PROPERTY", "combined", request_id=4) == {"result": False, "id": 4}
            assert await ask(ws, "SET_PROPERTY", "combined", True, request_id=5) == {"result": None, "id": 5}
            assert json.loads(await ws.recv())["stream"] == names[1]

    run(scenario)


@pytest.mark.parametrize("market", ["spot", "coin_futures"])
def test_refusals_have_the_markets_shape(market: str) -> None:
    """Errors are flat on spot and nested on the futures, with the documented codes."""

    async def scenario(sandbox: Sandbox) -> None:
        async with dial(sandbox, market, "/ws") as ws:
            codes = []
            for text in (
                "{",
                '{"method":"HELLO","id":7}',
                '{"method":"SET_PROPERTY","params":["x",1],"id":8}',
            ):
                await ws.send(text)
                answer = json.loads(await ws.recv())
                codes.append(answer["code"] if market == "spot" else answer["error"]["code"])
                assert ("msg" in answer) == (market == "spot")
            assert codes == [3, 2, 0]
            answer = await ask(ws, "SET_PROPERTY", "combined", 1)
            assert (answer if market == "spot" else answer["error"])["code"] == 1

    run(scenario)


def test_what_stays_silent_is_acknowledged() -> None:
    """Upper-case, unknown and idle symbols, missing intervals and wrong routes get an answer and no candle."""

    async def scenario(sandbox: Sandbox) -> None:
        async with (
            dial(sandbox, "spot", "/ws") as spot,
            dial(sandbox, "usdt_futures", "/ws/btcusdt@kline_1m", route="") as unrouted,
            dial(sandbox, "usdt_futures", "/stream", route="/public") as public,
            dial(sandbox, "coin_futures", "/ws/btcusd_perp@kline_1m") as witness,
        ):
            silent = ["BTCUSDT@kline_1m", "nosuchusdt@kline_1m", "xmrusdt@kline_1m", "btcusdt@kline_7m", "x"]
            assert (await ask(spot, "SUBSCRIBE", *silent))["result"] is None
            assert (await ask(public, "SUBSCRIBE", "btcusdt@kline_1m"))["result"] is None
            assert (await ask(spot, "LIST_SUBSCRIPTIONS"))["result"] == silent
            await closed_candles(witness, 10)
            # Frames come in order: had one been sent, it would come before the answer.
            for ws in (spot, unrouted, public):
                await ws.send('{"method":"GET_PROPERTY","params":["combined"],"id":9}')
                assert json.loads(await ws.recv())["id"] == 9

    run(scenario)


@pytest.mark.parametrize(("market", "limit"), [("spot", 5), ("usdt_futures", 10), ("coin_futures", 10)])
def test_too_many_messages_end_the_connection(market: str, limit: int) -> None:
    """One message or ping per second above the limit closes with 1008."""

    async def scenario(sandbox: Sandbox) -> None:
        async with dial(sandbox, market, f"/ws/{MARKET_SYMBOLS[market].lower()}@kline_1m") as ws:
            for _ in range(limit):
                await (await ws.ping())
            assert not sandbox.violations
            with contextlib.suppress(websockets.ConnectionClosed):
                await ws.ping()
                while True:
                    await ws.recv()
            assert (ws.close_code, ws.close_reason) == (1008, "Too many requests")
            assert sandbox.violations == {"messages": 1}

    run(scenario)


@pytest.mark.parametrize(("market", "limit"), [("spot", 1024), ("usdt_futures", 1024), ("coin_futures", 200)])
def test_too_many_streams_end_the_connection(market: str, limit: int) -> None:
    """The last allowed stream is acknowledged; one more gets error 4 and close 1008."""

    async def scenario(sandbox: Sandbox) -> None:
        async with dial(sandbox, market, "/ws") as ws:
            names = [f"x{number}" for number in range(limit)]
            for batch in (names[:400], names[400:800], names[800:]):
                assert (await ask(ws, "SUBSCRIBE", *batch))["result"] is None
            answer = await ask(ws, "SUBSCRIBE", "one-more")
            assert (answer if market == "spot" else answer["error"])["code"] == 4
            with pytest.raises(websockets.ConnectionClosed):
                await ws.recv()
            assert (ws.close_code, sandbox.violations) == (1008, {"streams": 1})

    run(scenario)


def test_pings_carry_the_time_and_want_an_answer() -> None:
    """Pings have the server's time, and a client that answers stays connected."""

    async def scenario(sandbox: Sandbox) -> None:
        before_ms = sandbox.now_ms()
        reader, writer = await asyncio.open_connection(*sandbox.url.removeprefix("http://").split(":"))
        writer.write(
            b"GET /spot/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        await reader.readuntil(b"\r\n\r\n")
        head = await reader.readexactly(2)
        assert head[0] == 0x89
        assert before_ms <= int(await reader.readexactly(head[1])) <= sandbox.now_ms()
        writer.close()
        await writer.wait_closed()
        async with dial(sandbox, "spot", "/ws/btcusdt@kline_1m") as ws:
            await closed_candles(ws, 20)
        assert not sandbox.violations

    run(scenario, SandboxOptions(speed=3000, push_every_ms=0, ping_every_s=0.3))


def test_dropped_connections_end_without_a_close() -> None:
    """A cut connection gets no close frame, and a new one is served."""

    async def scenario(sandbox: Sandbox) -> None:
        async with dial(sandbox, "spot", "/ws/btcusdt@kline_1m") as ws:
            await closed_candles(ws, 1)
            assert sandbox.connections == 1
            await sandbox.drop_connections()
            assert sandbox.connections == 0
            with pytest.raises(websockets.ConnectionClosed):
                await closed_candles(ws, 1000)
            assert ws.close_code == 1006
        async with dial(sandbox, "spot", "/ws/btcusdt@kline_1m") as ws:
            await closed_candles(ws, 1)

    run(scenario)


def test_connections_can_be_closed_in_order() -> None:
    """A restarting server sends a close frame."""

    async def scenario(sandbox: Sandbox) -> None:
        async with dial(sandbox, "coin_futures", "/ws/btcusd_perp@kline_1m") as ws:
            await closed_candles(ws, 1)
            await sandbox.close_connections(1001, "going away")
            with pytest.raises(websockets.ConnectionClosed):
                await closed_candles(ws, 1000)
            assert (ws.close_code, ws.close_reason) == (1001, "going away")

    run(scenario)


def test_a_stall_is_silent_and_then_late() -> None:
    """A stalled connection gets nothing, not even a pong; afterwards no frame is missing."""

    async def scenario(sandbox: Sandbox) -> None:
        async with dial(sandbox, "spot", "/ws/btcusdt@kline_1m") as ws:
            first = (await closed_candles(ws, 1))[0]["k"]["t"]
            sandbox.stall()
            pong = await ws.ping()
            assert not (await asyncio.wait([asyncio.ensure_future(pong)], timeout=0.2))[0]
            sandbox.resume()
            await pong
            begins = [event["k"]["t"] for event in await closed_candles(ws, 20)]
            assert begins == [first + number * MINUTE_MS for number in range(1, 21)]

    run(scenario, QUIET)


def test_a_client_that_leaves_a_stall_is_gone() -> None:
    """A stalled client that leaves is removed from the count of connections."""

    async def scenario(sandbox: Sandbox) -> None:
        ws = await dial(sandbox, "spot", "/ws/btcusdt@kline_1m")
        sandbox.stall()
        await ws.ping()
        ws.transport.abort()
        while sandbox.connections:
            await asyncio.sleep(0.01)

    run(scenario)


def test_injected_frames_reach_everyone() -> None:
    """An injected frame reaches all clients unchanged."""

    async def scenario(sandbox: Sandbox) -> None:
        async with dial(sandbox, "spot", "/ws") as one, dial(sandbox, "coin_futures", "/ws") as two:
            await sandbox.send_to_all('{"e":"serverShutdown","E":1}')
            await sandbox.send_to_all(b"not json")
            for ws in (one, two):
                assert [await ws.recv(), await ws.recv()] == ['{"e":"serverShutdown","E":1}', "not json"]

    run(scenario)


def test_a_muted_symbol_loses_frames() -> None:
    """A muted symbol's candles are lost, and others are not; after the mute, later candles arrive."""

    async def scenario(sandbox: Sandbox) -> None:
        async with dial(sandbox, "spot", "/stream?streams=btcusdt@kline_1m/ethusdt@kline_1m") as ws:
            await closed_candles(ws, 2)
            sandbox.mute("spot", "BTCUSDT")
            last = 0
            while last < 6:  # what was on its way before is soon through
                last = last + 1 if (await closed_candles(ws, 1))[0]["s"] == "ETHUSDT" else 0
            sandbox.unmute("spot", "BTCUSDT")
            while (await closed_candles(ws, 1))[0]["s"] != "BTCUSDT":
                pass

    run(scenario)


def test_a_refused_handshake_has_its_status() -> None:
    """Any status can be set for handshakes, and removed."""

    async def scenario(sandbox: Sandbox) -> None:
        for status in (403, 418, 429, 451, 503):
            sandbox.refuse(status)
            with pytest.raises(websockets.InvalidStatus) as refused:
                await dial(sandbox, "spot", "/ws")
            assert refused.value.response.status_code == status
        sandbox.refuse(0)
        async with dial(sandbox, "spot", "/ws"):
            pass

    run(scenario)


def test_a_taken_port_is_one_clear_line() -> None:
    """A second sandbox on a port names the port and says what to do."""

    async def scenario(sandbox: Sandbox) -> None:
        port = int(sandbox.url.rsplit(":", 1)[1])
        with pytest.raises(
            LakewriterError, match=f"port: cannot listen on 127.0.0.1:{port}: .*in use"
        ) as taken:
            async with serve(SandboxOptions(port=port)):
                pass
        assert taken.value.hint == "lakewriter sandbox --port 0"

    run(scenario)
