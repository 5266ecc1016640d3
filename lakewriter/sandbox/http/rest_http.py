"""The sandbox's REST calls over HTTP, with their limits and faults.

This module counts the weight of callers and applies faults. `rest` makes the answers.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping

import msgspec
from aiohttp import web

from lakewriter.interval import BY_WIRE_NAME
from lakewriter.market import MARKETS
from lakewriter.sandbox.exchange import SimulatedExchange
from lakewriter.sandbox.faults.caller_limits import Verdict, WeightLimit
from lakewriter.sandbox.faults.table import Fault
from lakewriter.sandbox.http import rest
from lakewriter.sandbox.http.exchange_info import exchange_info

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

# Statuses that require a wait. Their body is JSON. The body of other refusals is a proxy's HTML.
_TOO_MANY = (418, 429)


class RestHttp:
    """The handlers of the REST calls.

    Args:
        exchange: the exchange, which counts calls and violations.
    """

    def __init__(self, exchange: SimulatedExchange) -> None:
        self._exchange = exchange
        self._weight_limit = WeightLimit()

    def add_routes(self, app: web.Application) -> None:
        """Add the routes of the calls of all markets."""
        for name, market in MARKETS.items():
            for call in ("klines", "time", "ping", "exchangeInfo"):
                app.router.add_get(f"/{name}{market.rest_path}/{call}", self._handler(name, call))

    def _handler(self, market: str, call: str) -> _Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            self._exchange.requests[call] += 1
            caller = request.remote or ""
            weight = _weight(market, call, request.query)
            verdict = self._weight_limit.spend(market, caller, weight, self._exchange.clock.real_s())
            if verdict.violation:
                self._exchange.violations[verdict.violation] += 1
            headers = {"x-mbx-used-weight-1m": str(verdict.used)}
            if market == "spot":
                headers["x-mbx-used-weight"] = str(verdict.used)
            if verdict.status != 200:
                return _refusal_response(verdict, headers)
            refused = self._active("rest_status", market, request)
            if refused is not None:
                wait_s = math.ceil(refused.retry_after_s)
                if refused.value in _TOO_MANY and wait_s:
                    now_s = self._exchange.clock.real_s()
                    self._weight_limit.require_wait(market, caller, now_s, now_s + refused.retry_after_s)
                return _refusal_response(Verdict(verdict.used, int(refused.value), wait_s), headers)
            slow = self._active("slow_rest", market, request)
            if slow is not None:
                await asyncio.sleep(slow.value)
            answer = await self._answer(market, call, request)
            return _json_response(answer, headers)

        return handle

    def _active(self, name: str, market: str, request: web.Request) -> Fault | None:
        symbol, wire_name = request.query.get("symbol", ""), request.query.get("interval", "")
        grid = BY_WIRE_NAME.get(wire_name)
        interval = "" if grid is None else grid.name
        return self._exchange.faults.active(
            name, market, symbol, interval, now_ms=self._exchange.clock.now_ms()
        )

    async def _answer(self, market: str, call: str, request: web.Request) -> rest.RestAnswer:
        now_ms = self._exchange.clock.now_ms()
        catalogue = self._exchange.catalogues[market]
        if call == "klines":
            # The computation of years of candles takes seconds, and must not delay the streams.
            return await asyncio.to_thread(
                rest.klines,
                catalogue,
                self._exchange.faults,
                self._exchange.truth,
                dict(request.query),
                now_ms,
            )
        if call == "time":
            return rest.RestAnswer(200, {"serverTime": self._server_time(market, now_ms)})
        if call == "exchangeInfo":
            return rest.RestAnswer(200, exchange_info(market, catalogue.listed(now_ms), now_ms))
        return rest.RestAnswer(200, {})

    def _server_time(self, market: str, now_ms: int) -> int:
        offset = self._exchange.faults.active("time_off", market, now_ms=now_ms)
        wrong_ms = now_ms if offset is None else now_ms + round(offset.value * 1000)
        return (
            wrong_ms * 1000
            if self._exchange.faults.active("time_microseconds", market, now_ms=now_ms)
            else wrong_ms
        )


def _weight(market: str, call: str, params: Mapping[str, str]) -> int:
    if call == "klines":
        return rest.klines_weight(market, params)
    return 20 if call == "exchangeInfo" and market == "spot" else 1


def _refusal_response(verdict: Verdict, headers: dict[str, str]) -> web.Response:
    if verdict.wait_s:
        headers["Retry-After"] = str(verdict.wait_s)
    if verdict.status in _TOO_MANY:
        return _json_response(
            rest.RestAnswer(verdict.status, {"code": -1003, "msg": "Too many requests."}), headers
        )
    text = f"<html><body><h1>{verdict.status}</h1></body></html>"
    return web.Response(text=text, status=verdict.status, headers=headers, content_type="text/html")


def _json_response(answer: rest.RestAnswer, headers: dict[str, str]) -> web.Response:
    body = msgspec.json.encode(answer.body)
    return web.Response(body=body, status=answer.status, headers=headers, content_type="application/json")
