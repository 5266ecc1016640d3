"""A sandbox in a test, and clients of its sockets."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from websockets.asyncio.client import ClientConnection, connect

from lakewriter.market import MARKETS
from lakewriter.sandbox import Sandbox, SandboxOptions, serve
from support.running import PATIENCE_S

START_MS = 1_767_225_600_000  # 2026-01-01
MARKET_ROUTES = {"spot": "", "usdt_futures": "/market", "coin_futures": ""}
MARKET_SYMBOLS = {"spot": "BTCUSDT", "usdt_futures": "BTCUSDT", "coin_futures": "BTCUSD_PERP"}
EVERY_MARKET = pytest.mark.parametrize("market", MARKET_ROUTES)

# One candle of a minute takes 20 ms.
FAST = SandboxOptions(speed=3000, start_ms=START_MS, push_every_ms=7)
QUIET = SandboxOptions(speed=3000, start_ms=START_MS, push_every_ms=0)


def run(scenario: Callable[[Sandbox], Awaitable[None]], options: SandboxOptions = FAST) -> None:
    async def main() -> None:
        async with asyncio.timeout(PATIENCE_S), serve(options) as sandbox:
            await scenario(sandbox)

    asyncio.run(main())


def dial(sandbox: Sandbox, market: str, path: str, route: str | None = None, **kwargs: Any) -> connect:
    """Connect to a market; unread frames do not delay the close."""
    route = MARKET_ROUTES[market] if route is None else route
    return connect(
        f"ws{sandbox.url.removeprefix('http')}/{market}{route}{path}", **{"max_queue": None, **kwargs}
    )


async def ask(ws: ClientConnection, method: str, *params: Any, request_id: Any = 1) -> Any:
    """Send a request, and return its answer; skip candles."""
    await ws.send(json.dumps({"method": method, "params": params, "id": request_id}))
    while True:
        answer = json.loads(await ws.recv())
        if "e" not in answer and "stream" not in answer:
            return answer


async def closed_candles(ws: ClientConnection, count: int) -> list[dict[str, Any]]:
    """Return the next closed candles, raw or combined."""
    found = []
    while len(found) < count:
        frame = json.loads(await ws.recv())
        event = frame.get("data", frame)
        if event.get("e") == "kline" and event["k"]["x"]:
            found.append(event)
    return found


def values(k: dict[str, Any]) -> tuple[Any, ...]:
    return (
        k["t"], k["T"] + 1, k["o"], k["h"], k["l"], k["c"],
        k["v"], k["q"], k["n"], k["V"], k["Q"], k["f"], k["L"],
    )  # fmt: skip


async def get(sandbox: Sandbox, path: str, **params: Any) -> tuple[int, Any, Any]:
    """Return status, content and headers of a GET."""
    return await call(sandbox, "GET", path, params=params)


async def call(sandbox: Sandbox, method: str, path: str, **given: Any) -> tuple[int, Any, Any]:
    """Return status, content and headers of a request."""
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, sandbox.url + path, **given) as response,
    ):
        content = await response.read()
        if response.content_type == "application/json":
            return response.status, json.loads(content), response.headers
        return response.status, content, response.headers


async def klines(sandbox: Sandbox, market: str, symbol: str, interval: str = "1m", **params: Any) -> Any:
    """Return the body of a klines answer."""
    path = f"/{market}{MARKETS[market].rest_path}/klines"
    return (await get(sandbox, path, symbol=symbol, interval=interval, **params))[1]
