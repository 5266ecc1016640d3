"""Create the exchange clients of a command, with the lake's record of bans and weight."""

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
    """Return the exchange clients for a lake.

    Args:
        root: the lake's state directory; nothing is created if it is absent.
        endpoints: returns a market with its configured endpoints, by name.
        session: the connections of all calls; the caller closes it.
        max_weight: the weight that background work may use of each pool in a minute.
    """
    shared = partial(WeightFile, root) if (root / STATE_DIRECTORY).is_dir() else None
    return MarketClients(
        endpoints, session, clock, read_rate_limits(root), shared_files=shared, max_weight=max_weight
    )
