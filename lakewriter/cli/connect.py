"""How commands reach the exchange: one way to make its clients, with what a lake knows of bans and weight."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from lakewriter.binance.market_clients import MarketClients
from lakewriter.binance.network import Network
from lakewriter.clock import Clock
from lakewriter.lake.exchange_limits import WeightFile, read_rate_limits
from lakewriter.lake.root import STATE_DIRECTORY
from lakewriter.market import Market


def clients_of(
    root: Path,
    endpoints: Callable[[str], Market],
    session: Network,
    clock: Clock,
    *,
    max_weight: int | None = None,
) -> MarketClients:
    """Return the ways to the exchange for a lake.

    Args:
        root: the lake's; nothing is made where there is none yet.
        endpoints: a market by its name, with the endpoints that hold for it.
        session: for all calls; the caller closes it.
        max_weight: what background work may spend of each pool in a minute.
    """
    shared = partial(WeightFile, root) if (root / STATE_DIRECTORY).is_dir() else None
    return MarketClients(
        endpoints, session, clock, read_rate_limits(root), shared_files=shared, max_weight=max_weight
    )
