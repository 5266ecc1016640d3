"""The doors to the exchange, one for each market that is used: endpoints, REST, time, attempts.

What the exchange counts by address is shared here: the weight of a pool, the
connection attempts at a host.
"""

from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import urlsplit

import aiohttp

from lakewriter.binance.budget import WeightBudget
from lakewriter.binance.gate import ConnectGate, Kept
from lakewriter.binance.rest import HOLD_MAX_S, RestClient
from lakewriter.clock import Clock, ExchangeTime
from lakewriter.market import Market
from lakewriter.restraint import Restraint


class Door(NamedTuple):
    """What it takes to talk to one market.

    Args:
        market: its endpoints and limits.
        rest: asks it.
        time: what time it is there.
        gate: lets connection attempts through.
    """

    market: Market
    rest: RestClient
    time: ExchangeTime
    gate: ConnectGate


class Doors:
    """Makes each market's door when it is first used.

    Args:
        endpoints: a market by its name, with the endpoints that hold for it.
        session: for all REST calls; the caller closes it.
        clock: the machine's.
        restraint: what an earlier process left.
    """

    def __init__(
        self,
        endpoints: Callable[[str], Market],
        session: aiohttp.ClientSession,
        clock: Clock,
        restraint: Restraint | None = None,
    ) -> None:
        self._restraint = restraint or Restraint()
        self._endpoints = endpoints
        self._session = session
        self._clock = clock
        self._doors: dict[str, Door] = {}
        self._budgets: dict[str, WeightBudget] = {}
        self._gates: dict[str, ConnectGate] = {}

    def __getitem__(self, name: str) -> Door:
        if name not in self._doors:
            market = self._endpoints(name)
            host = urlsplit(market.stream_url).netloc
            self._doors[name] = Door(
                market,
                RestClient(market, self._session, self._budget(market), self._clock),
                ExchangeTime(self._clock),
                self._gate(host),
            )
        return self._doors[name]

    def restraint(self) -> Restraint:
        """Return what the next process has to know."""
        wall_s, now_s = self._clock.wall_us() / 1_000_000, self._clock.monotonic_s()
        held_s = {name: budget.held_s(now_s) for name, budget in self._budgets.items()}
        kept = {host: gate.kept() for host, gate in self._gates.items()}
        held_s |= {host: each.held_s for host, each in kept.items()}
        return Restraint(
            {name: round(wall_s + each_s, 1) for name, each_s in held_s.items() if each_s},
            {host: [round(wall_s - age_s, 1) for age_s in each.ages_s] for host, each in kept.items()},
        )

    def _gate(self, host: str) -> ConnectGate:
        if host not in self._gates:
            self._gates[host] = ConnectGate(clock=self._clock)
            wall_s = self._clock.wall_us() / 1_000_000
            ages_s = [wall_s - tried_s for tried_s in self._restraint.attempts_s.get(host, ())]
            self._gates[host].resume(Kept(self._held_s(host), [age_s for age_s in ages_s if age_s >= 0]))
        return self._gates[host]

    def _budget(self, market: Market) -> WeightBudget:
        # The futures hosts share one pool; of anything else each host has its own.
        futures = market.weight_pool == "futures"
        name = "REST futures" if futures else f"REST {urlsplit(market.rest_url).netloc}"
        if name not in self._budgets:
            self._budgets[name] = WeightBudget(market.weight_max)
            if held_s := self._held_s(name):
                self._budgets[name].hold(held_s, self._clock.monotonic_s())
        return self._budgets[name]

    def _held_s(self, name: str) -> float:
        held_s = self._restraint.held_until_s.get(name, 0.0) - self._clock.wall_us() / 1_000_000
        # A wall clock that was set back must not hold us for years.
        return min(max(0.0, held_s), HOLD_MAX_S)
