"""The client of each market: its endpoints, REST, archive, time and connection gate.

The exchange counts limits by IP address, so the clients share them here. Markets
share the weight of their pool, also with other processes. They share the connection
attempts of their host.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple
from urllib.parse import urlsplit

from lakewriter.binance.archive import ArchiveClient
from lakewriter.binance.connect_limiter import ConnectGate, GateState
from lakewriter.binance.network import Network
from lakewriter.binance.rest import RestClient
from lakewriter.binance.weight_budget import HOLD_MAX_S
from lakewriter.binance.weight_pool import WeightPool
from lakewriter.clock import Clock, ExchangeTime
from lakewriter.errors import UsageError
from lakewriter.market import Market
from lakewriter.rate_limit_state import RateLimitState, SharedFile


class MarketClient(NamedTuple):
    """The access to one market.

    Args:
        market: the market, with its endpoints and limits.
        rest: the client of its REST API.
        archive: the client of its public archive.
        pool: the request weight of its REST API.
        time: the exchange's time.
        gate: limits connection attempts.
    """

    market: Market
    rest: RestClient
    archive: ArchiveClient
    pool: WeightPool
    time: ExchangeTime
    gate: ConnectGate


class MarketClients:
    """The client of each market, created at first use.

    Args:
        endpoints: returns a market by its name, with the endpoints to use.
        session: the session of all REST calls; the caller closes it.
        clock: the machine's clock.
        rate_limit_state: the state of an earlier process.
        shared_files: returns the shared file of a pool by its name; None without sharing.
        max_weight: limit of background work in each pool per minute; None for the budget's own limit.
    """

    def __init__(
        self,
        endpoints: Callable[[str], Market],
        session: Network,
        clock: Clock,
        rate_limit_state: RateLimitState | None = None,
        *,
        shared_files: Callable[[str], SharedFile] | None = None,
        max_weight: int | None = None,
    ) -> None:
        self._rate_limit_state = rate_limit_state or RateLimitState()
        self._endpoints = endpoints
        self._session = session
        self._clock = clock
        self._clients: dict[str, MarketClient] = {}
        self._shared_files = shared_files
        self._max_weight = max_weight
        self._pools: dict[str, WeightPool] = {}
        # A separate thread, because a request must not wait for a merge.
        self._thread = ThreadPoolExecutor(1, "weight")
        self._gates: dict[str, ConnectGate] = {}

    def __getitem__(self, name: str) -> MarketClient:
        if name not in self._clients:
            market = self._endpoints(name)
            host = urlsplit(market.stream_url).netloc
            pool = self._pool(market)
            self._clients[name] = MarketClient(
                market,
                RestClient(market, self._session, pool, self._clock),
                ArchiveClient(market, self._session, self._clock),
                pool,
                ExchangeTime(self._clock),
                self._gate(host),
            )
        return self._clients[name]

    @property
    def pools(self) -> list[WeightPool]:
        """The pools of request weight of the markets used so far."""
        return list(self._pools.values())

    def exchange_ms(self) -> int | None:
        """Return the exchange's time, or None if no market's time is known."""
        known = [client.time.now_ms() for client in self._clients.values() if client.time.known]
        return min(known, default=None)

    def rate_limit_state(self) -> RateLimitState:
        """Return the state for the next process."""
        wall_s = self._clock.wall_us() / 1_000_000
        states = {host: gate.export_state() for host, gate in self._gates.items()}
        return RateLimitState(
            {host: round(wall_s + state.held_s, 1) for host, state in states.items() if state.held_s},
            {host: [round(wall_s - age_s, 1) for age_s in state.ages_s] for host, state in states.items()},
        )

    def _gate(self, host: str) -> ConnectGate:
        if host not in self._gates:
            self._gates[host] = ConnectGate(clock=self._clock)
            wall_s = self._clock.wall_us() / 1_000_000
            ages_s = [wall_s - tried_s for tried_s in self._rate_limit_state.attempts_s.get(host, ())]
            self._gates[host].restore_state(
                GateState(self._held_s(host), [age_s for age_s in ages_s if age_s >= 0])
            )
        return self._gates[host]

    def _pool(self, market: Market) -> WeightPool:
        # The futures hosts share one weight pool. All other limits belong to one host.
        futures = market.weight_pool == "futures"
        name = "REST futures" if futures else f"REST {urlsplit(market.rest_url).netloc}"
        if name not in self._pools:
            _check_max_weight(self._max_weight, market)
            self._pools[name] = WeightPool(
                name,
                market.weight_max,
                self._clock,
                shared_file=None if self._shared_files is None else self._shared_files(name),
                thread=self._thread,
                background_max=self._max_weight,
            )
        return self._pools[name]

    def _held_s(self, host: str) -> float:
        held_s = self._rate_limit_state.held_until_s.get(host, 0.0) - self._clock.wall_us() / 1_000_000
        # After the wall clock was set back, a block must not last for years.
        return min(max(0.0, held_s), HOLD_MAX_S)


def _check_max_weight(max_weight: int | None, market: Market) -> None:
    """Check that a weight limit allows one page, and is within the exchange's limit.

    Raises:
        UsageError: if one of the checks fails.
    """
    if max_weight is None:
        return
    least, most = market.klines_weight(market.klines_page), market.weight_max
    if not least <= max_weight <= most:
        raise UsageError(
            f"max-weight: {max_weight} a minute is not between {least}, one page's, and {most}, "
            f"what {market.name} allows",
            f"--max-weight {most // 4}",
        )
