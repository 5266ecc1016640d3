"""Why the exchange has no such candle. Pure: what is known in, a reason out.

A reason is given on evidence only; without it a gap stays pending.
"""

from collections.abc import Iterable
from typing import NamedTuple

from lakewriter.gap import Reason
from lakewriter.instrument import Instrument
from lakewriter.interval import Interval
from lakewriter.ranges import Range

# What a symbol that does not trade is doing, by its status; any other word means delisted.
# Source: enums.md of binance-spot-api-docs; exchangeInfo of the futures markets.
_REASONS: dict[str, Reason] = {
    "PENDING_TRADING": "not_listed",
    "PRE_TRADING": "not_listed",
    "HALT": "exchange_halt",
    "TRADING_HALT": "exchange_halt",
    "CANCEL_ONLY": "exchange_halt",
    "END_OF_DAY": "exchange_halt",
}


def is_before_trading(status: str) -> bool:
    """Return whether a symbol of that status has not begun to trade."""
    return _REASONS.get(status) == "not_listed"


class Standing(NamedTuple):
    """What is known of a symbol.

    Args:
        listed: what the market lists of it; None if nothing, or if nobody asked.
        as_of_ms: when the market's list was got; None if never.
        first_ms: begin of the first candle that the exchange has; None if not known.
        newest_ms: begin of the newest candle that REST has shown; None if none. A
            stream's proves nothing: REST may be behind.
        traded: whether anybody ever saw a candle.
    """

    listed: Instrument | None
    as_of_ms: int | None
    first_ms: int | None
    newest_ms: int | None
    traded: bool = False


def reason_for(begin_ms: int, end_ms: int, standing: Standing) -> Reason | None:
    """Return why the exchange has no candle of that time; None while it cannot be told.

    Args:
        begin_ms, end_ms: a candle that REST was asked for, long enough after its
            end, and does not have.
    """
    listed = standing.listed
    onboard_ms = listed.onboard_ms if listed else None
    first_ms = standing.first_ms if standing.first_ms is not None else onboard_ms
    if first_ms is not None and begin_ms < first_ms:
        return "not_listed"
    if listed and listed.delivery_ms is not None and begin_ms >= listed.delivery_ms:
        return "delivered"
    if standing.newest_ms is not None and standing.newest_ms > begin_ms:
        return "exchange_halt"
    if standing.as_of_ms is None or standing.as_of_ms < end_ms:
        return None  # the list is older than the candle
    if listed is None:
        traded = standing.traded or standing.newest_ms is not None or first_ms is not None
        return "delisted" if traded else "not_listed"
    if listed.trades:
        return None  # it may come yet: a halt shows when trading goes on
    if listed.delivery_ms is not None and standing.as_of_ms >= listed.delivery_ms:
        return "delivered"
    return _REASONS.get(listed.status, "delisted")


def reasons_for(ranges: Iterable[Range], grid: Interval, standing: Standing) -> list[tuple[Range, Reason]]:
    """Return why the exchange has no candles in these ranges, as far as that can be told.

    Args:
        ranges: of begin times on the grid; REST was asked for all of them.

    Returns:
        ranges with one reason each, ascending; what cannot be told yet is left out.
    """
    listed = standing.listed
    turns = (
        standing.first_ms if standing.first_ms is not None else listed and listed.onboard_ms,
        listed and listed.delivery_ms,
        standing.newest_ms,
        # A candle that ends after this is younger than the list.
        None if standing.as_of_ms is None else grid.floor(standing.as_of_ms),
    )
    cuts = sorted({grid.ceil(turn) for turn in turns if turn is not None})
    found: list[tuple[Range, Reason]] = []
    for whole in ranges:
        at_ms, stop_ms = whole
        for cut_ms in (*(each for each in cuts if at_ms < each < stop_ms), stop_ms):
            reason = reason_for(at_ms, grid.end(at_ms), standing)
            if reason is not None:
                found.append(((at_ms, cut_ms), reason))
            at_ms = cut_ms
    return found
