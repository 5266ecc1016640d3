"""The state that all connections of one market share."""

import asyncio
from typing import NamedTuple

from lakewriter.sandbox.exchange import SimulatedExchange
from lakewriter.sandbox.streams.feed import Feeds
from lakewriter.sandbox.truth.catalogue import Catalogue


class MarketContext(NamedTuple):
    """One market of the exchange, with its streams.

    Args:
        market: its name.
        exchange: the exchange.
        feeds: the market's streams.
        open_gate: set while frames may be sent.
        push_every_ms: real time between frames of an open candle; 0 for none.
        ping_every_s: real time between pings.
        recording: (real seconds, frame) to send instead of candles; None for candles.
    """

    market: str
    exchange: SimulatedExchange
    feeds: Feeds
    open_gate: asyncio.Event
    push_every_ms: float
    ping_every_s: float
    recording: list[tuple[float, bytes]] | None

    @property
    def catalogue(self) -> Catalogue:
        """The market's catalogue."""
        return self.exchange.catalogues[self.market]
