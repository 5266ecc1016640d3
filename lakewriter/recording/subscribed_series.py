"""The subscribed series: from subscriptions to series, by the lists of the exchange.

A symbol named in full is always listened to. It is expected while it trades; so
are the symbols that match a glob.
"""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from lakewriter.binance.market_clients import MarketClients
from lakewriter.binance.rest import RestError
from lakewriter.errors import UsageError
from lakewriter.instrument import Instrument
from lakewriter.series import Series
from lakewriter.subscription import Subscription, is_glob, matching

log = logging.getLogger(__name__)

_RETRY_S = 5.0

# A list in which a smaller share of symbols trades than before is requested once more.
_SHRINK_SHARE_MIN = 0.5
_SHRINK_FROM = 20

Listed = Mapping[str, Mapping[str, Instrument]]


class ResolvedSubscriptions(NamedTuple):
    """The series to record.

    Args:
        listened: a stream is subscribed to.
        expected: each candle has to be in the lake, or explained.
    """

    listened: frozenset[Series]
    expected: frozenset[Series]


def resolve(subscriptions: Iterable[Subscription], listed: Listed) -> ResolvedSubscriptions:
    """Return the series of the subscriptions.

    Args:
        listed: by market and symbol; a market whose list is not known yet is
            absent, and its globs match nothing.
    """
    listened: set[Series] = set()
    expected: set[Series] = set()
    for subscription in subscriptions:
        market = subscription.market
        known = listed.get(market)
        trading = [symbol for symbol, each in (known or {}).items() if each.trades]
        for name in subscription.symbols:
            symbols = matching(name, trading) if is_glob(name) else [name]
            for symbol in symbols:
                series = [Series(market, symbol, interval) for interval in subscription.intervals]
                listened.update(series)
                if known is None or (symbol in known and known[symbol].trades):
                    expected.update(series)
    return ResolvedSubscriptions(frozenset(listened), frozenset(expected))


class SubscribedSeries:
    """The subscriptions, and the instruments of each market.

    Args:
        subscriptions: to begin with.
        clients: for requests.

    Attributes:
        listed: instruments by market and symbol.
        as_of_ms: when a market's list was requested.
    """

    def __init__(self, subscriptions: Iterable[Subscription], clients: MarketClients) -> None:
        self.subscriptions = list(subscriptions)
        self.listed: dict[str, dict[str, Instrument]] = {}
        self.as_of_ms: dict[str, int] = {}
        self._clients = clients
        self._doubted: set[str] = set()
        self._warned: set[tuple[str, str]] = set()

    @property
    def markets(self) -> list[str]:
        """The markets that are subscribed to, each once, in their order."""
        return list(dict.fromkeys(subscription.market for subscription in self.subscriptions))

    def resolve(self) -> ResolvedSubscriptions:
        """Return the series of the present subscriptions."""
        return resolve(self.subscriptions, self.listed)

    def covers(self, series: Series) -> bool:
        """Return whether a subscription includes a series, or would if it traded."""
        return any(
            subscription.market == series.market
            and series.interval in subscription.intervals
            and any(name == series.symbol or matching(name, [series.symbol]) for name in subscription.symbols)
            for subscription in self.subscriptions
        )

    def instrument(self, series: Series) -> Instrument | None:
        """Return the instrument of a series from the last list; None if it is not listed."""
        return self.listed.get(series.market, {}).get(series.symbol)

    async def first(self) -> None:
        """Request the lists of markets with globs, until all have answered.

        Raises:
            UsageError: if a glob matches nothing that trades.
        """
        for market in self.markets:
            globs = [
                name
                for subscription in self.subscriptions
                if subscription.market == market
                for name in subscription.symbols
                if is_glob(name)
            ]
            if not globs:
                continue
            while market not in self.listed:
                try:
                    await self.refresh(market)
                except RestError as error:
                    log.warning("%s; trying again in %.0f s", error, _RETRY_S)
                    await asyncio.sleep(_RETRY_S)
            trading = [symbol for symbol, each in self.listed[market].items() if each.trades]
            for glob in globs:
                if not matching(glob, trading):
                    raise UsageError(f"symbol: {glob!r} matches nothing that trades on {market}")

    async def refresh(self, market: str) -> list[Instrument]:
        """Request a market's list; return it, or an empty one if it is not believed yet.

        Raises:
            RestError: if it does not answer.
        """
        client = self._clients[market]
        asked_ms = client.time.now_ms() if client.time.known else None
        instruments = await client.rest.instruments()
        before = sum(each.trades for each in self.listed.get(market, {}).values())
        trading = sum(each.trades for each in instruments)
        if before >= _SHRINK_FROM and trading < before * _SHRINK_SHARE_MIN and market not in self._doubted:
            self._doubted.add(market)
            log.warning(
                "%s: exchangeInfo says that %d symbols trade, where it were %d; asking once more before"
                " anything is left",
                market,
                trading,
                before,
            )
            return []
        self._doubted.discard(market)
        self.listed[market] = {each.symbol: each for each in instruments}
        if asked_ms is not None:
            self.as_of_ms[market] = asked_ms
        return instruments

    def warn_of_unlisted(self, market: str) -> None:
        """Log, once each, the symbols and globs that stand for nothing that the market lists and trades.

        Such a subscription is acknowledged and stays silent; it may be a spelling
        mistake, or a listing to come.
        """
        known = self.listed.get(market)
        if known is None:
            return
        trading = [symbol for symbol, each in known.items() if each.trades]
        named = {name for each in self.subscriptions if each.market == market for name in each.symbols}
        for name in sorted(named):
            instrument = known.get(name)
            if (
                (instrument is not None and instrument.trades)
                or (is_glob(name) and matching(name, trading))
                or (market, name) in self._warned
            ):
                continue
            self._warned.add((market, name))
            if is_glob(name):
                log.warning("%s: %s matches nothing that trades", market, name)
            elif instrument is None:
                log.warning("%s does not list %s; listening all the same", market, name)
            else:
                log.warning(
                    "%s %s does not trade (%s); listening all the same", market, name, instrument.status
                )
