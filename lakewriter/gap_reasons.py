"""The reason why the exchange lacks a candle, derived from known facts. Pure.

A reason needs evidence. Without evidence a gap stays pending.
"""

from collections.abc import Iterable
from typing import NamedTuple

from lakewriter.gap import Reason
from lakewriter.instrument import Instrument
from lakewriter.interval import Interval
from lakewriter.ranges import Range

# The reason for each status of a symbol that does not trade; any other status means delisted.
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
    """Return whether a symbol with this status has not begun to trade."""
    return _REASONS.get(status) == "not_listed"


class SymbolFacts(NamedTuple):
    """The known facts of a symbol.

    Args:
        listed: the symbol's entry in the market's list; None if absent or not fetched.
        as_of_ms: time at which the market's list was fetched; None if never.
        first_ms: begin time of the exchange's first candle; None if unknown.
        newest_ms: begin time of the newest candle from REST; None if REST has no candle. A
            newer candle of a stream is no evidence, because REST may be behind.
        seen_ms, last_ms: begin times of the first and the newest candle from any source;
            None before the first candle. These candles are stronger evidence than the
            list's dates.
    """

    listed: Instrument | None
    as_of_ms: int | None
    first_ms: int | None
    newest_ms: int | None
    seen_ms: int | None = None
    last_ms: int | None = None

    @property
    def delivery_ms(self) -> int | None:
        """The delivery time of the contract; None if it is never delivered or has later candles."""
        delivery_ms = self.listed.delivery_ms if self.listed else None
        lives_on = None not in (delivery_ms, self.last_ms) and self.last_ms >= delivery_ms  # type: ignore[operator]
        return None if lives_on else delivery_ms


def reason_for(begin_ms: int, end_ms: int, facts: SymbolFacts) -> Reason | None:
    """Return the reason why the exchange lacks a candle; None while it is unknown.

    Args:
        begin_ms, end_ms: begin and end of a candle that REST lacked, long enough after its end.
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
        return None  # the candle may still appear: a halt is proven when trading resumes
    if delivery_ms is not None and facts.as_of_ms >= delivery_ms:
        return "delivered"
    return _REASONS.get(listed.status, "delisted")


def reasons_for(ranges: Iterable[Range], grid: Interval, facts: SymbolFacts) -> list[tuple[Range, Reason]]:
    """Return the reasons why the exchange lacks the candles in these ranges.

    Args:
        ranges: ranges of begin times on the grid. REST lacked all of them in an answer.

    Returns:
        ranges with one reason each, ascending, without ranges whose reason is unknown.
    """
    listed = facts.listed
    boundaries = (
        facts.first_ms if facts.first_ms is not None else listed and listed.onboard_ms,
        facts.delivery_ms,
        facts.seen_ms,
        facts.newest_ms,
        # A candle that ends after this is younger than the list.
        None if facts.as_of_ms is None else grid.floor(facts.as_of_ms),
    )
    cuts = sorted({grid.ceil(time_ms) for time_ms in boundaries if time_ms is not None})
    found: list[tuple[Range, Reason]] = []
    for at_ms, stop_ms in ranges:
        for cut_ms in (*(cut for cut in cuts if at_ms < cut < stop_ms), stop_ms):
            reason = reason_for(at_ms, grid.end(at_ms), facts)
            if reason is not None:
                found.append(((at_ms, cut_ms), reason))
            at_ms = cut_ms
    return found
