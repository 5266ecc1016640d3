"""Listening over real sockets to the sandbox."""

import asyncio
import contextlib
import itertools

import pytest
from running import running, until

from lakewriter.binance.socket import Patience
from lakewriter.candle import Candle
from lakewriter.errors import UsageError
from lakewriter.market import MARKETS, Market, served_at
from lakewriter.recording.listener import CandleListener
from lakewriter.sandbox.server import Sandbox, SandboxOptions, serve

pytestmark = pytest.mark.slow

SPEED = 600.0
MINUTE_MS = 60_000


def options(**changes: object) -> SandboxOptions:
    return SandboxOptions(**{"speed": SPEED, "push_every_ms": 50, **changes})


def at(sandbox: Sandbox, market: str) -> Market:
    return served_at(MARKETS[market], sandbox.url)


async def collect(queue: "asyncio.Queue[Candle]", count: int) -> list[Candle]:
    return [await asyncio.wait_for(queue.get(), 30) for _ in range(count)]


def begins(candles: list[Candle], symbol: str) -> list[int]:
    return [candle.begin_ms for candle in candles if candle.symbol == symbol]


@pytest.mark.parametrize(
    ("market", "symbol"),
    [("spot", "BTCUSDT"), ("usdt_futures", "币安人生USDT"), ("coin_futures", "BTCUSD_PERP")],
)
def test_closed_candles_arrive_as_the_truth_says(market: str, symbol: str) -> None:
    """Each closed candle of a market comes once, in order, with the exchange's own numbers."""

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


def test_symbols_come_and_go_without_touching_other_streams() -> None:
    """add_symbols and remove_symbols work while running, on the open connection."""

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
    """After the network cut every connection, candles flow again and all streams are back."""

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
                assert {candle.symbol for candle in await collect(queue, 4)} == {"BTCUSDT", "ETHUSDT"}

    asyncio.run(main())


def test_refused_handshakes_are_tried_again() -> None:
    """While the exchange answers 503 the listener keeps trying, and connects when it may."""

    async def main() -> None:
        async with serve(options()) as sandbox:
            sandbox.refuse(503)
            queue: asyncio.Queue[Candle] = asyncio.Queue(10)
            listener = CandleListener(at(sandbox, "spot"), ["BTCUSDT"], "1m", queue, backoff_max_s=0.1)
            async with running(asyncio.create_task(listener.run())):
                await until(lambda: listener.stats.reconnects >= 3)
                sandbox.refuse(0)
                await collect(queue, 1)

    asyncio.run(main())


def test_a_silent_connection_is_replaced() -> None:
    """A connection on which nothing moves, not even pongs, is given up and made again."""

    async def main() -> None:
        async with serve(options()) as sandbox:
            queue: asyncio.Queue[Candle] = asyncio.Queue(10_000)
            listener = CandleListener(
                at(sandbox, "spot"),
                ["BTCUSDT"],
                "1m",
                queue,
                patience=Patience(ping_after_s=0.2, pong_s=0.2, silent_s=5, reply_s=0.5),
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
    """While nobody takes candles the socket is not read; afterwards they come in full and in order."""

    async def main() -> None:
        async with serve(options(push_every_ms=0)) as sandbox:
            queue: asyncio.Queue[Candle] = asyncio.Queue(2)
            listener = CandleListener(
                at(sandbox, "spot"),
                ["BTCUSDT"],
                "1m",
                queue,
                patience=Patience(ping_after_s=0.1, pong_s=0.1, silent_s=0.3, reply_s=0.3),
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
    """Bad frames are counted by kind, and the candles around them arrive."""
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
                assert [candle.symbol for candle in await collect(queue, 2)] == ["BTCUSDT", "BTCUSDT"]
                assert listener.stats.reconnects == 0

    asyncio.run(main())


def test_streams_are_spread_over_connections_within_the_limit() -> None:
    """More symbols than a connection may carry are shared out; no limit of the exchange is broken."""

    async def main() -> None:
        async with serve(options(symbols=450, speed=60, push_every_ms=0)) as sandbox:
            market = at(sandbox, "usdt_futures")
            symbols = sandbox.symbols("usdt_futures")
            queue: asyncio.Queue[Candle] = asyncio.Queue(100_000)
            listener = CandleListener(market, symbols, "1m", queue)
            async with running(asyncio.create_task(listener.run())):
                seen: set[str] = set()
                while len(seen) < len(symbols):
                    seen.add((await asyncio.wait_for(queue.get(), 30)).symbol)
                assert listener.stats.connections == -(-len(symbols) // market.streams_max)
            assert not sandbox.violations

    asyncio.run(main())


def test_a_server_shutdown_notice_moves_the_connection() -> None:
    """An announced shutdown makes the listener connect anew, before it is cut off."""

    async def main() -> None:
        async with serve(options()) as sandbox:
            queue: asyncio.Queue[Candle] = asyncio.Queue(10_000)
            listener = CandleListener(at(sandbox, "spot"), ["BTCUSDT"], "1m", queue, backoff_max_s=0.1)
            async with running(asyncio.create_task(listener.run())):
                await collect(queue, 1)
                await sandbox.send_to_all('{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1}}')
                await until(lambda: listener.stats.reconnects == 1)
                await collect(queue, 2)

    asyncio.run(main())


def test_wrong_names_are_refused_at_once() -> None:
    """A market, interval or symbol that cannot be is an error of the caller, before any connection."""
    queue: asyncio.Queue[Candle] = asyncio.Queue(1)
    with pytest.raises(UsageError, match="market: 'forex' is unknown"):
        CandleListener("forex", ["BTCUSDT"], "1m", queue)
    with pytest.raises(UsageError, match="usdt_futures has no 1s candles"):
        CandleListener("usdt_futures", ["BTCUSDT"], "1s", queue)
    listener = CandleListener("spot", ["BTCUSDT"], "1M", queue)
    with pytest.raises(UsageError, match="cannot be one"):
        listener.add_symbols("ETHUSDT", "../etc")
    assert listener.symbols == ["BTCUSDT"]
    with contextlib.suppress(asyncio.QueueEmpty):
        queue.get_nowait()
