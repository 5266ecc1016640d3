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


class SymbolFacts(NamedTuple):
    """What is known of a symbol.

    Args:
        listed: what the market lists of it; None if nothing, or if nobody asked.
        as_of_ms: when the market's list was got; None if never.
        first_ms: begin of the first candle that the exchange has; None if not known.
        newest_ms: begin of the newest candle that REST has shown; None if none. A
            stream's proves nothing: REST may be behind.
        seen_ms, last_ms: begin of the first and of the newest candle that anybody saw; None if none.
            A date of the list that they refute counts for nothing.
    """

    listed: Instrument | None
    as_of_ms: int | None
    first_ms: int | None
    newest_ms: int | None
    seen_ms: int | None = None
    last_ms: int | None = None

    @property
    def delivery_ms(self) -> int | None:
        """When the contract is delivered; None if it is not, or has candles from after that."""
        delivery_ms = self.listed.delivery_ms if self.listed else None
        lives_on = None not in (delivery_ms, self.last_ms) and self.last_ms >= delivery_ms  # type: ignore[operator]
        return None if lives_on else delivery_ms


def reason_for(begin_ms: int, end_ms: int, facts: SymbolFacts) -> Reason | None:
    """Return why the exchange has no candle of that time; None while it cannot be told.

    Args:
        begin_ms, end_ms: a candle that REST was asked for, long enough after its
            end, and does not have.
    """
    listed = facts.listed
    onboard_ms = listed.onboard_ms if listed else None
    first_ms = facts.first_ms if facts.first_ms is not None else onboard_ms
    existed = facts.seen_ms is not None and facts.seen_ms <= begin_ms
    if first_ms is not None and begin_ms < first_ms and not existed:
        return "not_listed"
    delivery_ms = facts.delivery_ms
    if delivery_ms is not None and begin_ms >= delivery_ms:
        return "delivered"
    if facts.newest_ms is not None and facts.newest_ms > begin_ms:
        return "exchange_halt"
    if facts.as_of_ms is None or facts.as_of_ms < end_ms:
        return None  # the list is older than the candle
    if listed is None:
        known = (facts.seen_ms, facts.newest_ms, first_ms)
        return "not_listed" if known == (None, None, None) else "delisted"
    if listed.trades:
        return None  # it may come yet: a halt shows when trading goes on
    if delivery_ms is not None and facts.as_of_ms >= delivery_ms:
        return "delivered"
    return _REASONS.get(listed.status, "delisted")


def reasons_for(ranges: Iterable[Range], grid: Interval, facts: SymbolFacts) -> list[tuple[Range, Reason]]:
    """Return why the exchange has no candles in these ranges, as far as that can be told.

    Args:
        ranges: of begin times on the grid; REST was asked for all of them.

    Returns:
        ranges with one reason each, ascending; what cannot be told yet is left out.
    """
    listed = facts.listed
    turns = (
        facts.first_ms if facts.first_ms is not None else listed and listed.onboard_ms,
        facts.delivery_ms,
        facts.seen_ms,
        facts.newest_ms,
        # A candle that ends after this is younger than the list.
        None if facts.as_of_ms is None else grid.floor(facts.as_of_ms),
    )
    cuts = sorted({grid.ceil(turn) for turn in turns if turn is not None})
    found: list[tuple[Range, Reason]] = []
    for whole in ranges:
        at_ms, stop_ms = whole
        for cut_ms in (*(each for each in cuts if at_ms < each < stop_ms), stop_ms):
            reason = reason_for(at_ms, grid.end(at_ms), facts)
            if reason is not None:
                found.append(((at_ms, cut_ms), reason))
            at_ms = cut_ms
    return found
