"""The exchange's limits as the sandbox enforces them, each counted by kind."""

import asyncio
import json

import pytest
import websockets

from lakewriter.interval import DAY_MS
from lakewriter.market import MARKETS
from lakewriter.sandbox import Sandbox, SandboxOptions
from lakewriter.sandbox.faults.caller_limits import (
    BAN_S,
    CONNECTS_MAX,
    CONNECTS_WINDOW_S,
    WEIGHT_MAX,
    AttemptLimit,
    MessageRate,
    WeightLimit,
)
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

STILL = SandboxOptions(speed=0.001, start_ms=START_MS)


def test_too_many_connection_attempts_are_refused() -> None:
    """The 301st attempt in five minutes gets 429 with Retry-After; other markets count separately."""

    async def scenario(sandbox: Sandbox) -> None:
        for _ in range(CONNECTS_MAX // 50):
            # A GET that is no handshake is an attempt, too.
            await asyncio.gather(*(get(sandbox, "/spot/ws") for _ in range(50)))
        with pytest.raises(websockets.InvalidStatus) as refused:
            await dial(sandbox, "spot", "/ws")
        response = refused.value.response
        assert response.status_code == 429
        assert 290 <= int(response.headers["Retry-After"]) <= 300
        assert sandbox.violations == {"connects": 1}
        async with dial(sandbox, "coin_futures", "/ws"):
            pass

    run(scenario, STILL)


def test_attempts_are_forgotten_after_five_minutes() -> None:
    """Refused attempts do not count, and each caller and market counts separately."""
    attempts = AttemptLimit()
    waits = [attempts.attempt("spot", "me", number / 10) for number in range(CONNECTS_MAX + 1)]
    assert waits == [0] * CONNECTS_MAX + [270]
    assert attempts.attempt("spot", "you", 30) == 0
    assert attempts.attempt("coin_futures", "me", 30) == 0
    assert attempts.attempt("spot", "me", CONNECTS_WINDOW_S) == 0
    assert attempts.attempt("spot", "me", CONNECTS_WINDOW_S) == 1


@pytest.mark.parametrize(
    ("market", "names", "lost"),
    [("spot", 436, False), ("spot", 437, True), ("usdt_futures", 437, False), ("usdt_futures", 1000, True)],
)
def test_a_subscribe_that_is_too_large_is_lost(market: str, names: int, lost: bool) -> None:
    """A SUBSCRIBE of more than 436 names on spot, or 8 kB, is acknowledged and silent."""

    async def scenario(sandbox: Sandbox) -> None:
        async with (
            dial(sandbox, market, "/ws") as ws,
            dial(sandbox, "coin_futures", "/ws/btcusd_perp@kline_1m") as witness,
        ):
            wanted = ["btcusdt@kline_1m", *(f"name{number:03d}" for number in range(names - 1))]
            assert (await ask(ws, "SUBSCRIBE", *wanted))["result"] is None
            assert (await ask(ws, "LIST_SUBSCRIPTIONS"))["result"] == wanted
            await closed_candles(witness, 5)
            await ws.send('{"method":"GET_PROPERTY","params":["combined"],"id":9}')
            answer = json.loads(await ws.recv())
            assert ("id" in answer) == lost
        assert sandbox.violations == ({"subscribe_size": 1} if lost else {})

    run(scenario, QUIET)


def test_pongs_count_as_messages() -> None:
    """One unsolicited pong above the limit closes with 1008."""

    async def scenario(sandbox: Sandbox) -> None:
        async with dial(sandbox, "spot", "/ws") as ws:
            for _ in range(6):
                await ws.pong(b"unasked")
            with pytest.raises(websockets.ConnectionClosed):
                await ws.recv()
            assert (ws.close_code, ws.close_reason) == (1008, "Too many requests")
        assert sandbox.violations == {"messages": 1}

    run(scenario, STILL)


def test_messages_are_counted_over_a_second() -> None:
    """Messages count over any second, not over a second of the clock."""
    messages = MessageRate()
    assert [messages.count(at) for at in (0.0, 0.5, 0.9, 1.0, 1.4, 1.5, 3.0)] == [1, 2, 3, 3, 4, 4, 1]


def test_who_goes_on_after_a_429_is_banned() -> None:
    """After three refusals without a wait come 418 and Retry-After; a call during a ban is a violation."""

    async def scenario(sandbox: Sandbox) -> None:
        path = "/usdt_futures/fapi/v1/klines"
        for _ in range(8):
            await asyncio.gather(*(get(sandbox, path, limit=1500, symbol="NOSUCH") for _ in range(30)))
        assert not sandbox.violations
        statuses = []
        for _ in range(5):
            status, body, headers = await get(sandbox, "/coin_futures/dapi/v1/time")
            statuses.append(status)
            assert int(headers["Retry-After"]) > 0
            assert body["code"] == -1003
        assert statuses == [429, 429, 429, 418, 418]
        assert sandbox.violations == {"weight": 3, "ban": 1, "retry_after": 1}
        assert (await get(sandbox, "/spot/api/v3/time"))[0] == 200

    run(scenario, STILL)


def test_a_new_minute_begins_anew() -> None:
    """Weight and refusals reset each minute, and bans last their time."""
    budget = WeightLimit()
    most = WEIGHT_MAX["spot"]
    assert budget.spend("spot", "me", most, 10.0).status == 200
    assert [budget.spend("spot", "me", 1, 58.0 + at).status for at in (0, 0.1, 0.2, 0.3)] == [
        429, 429, 429, 418,
    ]  # fmt: skip
    assert budget.spend("spot", "you", 1, 58.0).status == 200
    banned = budget.spend("spot", "me", 1, 60.1)
    assert (banned.status, banned.wait_s, banned.violation) == (418, 1, "retry_after")
    assert budget.spend("spot", "me", 1, 58.3 + BAN_S).status == 200


def test_a_second_refusal_may_not_be_known_yet() -> None:
    """A call that was in flight is refused, too. Its longer wait binds after it can have been heard of."""
    limit = WeightLimit()
    limit.require_wait("spot", "me", 10.0, 11.0)
    limit.require_wait("spot", "me", 10.8, 11.8)

    def violation(now_s: float) -> str:
        return limit.spend("spot", "me", 1, now_s).violation

    assert [violation(now_s) for now_s in (10.85, 10.95)] == ["", "retry_after"]
    assert [violation(now_s) for now_s in (11.05, 11.65)] == ["", ""]
    assert [violation(now_s) for now_s in (11.75, 11.85)] == ["retry_after", ""]


@EVERY_MARKET
def test_only_coin_futures_refuse_more_than_200_days(market: str) -> None:
    """A range of 200 days and one millisecond is an error on COIN-M only."""

    async def scenario(sandbox: Sandbox) -> None:
        symbol = MARKET_SYMBOLS[market]
        params = {"startTime": START_MS - 200 * DAY_MS, "endTime": START_MS, "limit": 5}
        assert len(await klines(sandbox, market, symbol, "1d", **params)) == 5
        longer = await klines(sandbox, market, symbol, "1d", **{**params, "endTime": START_MS + 1})
        assert longer["code"] == -1130 if market == "coin_futures" else len(longer) == 5

    run(scenario, STILL)


@EVERY_MARKET
def test_thousands_of_symbols(market: str) -> None:
    """A market can list 3,000 trading symbols; a short list is a part of a long one."""

    async def scenario(sandbox: Sandbox) -> None:
        symbols = sandbox.symbols(market)
        assert len(set(symbols)) == 3000
        generated = [symbol for symbol in symbols if symbol.startswith("A0")]
        assert generated[0] == ("A001USD_PERP" if market == "coin_futures" else "A001USDT")
        last = symbols[-1]
        assert len(last.removesuffix("USD_PERP").removesuffix("USDT")) == 5
        _, info, _ = await get(sandbox, f"/{market}{MARKETS[market].rest_path}/exchangeInfo")
        assert {item["symbol"] for item in info["symbols"]} > set(symbols)
        async with dial(sandbox, market, f"/ws/{last.lower()}@kline_1m") as ws:
            (event,) = await closed_candles(ws, 1)
            truth = sandbox.truth.candle(market, last, "1m", event["k"]["t"])
            assert event["k"]["v"] == truth.volume

    run(scenario, SandboxOptions(speed=3000, start_ms=START_MS, symbols=3000, push_every_ms=0))
