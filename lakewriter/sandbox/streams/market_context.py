"""The shared state of all connections of one market."""

import asyncio
from typing import NamedTuple

from lakewriter.sandbox.exchange import SimulatedExchange
from lakewriter.sandbox.streams.feed import Feeds
from lakewriter.sandbox.truth.catalogue import SymbolCatalogue


class MarketContext(NamedTuple):
    """One market of the exchange, with its streams.

    Args:
        market: the market's name.
        exchange: the exchange.
        feeds: the market's streams.
        open_gate: an event that is set while frames may be sent.
        push_every_ms: real time between frames of an open candle; 0 to send no such frames.
        ping_every_s: real time between pings.
        recording: recorded frames to send instead of candles, with their times in real
            seconds; None to send candles.
    """

    market: str
    exchange: SimulatedExchange
    feeds: Feeds
    open_gate: asyncio.Event
    push_every_ms: float
    ping_every_s: float
    recording: list[tuple[float, bytes]] | None

    @property
    def catalogue(self) -> SymbolCatalogue:
        """The market's catalogue."""
        return self.exchange.catalogues[self.market]
