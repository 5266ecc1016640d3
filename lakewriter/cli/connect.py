"""The creation of a command's exchange clients, with the lake's record of bans and weight."""

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
        root: the local directory whose `_lakewriter` has the lake's state. An absent
            `_lakewriter` is not created.
        endpoints: returns the market of a name, with its configured endpoints.
        session: the connections of all calls, which the caller closes.
        clock: the clock of the clients.
        max_weight: the maximum weight per minute that background work may use of each
            pool; None is the default.
    """
    shared = partial(WeightFile, root) if (root / STATE_DIRECTORY).is_dir() else None
    return MarketClients(
        endpoints, session, clock, read_rate_limits(root), shared_files=shared, max_weight=max_weight
    )
