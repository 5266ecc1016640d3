"""The listener, over real sockets to the sandbox."""

import asyncio
import contextlib
import itertools
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import msgspec
import pytest
from aiohttp import web

from lakewriter.binance.connect_limiter import ConnectGate
from lakewriter.binance.socket import Timeouts
from lakewriter.candle import Candle
from lakewriter.clock import Clock, ExchangeTime
from lakewriter.errors import UsageError
from lakewriter.market import MARKETS, Market, served_at
from lakewriter.recording.listening.listener import CandleListener
from lakewriter.sandbox.server import Sandbox, SandboxOptions, serve
from lakewriter.series import Series
from support.http_server import serve_routes
from support.running import PATIENCE_S, running, until
from support.stream_libraries import LAST_ONLY

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("stream_library")]

SPEED = 600.0
MINUTE_MS, DAY_MS = 60_000, 86_400_000


def options(**changes: object) -> SandboxOptions:
    return SandboxOptions(**{"speed": SPEED, "push_every_ms": 50, **changes})


def at(sandbox: Sandbox, market: str) -> Market:
    return served_at(MARKETS[market], sandbox.url)


async def collect(queue: "asyncio.Queue[Candle]", count: int) -> list[Candle]:
    return [await asyncio.wait_for(queue.get(), PATIENCE_S) for _ in range(count)]


def assert_once_and_whole(candles: list[Candle], series_count: int) -> None:
    """Assert that all candles of each series arrived once, in order, without a gap."""
    by_series: dict[Series, list[int]] = {}
    for candle in candles:
        series = candle.series
        by_series.setdefault(series, []).append(candle.begin_ms)
    assert len(by_series) == series_count
    for series, got in by_series.items():
        assert got == series.grid.grid(got[0], got[-1] + 1)


def empty(queue: "asyncio.Queue[Candle]") -> bool:
    """Remove and return all candles on a queue."""
    while not queue.empty():
        queue.get_nowait()
    return True


def begins(candles: list[Candle], symbol: str) -> list[int]:
    return [candle.begin_ms for candle in candles if candle.symbol == symbol]


def test_stats_are_a_snapshot() -> None:
    """A copy of the counts does not change afterwards, and reading does not change the counts."""
    listener = CandleListener("spot", ["BTCUSDT"], "1m", asyncio.Queue(1))
    before = listener.stats
    listener._sink.count_bad("shape", "a test")
    assert not before.bad_frames
    assert listener.stats.bad_frames == listener.stats.bad_frames == {"shape": 1}


@pytest.mark.parametrize(
    ("market", "symbol"),
    [("spot", "BTCUSDT"), ("usdt_futures", "币安人生USDT"), ("coin_futures", "BTCUSD_PERP")],
)
def test_closed_candles_arrive_as_the_truth_says(market: str, symbol: str) -> None:
    """Each closed candle of a market arrives once, in order, with the exchange's numbers."""

    async def main() -> None:
        async with serve(options()) as sandbox:
            queue: asyncio.Queue[Candle] = asyncio.Queue(1000)
            listener = CandleListener(at(sandbox, market), [symbol], "1m", queue)
            async with running(asyncio.create_task(listener.run())):
                candles = await collect(queue, 5)
            for previous, candle in itertools.pairwise(candles):
                assert candle.begin_ms == previous.begin_ms + MINUTE_MS
            for candle in candles:
                truth = sandbox.truth.candle(market, symbol, "1m", candle.begin_ms)
                got = [getattr(candle, name) for name in truth._fields[2:11]]
                assert got == [float(value) for value in truth[2:11]]
                assert candle.end_ms == candle.begin_ms + MINUTE_MS
                assert candle.event_ms is not None
                assert candle.event_ms >= candle.end_ms
                assert (candle.market, candle.source) == (market, "stream")
            assert listener.frames > len(candles)

    asyncio.run(main())


@LAST_ONLY
def test_symbols_come_and_go_without_touching_other_streams() -> None:
    """add_symbols and remove_symbols change the open connection while it runs."""

    async def main() -> None:
        async with serve(options()) as sandbox:
            queue: asyncio.Queue[Candle] = asyncio.Queue(10_000)
            listener = CandleListener(at(sandbox, "spot"), ["BTCUSDT"], "1m", queue)
            async with running(asyncio.create_task(listener.run())):
                seen = await collect(queue, 2)
                listener.add_symbols("ETHUSDT", "bnbusdt")
                while not {"ETHUSDT", "BNBUSDT"} <= {candle.symbol for candle in seen}:
                    seen += await collect(queue, 1)
                listener.remove_symbols("ETHUSDT")
                last = begins(seen, "ETHUSDT")[-1]
                while begins(seen, "BNBUSDT")[-1] < last + 5 * MINUTE_MS:
                    seen += await collect(queue, 1)
                assert begins(seen, "ETHUSDT")[-1] <= last + 2 * MINUTE_MS
                stream = begins(seen, "BTCUSDT")
                assert stream == list(range(stream[0], stream[-1] + 1, MINUTE_MS))
                assert listener.symbols == ["BNBUSDT", "BTCUSDT"]
                assert listener.stats.reconnects == 0

    asyncio.run(main())


def test_a_dropped_connection_is_made_again() -> None:
    """After the network cut all connections, all streams are subscribed again."""

    async def main() -> None:
        async with serve(options()) as sandbox:
            queue: asyncio.Queue[Candle] = asyncio.Queue(10_000)
            listener = CandleListener(
                at(sandbox, "usdt_futures"), ["BTCUSDT", "ETHUSDT"], "1m", queue, backoff_max_s=0.2
            )
            async with running(asyncio.create_task(listener.run())):
                for drops in range(1, 4):
                    await collect(queue, 2)
                    await sandbox.drop_connections()
                    await until(lambda drops=drops: listener.stats.reconnects == drops)
                    while not queue.empty():
                        queue.get_nowait()
                assert listener.stats.reopened == {"lost": 3}
                assert {candle.symbol for candle in await collect(queue, 4)} == {"BTCUSDT", "ETHUSDT"}

    asyncio.run(main())


def test_refused_handshakes_are_tried_again() -> None:
    """The listener retries during 503 answers, and connects after them."""

    async def main() -> None:
        async with serve(options()) as sandbox:
            sandbox.refuse(503)
            queue: asyncio.Queue[Candle] = asyncio.Queue(10)
            listener = CandleListener(at(sandbox, "spot"), ["BTCUSDT"], "1m", queue, backoff_max_s=0.1)
            async with running(asyncio.create_task(listener.run())):
                await until(lambda: listener.stats.reconnects >= 3)
                sandbox.refuse(0)
                await collect(queue, 1)
                assert listener.stats.reopened == {"refused": listener.stats.reconnects}

    asyncio.run(main())


@contextlib.asynccontextmanager
async def refusing(status: int, headers: dict[str, str]) -> AsyncIterator[tuple[str, list[float]]]:
    """Serve refusals only; yield the URL and the list of request times."""
    asked_s: list[float] = []

    async def refuse(_: web.Request) -> web.Response:
        asked_s.append(time.monotonic())
        return web.Response(status=status, headers=headers)

    async with serve_routes(refuse) as url:
        yield url, asked_s


@LAST_ONLY
def test_who_is_told_to_wait_waits_so_long_and_no_longer() -> None:
    """After 429 with Retry-After: 1, the next attempt at the host comes one second later."""

    async def main() -> None:
        async with refusing(429, {"Retry-After": "1"}) as (url, asked_s):
            gate = ConnectGate()
            listeners = [
                CandleListener(
                    served_at(MARKETS[market], url), ["BTCUSDT"], "1m", asyncio.Queue(1), gate=gate
                )
                for market in ("spot", "usdt_futures")
            ]
            async with AsyncExitStack() as stack:
                for listener in listeners:
                    await stack.enter_async_context(running(asyncio.create_task(listener.run())))
                await until(lambda: len(asked_s) >= 3)
                # One was let in before the first was refused, or it waited with it.
                waits = [after - before for before, after in itertools.pairwise(asked_s)]
                assert max(waits) >= 1.0
                assert sum(listener.stats.reconnects for listener in listeners) >= 2

    asyncio.run(main())


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (403, "its firewall blocks us; no connection to its host is tried for 60 s"),
        (418, "this address is banned; no connection to its host is tried for 120 s"),
        (429, "too many attempts; no connection to its host is tried for 60 s"),
        (451, "stream_url; no connection to its host is tried for 300 s"),
    ],
)
def test_a_refusal_holds_the_whole_host(status: int, said: str, caplog: pytest.LogCaptureFixture) -> None:
    """After one block, ban or refused region, all connections to the host wait, and the log says how long."""

    async def main() -> None:
        async with refusing(status, {}) as (url, asked_s):
            market = msgspec.structs.replace(served_at(MARKETS["spot"], url), streams_max=1)
            listener = CandleListener(market, ["BTCUSDT"], "1m", asyncio.Queue(1), backoff_max_s=0.1)
            async with running(asyncio.create_task(listener.run())):
                await until(lambda: listener.stats.reconnects == 1)
                listener.add_symbols("ETHUSDT")  # on a connection of its own
                await asyncio.sleep(0.2)
                assert len(asked_s) == 1

    asyncio.run(main())
    assert [record.getMessage().endswith(said) for record in caplog.records] == [True]


def test_a_wrong_address_is_tried_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """After a 404, the next try comes a minute later: the address is wrong."""

    async def main() -> None:
        async with refusing(404, {}) as (url, asked_s):
            listener = CandleListener(
                served_at(MARKETS["spot"], url), ["BTCUSDT"], "1m", asyncio.Queue(1), backoff_max_s=0.1
            )
            async with running(asyncio.create_task(listener.run())):
                await until(lambda: listener.stats.reconnects == 1)
                await asyncio.sleep(0.2)
                assert len(asked_s) == 1

    asyncio.run(main())
    assert [record.getMessage() for record in caplog.records] == [
        "spot #1: connection ended: handshake refused with HTTP 404; next try in 60.0 s"
    ]


def test_a_silent_connection_is_replaced() -> None:
    """A connection without frames and pongs is replaced."""

    async def main() -> None:
        async with serve(options()) as sandbox:
            queue: asyncio.Queue[Candle] = asyncio.Queue(10_000)
            listener = CandleListener(
                at(sandbox, "spot"),
                ["BTCUSDT"],
                "1m",
                queue,
                timeouts=Timeouts(ping_after_s=0.2, pong_s=0.2, silent_s=5, reply_s=0.5),
                backoff_max_s=0.1,
            )
            async with running(asyncio.create_task(listener.run())):
                await collect(queue, 1)
                sandbox.stall()
                await until(lambda: listener.stats.reconnects >= 1)
                sandbox.resume()
                while not queue.empty():
                    queue.get_nowait()
                await collect(queue, 1)

    asyncio.run(main())


def test_a_full_queue_stops_the_reading_and_loses_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """While the queue is full the socket is not read; afterwards all candles arrive in order."""

    async def main() -> None:
        async with serve(options(push_every_ms=0)) as sandbox:
            queue: asyncio.Queue[Candle] = asyncio.Queue(2)
            listener = CandleListener(
                at(sandbox, "spot"),
                ["BTCUSDT"],
                "1m",
                queue,
                timeouts=Timeouts(ping_after_s=0.5, silent_s=1.0),
            )
            async with running(asyncio.create_task(listener.run())):
                await until(queue.full)
                full_ms = sandbox.now_ms()
                await until(lambda: sandbox.now_ms() > full_ms + 20 * MINUTE_MS)
                candles = await collect(queue, 15)
                got = begins(candles, "BTCUSDT")
                assert got == list(range(got[0], got[0] + 15 * MINUTE_MS, MINUTE_MS))
                assert listener.stats.reconnects == 0

    asyncio.run(main())
    assert sum("sockets are not read" in record.getMessage() for record in caplog.records) == 1


def test_garbage_is_counted_and_passed_over() -> None:
    """Bad frames are counted by kind, and the other candles arrive."""
    garbage: dict[str, str | bytes] = {
        "json": "{",
        "shape": '{"e":"kline","E":1}',
        "number": (
            '{"e":"kline","E":1700000100001,"s":"BTCUSDT","k":{"t":1700000040000,"T":1700000099999,'
            '"s":"BTCUSDT","i":"1m","f":1,"L":1,"o":"NaN","c":"1","h":"1","l":"1","v":"1","n":1,"x":true,'
            '"q":"1","V":"1","Q":"1","B":"0"}}'
        ),
        "stray": (
            '{"e":"kline","E":1700000100001,"s":"XRPUSDT","k":{"t":1700000040000,"T":1700000099999,'
            '"s":"XRPUSDT","i":"1m","f":1,"L":1,"o":"1","c":"1","h":"1","l":"1","v":"1","n":1,"x":true,'
            '"q":"1","V":"1","Q":"1","B":"0"}}'
        ),
    }

    async def main() -> None:
        async with serve(options()) as sandbox:
            queue: asyncio.Queue[Candle] = asyncio.Queue(10_000)
            listener = CandleListener(at(sandbox, "spot"), ["BTCUSDT"], "1m", queue)
            async with running(asyncio.create_task(listener.run())):
                await collect(queue, 1)
                for frame in garbage.values():
                    await sandbox.send_to_all(frame)
                await sandbox.send_to_all('{"e":"aggTrade","s":"BTCUSDT"}')
                await sandbox.send_to_all("[1,2,3]")
                await until(lambda: listener.stats.bad_frames.total() == len(garbage))
                assert dict(listener.stats.bad_frames) == dict.fromkeys(garbage, 1)
                # The stray one is a candle; the first reply is the one to SUBSCRIBE.
                kinds = listener.stats.frames
                assert (kinds["unreadable"], kinds["other"], kinds["reply"]) == (3, 2, 1)
                assert kinds["closed_candle"] >= 2
                assert listener.frames >= kinds.total()
                assert [candle.symbol for candle in await collect(queue, 2)] == ["BTCUSDT", "BTCUSDT"]
                assert listener.stats.reconnects == 0

    asyncio.run(main())


@LAST_ONLY
def test_streams_are_spread_over_connections_within_the_limit() -> None:
    """Symbols beyond a connection's limit use further connections, and no limit is broken."""

    async def main() -> None:
        async with serve(options(symbols=450, speed=60, push_every_ms=0)) as sandbox:
            market = at(sandbox, "usdt_futures")
            symbols = sandbox.symbols("usdt_futures")
            queue: asyncio.Queue[Candle] = asyncio.Queue(100_000)
            listener = CandleListener(market, symbols, "1m", queue)
            async with running(asyncio.create_task(listener.run())):
                seen: set[str] = set()
                while len(seen) < len(symbols):
                    seen.add((await collect(queue, 1))[0].symbol)
                assert listener.stats.connections == -(-len(symbols) // market.streams_max)
            assert not sandbox.violations

    asyncio.run(main())


def test_a_server_shutdown_notice_moves_the_connection_without_a_hole() -> None:
    """After a shutdown notice the listener reconnects, and each candle arrives exactly once."""

    async def main() -> None:
        async with serve(options()) as sandbox:
            queue: asyncio.Queue[Candle] = asyncio.Queue(10_000)
            listener = CandleListener(at(sandbox, "spot"), ["BTCUSDT"], "1m", queue, backoff_max_s=0.1)
            async with running(asyncio.create_task(listener.run())):
                candles = await collect(queue, 1)
                await sandbox.send_to_all('{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1}}')
                await until(lambda: listener.stats.rotations == 1 and listener.stats.connections == 1)
                candles += await collect(queue, 5)
                assert_once_and_whole(candles, 1)
                assert listener.stats.reconnects == 0
            assert not sandbox.violations

    asyncio.run(main())


def test_wrong_names_are_refused_at_once() -> None:
    """An invalid market, interval or symbol is an error before any connection."""
    queue: asyncio.Queue[Candle] = asyncio.Queue(1)
    with pytest.raises(UsageError, match="market: 'forex' is unknown"):
        CandleListener("forex", ["BTCUSDT"], "1m", queue)
    with pytest.raises(UsageError, match="usdt_futures has no 1s candles"):
        CandleListener("usdt_futures", ["BTCUSDT"], "1s", queue)
    listener = CandleListener("spot", ["BTCUSDT"], "1M", queue)
    with pytest.raises(UsageError, match="cannot be a symbol"):
        listener.add_symbols("ETHUSDT", "../etc")
    assert listener.symbols == ["BTCUSDT"]
    with contextlib.suppress(asyncio.QueueEmpty):
        queue.get_nowait()


def test_a_listener_may_begin_without_symbols() -> None:
    """Without symbols there is no connection; the first added symbol opens one."""

    async def main() -> None:
        async with serve(options()) as sandbox:
            queue: asyncio.Queue[Candle] = asyncio.Queue(10_000)
            listener = CandleListener(at(sandbox, "spot"), [], "1m", queue)
            async with running(asyncio.create_task(listener.run())):
                await asyncio.sleep(0)
                assert listener.stats.connections == 0
                listener.add_symbols("BTCUSDT", interval="1s")
                await collect(queue, 1)
                assert listener.series == {Series("spot", "BTCUSDT", "1s")}
                with pytest.raises(UsageError, match="'7m' is unknown"):
                    listener.add_symbols("ETHUSDT", interval="7m")
                assert listener.symbols == ["BTCUSDT"]

    asyncio.run(main())


def test_intervals_share_a_connection() -> None:
    """Three intervals of three symbols share one connection, and each candle arrives once."""

    async def main() -> None:
        async with serve(options()) as sandbox:
            queue: asyncio.Queue[Candle] = asyncio.Queue(10_000)
            symbols = sandbox.symbols("spot")[:3]
            listener = CandleListener(at(sandbox, "spot"), symbols, "1m", queue)
            listener.add_symbols(*symbols, interval="3m")
            listener.add_symbols(*symbols, interval="5m")
            async with running(asyncio.create_task(listener.run())):
                candles: list[Candle] = []
                while min(listener_counts(candles, "5m").values(), default=0) < 2:
                    candles += await collect(queue, 1)
                assert_once_and_whole(candles, 9)
                assert listener.stats.connections == sandbox.connections == 1
                assert listener.stats.connected_streams == len(listener.series) == 9
            assert not sandbox.violations

    asyncio.run(main())


def listener_counts(candles: list[Candle], interval: str) -> Counter[str]:
    return Counter(candle.symbol for candle in candles if candle.interval == interval)


def test_rotation_loses_and_doubles_nothing() -> None:
    """Over several rotations each candle arrives once, in order, and old connections are closed."""

    async def main() -> None:
        async with serve(options()) as sandbox:
            queue: asyncio.Queue[Candle] = asyncio.Queue(100_000)
            symbols = sandbox.symbols("usdt_futures")[:5]
            listener = CandleListener(
                at(sandbox, "usdt_futures"), symbols, "1m", queue, rotate_after_ms=500, backoff_max_s=0.1
            )
            async with running(asyncio.create_task(listener.run())):
                await until(lambda: listener.stats.rotations >= 4)
                assert sandbox.connections <= 3
            candles = [queue.get_nowait() for _ in range(queue.qsize())]
            assert_once_and_whole(candles, 5)
            assert listener.stats.reconnects == 0
            assert listener.stats.connections == 0
            await until(lambda: sandbox.connections == 0)
            assert not sandbox.violations

    asyncio.run(main())


def test_the_successor_learns_of_streams_that_come_and_go() -> None:
    """Streams added or removed before a successor takes over change on both connections."""

    async def main() -> None:
        async with serve(options()) as sandbox:
            sandbox.mute("spot", "ETHUSDT")
            queue: asyncio.Queue[Candle] = asyncio.Queue(100_000)
            listener = CandleListener(at(sandbox, "spot"), ["BTCUSDT", "ETHUSDT"], "1m", queue)
            async with running(asyncio.create_task(listener.run())):
                candles = await collect(queue, 1)
                await sandbox.send_to_all('{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1}}')
                await until(lambda: sandbox.streams == 4)
                listener.add_symbols("BNBUSDT")
                await until(lambda: sandbox.streams == 6)
                assert listener.stats.rotations == 0
                listener.remove_symbols("ETHUSDT")  # the only one that has proved nothing
                await until(lambda: listener.stats.rotations == 1)
                await until(lambda: sandbox.streams == 2 and sandbox.connections == 1)
                candles += await collect(queue, 6)
                assert_once_and_whole(candles, 2)
                assert listener.symbols == ["BNBUSDT", "BTCUSDT"]
            assert not sandbox.violations

    asyncio.run(main())


def test_a_successor_that_delivers_nothing_is_tried_again() -> None:
    """A new connection without frames is closed, and the old one continues."""

    async def main() -> None:
        async with serve(options()) as sandbox:
            queue: asyncio.Queue[Candle] = asyncio.Queue(100_000)
            listener = CandleListener(
                at(sandbox, "spot"),
                ["BTCUSDT"],
                "1m",
                queue,
                timeouts=Timeouts(prove_s=0.2),
                backoff_max_s=0.1,
            )
            async with running(asyncio.create_task(listener.run())):
                await collect(queue, 1)
                sandbox.mute("spot", "BTCUSDT")
                await sandbox.send_to_all('{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1}}')
                await until(lambda: sandbox.connections == 2)
                await until(lambda: sandbox.connections == 1)
                assert (listener.stats.rotations, listener.stats.reconnects) == (0, 0)
                sandbox.unmute("spot", "BTCUSDT")
                await until(lambda: listener.stats.rotations == 1)
            assert not sandbox.violations

    asyncio.run(main())


def test_a_silent_stream_is_tried_elsewhere_and_then_polled(caplog: pytest.LogCaptureFixture) -> None:
    """Two missed candles replace the connection; after four the series is polled until frames return."""

    async def main() -> None:
        async with serve(options()) as sandbox:
            queue: asyncio.Queue[Candle] = asyncio.Queue(100_000)
            listener = CandleListener(
                at(sandbox, "spot"), ["BTCUSDT", "ETHUSDT"], "1m", queue, timeouts=Timeouts(prove_s=0.2)
            )
            silent = Series("spot", "ETHUSDT", "1m")
            async with running(asyncio.create_task(listener.run())):
                candles = await collect(queue, 2)
                sandbox.mute("spot", "ETHUSDT")
                muted_ms = sandbox.now_ms()
                # Frames come in order: with the next candle all that was under way has come.
                while candles[-1].end_ms <= muted_ms:
                    candles += await collect(queue, 1)
                listener.missed(Series("spot", "XRPUSDT", "1m"))  # the listener does not listen to it
                listener.missed(silent)
                listener.missed(silent)
                assert listener.polled == frozenset()
                await until(lambda: listener.stats.replaced == 1)
                listener.missed(silent)
                listener.missed(silent)
                assert listener.polled == {silent}
                await until(lambda: listener.stats.replaced == 2)
                sandbox.unmute("spot", "ETHUSDT")
                await until(lambda: not listener.polled)
                assert listener.stats.reconnects == 0
                candles += [queue.get_nowait() for _ in range(queue.qsize())]
                flowing = [candle for candle in candles if candle.symbol == "BTCUSDT"]
                assert_once_and_whole(flowing, 1)
            assert not sandbox.violations

    asyncio.run(main())
    logged = [record.getMessage() for record in caplog.records]
    assert "spot #1: spot ETHUSDT 1m missed 2 candles; another connection is tried" in logged


@LAST_ONLY
def test_many_streams_are_added_quickly_and_empty_connections_closed() -> None:
    """1,500 streams use two connections in little time; a connection without streams is closed."""

    async def main() -> None:
        async with serve(options(symbols=750, speed=1, push_every_ms=0)) as sandbox:
            queue: asyncio.Queue[Candle] = asyncio.Queue(100_000)
            listener = CandleListener(at(sandbox, "spot"), [], "1m", queue)
            async with running(asyncio.create_task(listener.run())):
                symbols = sandbox.symbols("spot")
                start_s = time.thread_time()
                for symbol in symbols:
                    listener.add_symbols(symbol)
                listener.add_symbols(*symbols, interval="5m")
                assert time.thread_time() - start_s < 1, (
                    "most of it is 30 ms, a quadratic one would be seconds"
                )
                count = len(listener.series)
                assert count >= 1400
                await until(lambda: listener.stats.connected_streams == count)
                assert listener.stats.connections == sandbox.connections == 2
                listener.remove_symbols(*symbols, interval="5m")
                listener.remove_symbols(*symbols[1:])
                await until(lambda: sandbox.connections == 1)
                await until(lambda: sandbox.streams == listener.stats.connected_streams == 1)
            assert not sandbox.violations

    asyncio.run(main())


@LAST_ONLY
def test_too_many_streams_for_a_connection_are_spread_over_more(caplog: pytest.LogCaptureFixture) -> None:
    """If the exchange accepts fewer streams than expected, the listener lowers its limit once."""

    async def main() -> None:
        async with serve(options(symbols=100, push_every_ms=0)) as sandbox:
            market = msgspec.structs.replace(at(sandbox, "coin_futures"), streams_max=300)
            queue: asyncio.Queue[Candle] = asyncio.Queue(100_000)
            symbols = sandbox.symbols("coin_futures")[:90]
            listener = CandleListener(market, symbols, "1m", queue, backoff_max_s=0.1)
            for interval in ("3m", "5m"):
                listener.add_symbols(*symbols, interval=interval)
            async with running(asyncio.create_task(listener.run())):
                await until(lambda: listener.stats.connected_streams == len(listener.series))
                assert len(listener.series) == 3 * len(symbols) > 200
                assert listener.stats.connections == sandbox.connections <= 3
                assert listener.stats.reconnects == 1
                listener.add_symbols(*symbols[:60], interval="15m")
                await until(lambda: listener.stats.connected_streams == len(listener.series))
                assert listener.stats.reconnects == 1
            assert sandbox.violations == {"streams": 1}

    asyncio.run(main())
    assert sum("streams on a connection" in record.getMessage() for record in caplog.records) == 1


def closed(symbol: str, begin_ms: int, trade_num: int) -> str:
    return (
        f'{{"e":"kline","E":{begin_ms + MINUTE_MS + 5},"s":"{symbol}","k":{{"t":{begin_ms},'
        f'"T":{begin_ms + MINUTE_MS - 1},"s":"{symbol}","i":"1m","f":1,"L":1,"o":"1","c":"1","h":"1","l":"1",'
        f'"v":"1","n":{trade_num},"x":true,"q":"1","V":"1","Q":"1","B":"0"}}}}'
    )


def test_a_candle_comes_once_and_again_only_with_more_trades() -> None:
    """Duplicates are counted, not delivered; corrections are delivered; frames from the future are not."""

    async def main() -> None:
        async with serve(options(push_every_ms=0, speed=1)) as sandbox:
            queue: asyncio.Queue[Candle] = asyncio.Queue(100)
            exchange_time = ExchangeTime(Clock())
            listener = CandleListener(at(sandbox, "spot"), ["BTCUSDT"], "1d", queue, time=exchange_time)
            listener.add_symbols("BTCUSDT", interval="1m")
            async with running(asyncio.create_task(listener.run())):
                await until(lambda: listener.stats.connected_streams == 2)
                begin_ms = time.time_ns() // 1_000_000 - MINUTE_MS
                begin_ms -= begin_ms % MINUTE_MS
                for trade_num in (5, 5, 4, 7, 7):
                    await sandbox.send_to_all(closed("BTCUSDT", begin_ms, trade_num))
                await until(lambda: listener.stats.duplicates == 3)
                assert [candle.trade_num for candle in await collect(queue, 2)] == [5, 7]
                assert queue.empty()
                assert listener.stats.candles == 2
                await sandbox.send_to_all(closed("BTCUSDT", begin_ms + 3 * DAY_MS, 5))
                await until(lambda: listener.stats.bad_frames["ahead"] == 1, 5)
                assert queue.empty()

    asyncio.run(main())


def test_a_candle_of_a_symbol_removed_a_moment_ago_is_no_bad_frame(caplog: pytest.LogCaptureFixture) -> None:
    """A late frame of a removed symbol has its own count, and no log line."""

    async def main() -> None:
        async with serve(options(push_every_ms=0, speed=1)) as sandbox:
            queue: asyncio.Queue[Candle] = asyncio.Queue(100)
            listener = CandleListener(at(sandbox, "spot"), ["BTCUSDT", "ETHUSDT"], "1m", queue)
            async with running(asyncio.create_task(listener.run())):
                await until(lambda: listener.stats.connected_streams == 2)
                listener.remove_symbols("ETHUSDT")
                await sandbox.send_to_all(closed("ETHUSDT", 1_700_000_040_000, 1))
                await until(lambda: listener.stats.strays == 1)
                assert not listener.stats.bad_frames

    asyncio.run(main())
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_rotation_with_a_full_queue_loses_nothing() -> None:
    """While the queue is full no connection replaces another; afterwards no candle is missing."""

    async def main() -> None:
        async with serve(options()) as sandbox:
            queue: asyncio.Queue[Candle] = asyncio.Queue(2)
            listener = CandleListener(
                at(sandbox, "spot"),
                sandbox.symbols("spot")[:3],
                "1m",
                queue,
                timeouts=Timeouts(prove_s=0.1),
                rotate_after_ms=300,
            )
            async with running(asyncio.create_task(listener.run())):
                await until(queue.full)
                full_ms = sandbox.now_ms()
                await until(lambda: sandbox.now_ms() > full_ms + 10 * MINUTE_MS)
                candles: list[Candle] = []
                while listener.stats.rotations < 2 or len(candles) < 60:
                    candles += await collect(queue, 1)
                for symbol in listener.symbols:
                    # Connections that are many candles apart may repeat what is long delivered.
                    got = set(begins(candles, symbol))
                    assert got == set(range(min(got), max(got) + 1, MINUTE_MS))
                assert listener.stats.reconnects == 0
            assert not sandbox.violations

    asyncio.run(main())


def test_a_cancelled_listener_leaves_nothing_behind(caplog: pytest.LogCaptureFixture) -> None:
    """A cancel during a replacement closes all. A candle without room is unsent, once for both connections."""

    async def main() -> None:
        async with serve(options()) as sandbox:
            queue: asyncio.Queue[Candle] = asyncio.Queue(2)
            symbols = sandbox.symbols("spot")[:5]
            listener = CandleListener(at(sandbox, "spot"), symbols, "1m", queue)
            before = asyncio.all_tasks()
            sandbox.mute("spot", symbols[0])
            run = asyncio.create_task(listener.run())
            await until(lambda: listener.stats.connected_streams == 5)
            await sandbox.send_to_all('{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1}}')
            # A full queue would stop the reading, also of the notice and of acknowledgements.
            await until(lambda: empty(queue) and sandbox.streams == 10)
            await until(queue.full)
            run.cancel()
            with pytest.raises(asyncio.CancelledError):
                await run
            keys = [(candle.series, candle.begin_ms) for candle in listener.unsent]
            assert len(keys) == len(set(keys))
            assert listener.stats.connections == 0
            await until(lambda: sandbox.connections == 0)
            await until(lambda: asyncio.all_tasks() <= before | {asyncio.current_task()})

    asyncio.run(main())
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_a_dead_old_connection_leaves_the_field_to_its_successor() -> None:
    """If the old connection dies before the new one is proved, the new one takes over."""

    async def main() -> None:
        async with serve(options()) as sandbox:
            queue: asyncio.Queue[Candle] = asyncio.Queue(10_000)
            listener = CandleListener(
                at(sandbox, "spot"), ["BTCUSDT", "ETHUSDT"], "1m", queue, backoff_max_s=60.0
            )
            async with running(asyncio.create_task(listener.run())):
                await collect(queue, 2)
                old = next(iter(sandbox._sockets.open))
                sandbox.mute("spot", "ETHUSDT")
                await sandbox.send_to_all('{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1}}')
                await until(lambda: sandbox.streams == 4)
                old.abort()
                await until(lambda: listener.stats.reconnects == 1)
                assert listener.stats.connected_streams == 2
                assert (sandbox.connections, listener.stats.rotations) == (1, 0)
                sandbox.unmute("spot", "ETHUSDT")
                while (await collect(queue, 1))[0].symbol != "ETHUSDT":
                    pass
            assert not sandbox.violations

    asyncio.run(main())
