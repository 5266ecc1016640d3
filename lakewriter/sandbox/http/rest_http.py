"""The sandbox's REST calls over HTTP, with their limits and faults.

It counts what callers do, lets calls go wrong, and leaves the answers to `rest`.
"""

import asyncio
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping

import msgspec
from aiohttp import web

from lakewriter.interval import BY_WIRE_NAME
from lakewriter.market import MARKETS
from lakewriter.sandbox.clock import SimClock
from lakewriter.sandbox.faults.caller_limits import Verdict, WeightLimit
from lakewriter.sandbox.faults.table import Fault, Faults
from lakewriter.sandbox.http import rest
from lakewriter.sandbox.truth.candles import Truth
from lakewriter.sandbox.truth.catalogue import Catalogue
from lakewriter.sandbox.truth.symbols import exchange_info

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

# Statuses that mean "wait", and are answered in JSON; the others come from a proxy in front.
_TOO_MANY = (418, 429)


class Calls:
    """Whoever answers REST calls.

    Args:
        catalogues: by market.
        violations: broken limits, by kind; counted here.
        requests: calls, by kind; counted here.
    """

    def __init__(
        self,
        *,
        catalogues: Mapping[str, Catalogue],
        truth: Truth,
        faults: Faults,
        clock: SimClock,
        violations: Counter[str],
        requests: Counter[str],
    ) -> None:
        self._catalogues = catalogues
        self._truth = truth
        self._faults = faults
        self._clock = clock
        self._violations = violations
        self._requests = requests
        self._budget = WeightLimit()

    def add_routes(self, app: web.Application) -> None:
        """Give the calls of all markets to their handlers."""
        for name, market in MARKETS.items():
            for call in ("klines", "time", "ping", "exchangeInfo"):
                app.router.add_get(f"/{name}{market.rest_path}/{call}", self._rest_of(name, call))

    def _rest_of(self, market: str, call: str) -> _Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            self._requests[call] += 1
            caller = request.remote or ""
            weight = _weight(market, call, request.query)
            verdict = self._budget.spend(market, caller, weight, self._clock.real_s())
            if verdict.broken:
                self._violations[verdict.broken] += 1
            headers = {"x-mbx-used-weight-1m": str(verdict.used)}
            if market == "spot":
                headers["x-mbx-used-weight"] = str(verdict.used)
            if verdict.status != 200:
                return _refusal(verdict, headers)
            refused = self._active("rest_status", market, request)
            if refused is not None:
                wait_s = math.ceil(refused.retry_after_s)
                if refused.value in _TOO_MANY and wait_s:
                    now_s = self._clock.real_s()
                    self._budget.tell_to_wait(market, caller, now_s, now_s + refused.retry_after_s)
                return _refusal(Verdict(verdict.used, int(refused.value), wait_s), headers)
            slow = self._active("slow_rest", market, request)
            if slow is not None:
                await asyncio.sleep(slow.value)
            answer = await self._answer(market, call, request)
            return _json(answer, headers)

        return handle

    def _active(self, name: str, market: str, request: web.Request) -> Fault | None:
        symbol, wire_name = request.query.get("symbol", ""), request.query.get("interval", "")
        grid = BY_WIRE_NAME.get(wire_name)
        interval = "" if grid is None else grid.name
        return self._faults.active(name, market, symbol, interval, now_ms=self._clock.now_ms())

    async def _answer(self, market: str, call: str, request: web.Request) -> rest.RestAnswer:
        now_ms = self._clock.now_ms()
        catalogue = self._catalogues[market]
        if call == "klines":
            # Years of candles take seconds to compute; the streams go on meanwhile.
            return await asyncio.to_thread(
                rest.klines, catalogue, self._faults, self._truth, dict(request.query), now_ms
            )
        if call == "time":
            return rest.RestAnswer(200, {"serverTime": self._server_time(market, now_ms)})
        if call == "exchangeInfo":
            return rest.RestAnswer(200, exchange_info(market, catalogue.listed(now_ms), now_ms))
        return rest.RestAnswer(200, {})

    def _server_time(self, market: str, now_ms: int) -> int:
        off = self._faults.active("time_off", market, now_ms=now_ms)
        told_ms = now_ms if off is None else now_ms + round(off.value * 1000)
        return told_ms * 1000 if self._faults.active("time_microseconds", market, now_ms=now_ms) else told_ms


def _weight(market: str, call: str, params: Mapping[str, str]) -> int:
    if call == "klines":
        return rest.klines_weight(market, params)
    return 20 if call == "exchangeInfo" and market == "spot" else 1


def _refusal(verdict: Verdict, headers: dict[str, str]) -> web.Response:
    if verdict.wait_s:
        headers["Retry-After"] = str(verdict.wait_s)
    if verdict.status in _TOO_MANY:
        return _json(rest.RestAnswer(verdict.status, {"code": -1003, "msg": "Too many requests."}), headers)
    text = f"<html><body><h1>{verdict.status}</h1></body></html>"
    return web.Response(text=text, status=verdict.status, headers=headers, content_type="text/html")


def _json(answer: rest.RestAnswer, headers: dict[str, str]) -> web.Response:
    body = msgspec.json.encode(answer.body)
    return web.Response(body=body, status=answer.status, headers=headers, content_type="application/json")
