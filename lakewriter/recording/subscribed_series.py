"""The subscribed series: subscriptions, resolved to series by the exchange's lists.

A symbol named in full is always listened to. It is expected while it trades. A
symbol that matches a glob is listened to and expected while it trades.
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

# A list is requested once more if its number of trading symbols shrinks below this
# share. The previous list must have at least _SHRINK_FROM trading symbols.
_SHRINK_SHARE_MIN = 0.5
_SHRINK_FROM = 20

Listed = Mapping[str, Mapping[str, Instrument]]


class ResolvedSubscriptions(NamedTuple):
    """The series to record.

    Args:
        listened: series whose stream is subscribed to.
        expected: series whose candles each have to be in the lake, or explained.
    """

    listened: frozenset[Series]
    expected: frozenset[Series]


def resolve(subscriptions: Iterable[Subscription], listed: Listed) -> ResolvedSubscriptions:
    """Return the series of the subscriptions.

    Args:
        listed: instruments by market and symbol. A market whose list is not known
            yet is absent; its globs match nothing.
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
        subscriptions: the first subscriptions.
        clients: send the requests.

    Attributes:
        listed: instruments by market and symbol.
        as_of_ms: request time of each market's list.
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
        """The markets of the subscriptions, without duplicates, in their order."""
        return list(dict.fromkeys(subscription.market for subscription in self.subscriptions))

    def resolve(self) -> ResolvedSubscriptions:
        """Return the series of the present subscriptions."""
        return resolve(self.subscriptions, self.listed)

    def covers(self, series: Series) -> bool:
        """Return whether a subscription includes a series, even if the series does not trade."""
        return any(
            subscription.market == series.market
            and series.interval in subscription.intervals
            and any(name == series.symbol or matching(name, [series.symbol]) for name in subscription.symbols)
            for subscription in self.subscriptions
        )

    def instrument(self, series: Series) -> Instrument | None:
        """Return the instrument of a series from the last list; None if the list lacks it."""
        return self.listed.get(series.market, {}).get(series.symbol)

    def is_halted(self, market: str) -> bool:
        """Return whether the last list has no symbol that trades; False if no list is known."""
        listed = self.listed.get(market)
        return listed is not None and not any(each.trades for each in listed.values())

    async def first(self) -> None:
        """Fetch the lists of all markets with globs; retry until each lists a symbol.

        A glob whose symbols do not trade is no mistake: in a halt of the whole
        exchange no symbol trades, and a recorder that starts then has to record
        as soon as trading resumes.

        Raises:
            UsageError: if a glob matches no listed symbol.
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
            while not self.listed.get(market):
                try:
                    if await self.refresh(market):
                        break
                    why = f"{market}: exchangeInfo lists no symbol"
                except RestError as error:
                    why = str(error)
                log.warning("%s; trying again in %.0f s", why, _RETRY_S)
                await asyncio.sleep(_RETRY_S)
            for glob in globs:
                if not matching(glob, list(self.listed[market])):
                    raise UsageError(f"symbol: {glob!r} matches nothing that is listed on {market}")

    async def refresh(self, market: str) -> list[Instrument]:
        """Fetch a market's list and return it; return an empty list if it is not trusted yet.

        Raises:
            RestError: if the request fails.
        """
        client = self._clients[market]
        asked_ms = client.time.now_ms() if client.time.known else None
        instruments = await client.rest.instruments()
        before = sum(each.trades for each in self.listed.get(market, {}).values())
        trading = sum(each.trades for each in instruments)
        if before >= _SHRINK_FROM and trading < before * _SHRINK_SHARE_MIN and market not in self._doubted:
            self._doubted.add(market)
            log.warning(
                "%s: exchangeInfo lists %d trading symbols, after %d before; it is requested again before"
                " any series is dropped",
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
        """Log each symbol and glob that matches no symbol trading on the market, once.

        The exchange acknowledges such a subscription, but sends nothing. The name may
        be misspelled, or listed in the future.
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
                log.warning("%s does not list %s; listening anyway", market, name)
            else:
                log.warning("%s %s does not trade (%s); listening anyway", market, name, instrument.status)
