"""From subscriptions to symbols: globs resolved against what the exchange lists."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import NamedTuple

from lakewriter.binance.instruments import fetch_instruments
from lakewriter.errors import ExchangeError, UsageError
from lakewriter.instrument import Instrument
from lakewriter.market import Market
from lakewriter.subscription import Subscription, is_glob, matching

log = logging.getLogger(__name__)

_RETRY_S = 5.0


class Listening(NamedTuple):
    """What one listener listens to."""

    market: str
    interval: str
    symbols: tuple[str, ...]


async def resolve(
    subscriptions: Iterable[Subscription], endpoints: Callable[[str], Market]
) -> list[Listening]:
    """Return what to listen to, one entry per market and interval.

    Symbols named in full are taken as they are. For globs the exchange is
    asked what trades, again and again until it answers.

    Raises:
        UsageError: if a glob matches nothing that trades.
    """
    wanted: dict[tuple[str, str], dict[str, None]] = {}
    listed: dict[str, list[str]] = {}
    for subscription in subscriptions:
        market = subscription.market
        if market not in listed and any(map(is_glob, subscription.symbols)):
            instruments = await _fetch_until_answered(endpoints(market))
            listed[market] = [instrument.symbol for instrument in instruments if instrument.trades]
        symbols = [name for symbol in subscription.symbols for name in _resolved(symbol, market, listed)]
        for interval in subscription.intervals:
            wanted.setdefault((market, interval), {}).update(dict.fromkeys(symbols))
    return [Listening(market, interval, tuple(symbols)) for (market, interval), symbols in wanted.items()]


async def warn_of_unlisted(listening: Iterable[Listening], endpoints: Callable[[str], Market]) -> None:
    """Log the symbols that are listened to and that the exchange does not list.

    Such a subscription is acknowledged and stays silent; it may be a spelling
    mistake, or a listing to come.
    """
    symbols: dict[str, set[str]] = {}
    for entry in listening:
        symbols.setdefault(entry.market, set()).update(entry.symbols)
    for market, wanted in symbols.items():
        try:
            instruments = await fetch_instruments(endpoints(market))
        except ExchangeError as error:
            log.warning("cannot tell whether all symbols exist: %s", error)
            continue
        status = {instrument.symbol: instrument.status for instrument in instruments}
        for symbol in sorted(wanted - status.keys()):
            log.warning("%s does not list %s; listening all the same", market, symbol)
        for symbol in sorted(symbol for symbol in wanted & status.keys() if status[symbol] != "TRADING"):
            log.warning("%s %s does not trade (%s); listening all the same", market, symbol, status[symbol])


def _resolved(symbol: str, market: str, listed: dict[str, list[str]]) -> list[str]:
    if not is_glob(symbol):
        return [symbol]
    found = matching(symbol, listed[market])
    if not found:
        raise UsageError(f"symbol: {symbol!r} matches nothing that trades on {market}")
    return found


async def _fetch_until_answered(market: Market) -> list[Instrument]:
    while True:
        try:
            return await fetch_instruments(market)
        except ExchangeError as error:
            log.warning("%s; trying again in %.0f s", error, _RETRY_S)
            await asyncio.sleep(_RETRY_S)
