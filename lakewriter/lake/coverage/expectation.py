"""The expected candles of a series.

- A series begins with its first candle or ledger entry. It begins earlier if a recorder
  subscribed to it earlier, while it was listed and trading.
- A series ends with its last candle or ledger entry. If the coverage has an end
  (`CoverageMoment.until_ms`), the series ends there, or with its last subscription. It
  ends earlier if later candles may be in the journal of a living recorder on another host.
- In a lake without subscriptions every series extends to that end.
- A subscribed series without a candle is expected from its subscription on.
- Candles that were forgotten at either end make a series shorter.
"""

from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Literal, NamedTuple

from lakewriter.gap import IDLE
from lakewriter.gap_reasons import is_before_trading
from lakewriter.instrument import Instrument
from lakewriter.interval import DAY_MS, Interval
from lakewriter.lake.coverage.facts import CoverageMoment, SeriesFacts
from lakewriter.ranges import Range, union
from lakewriter.subscribed_period import FOREVER_MS, owed_since_ms, unsubscribed_ranges

# A begin time that is later than now by more than this is wrong, even if our clock is slow.
AHEAD_MS_MAX = DAY_MS

# A market's list is ignored if it is older than the subscription by more than this.
LIST_AGE_MS_MAX = 600_000

# The status of a symbol in its market's last list, or "" if the status is unknown.
_Status = Literal["", "unlisted", "trades", "before trading", "ended"]

# The minimum similarity, from 0 to 1, of a symbol that the error suggests.
_ALIKE_MIN = 0.6


class Expectation(NamedTuple):
    """The expected candles of a series.

    Args:
        grid: the grid of its candles.
        start_ms, stop_ms: the range in which the expected candles begin.
        left: the ranges in which the series was left on purpose. The last one may have
            no end.
        idle: whether the series no longer trades, or does not trade yet.
        never_came: why the subscribed series never had a candle, or "" if it had one.
    """

    grid: Interval
    start_ms: int
    stop_ms: int
    left: list[Range]
    idle: bool = False
    never_came: str = ""


def expectation(facts: SeriesFacts, moment: CoverageMoment) -> Expectation | None:
    """Return the expected candles of a series, or None if no candle is expected."""
    presence, believed_ms = facts.presence, _believed_ms(facts, moment)
    reported = [
        each for each in facts.reported if each.gap.reason != "forgotten" and each.gap.start_ms < believed_ms
    ]
    starts = [each.gap.start_ms for each in reported]
    stops = [min(each.gap.stop_ms, believed_ms) for each in reported]
    grid = facts.series.grid
    if presence.first_ms is not None and presence.last_ms is not None:
        grid = presence.grid
        starts.append(presence.first_ms)
        last_ms = presence.last_ms if presence.last_ms < believed_ms else presence.last_before(believed_ms)
        stops.append(grid.end(presence.last_ms if last_ms is None else last_ms))
    else:
        never = _never_came(facts, moment)
        if not reported or never is not None:
            return never
        # A series without a candle has its grid from the first gap.
        grid = grid.anchored(min(starts))
    owed_ms = owed_since_ms(facts.periods)
    if owed_ms is not None:
        starts.append(min(grid.floor(max(owed_ms, facts.edge_ms or 0)), max(stops)))
    last = {each.gap.reason for each in reported if each.gap.stop_ms == max(stops)}
    # A halt continues while its market lists the symbol as not trading.
    idle = not last.isdisjoint(IDLE) or ("exchange_halt" in last and _status(facts) == "ended")
    if moment.until_ms is not None and not idle:
        stops += _subscribed_until(facts, grid, moment.until_ms)
    return Expectation(grid, grid.ceil(min(starts)), max(stops), _left(facts, grid), idle)


def _believed_ms(facts: SeriesFacts, moment: CoverageMoment) -> int:
    """Return the time from which candles and gaps are ignored, because they are in the future.

    Otherwise a candle from the future would make all candles before it missing. The
    host's clock may be slow, and a sandbox's clock may be ahead of it.
    """
    if moment.now_ms is None:
        return FOREVER_MS
    return facts.series.grid.floor(max(moment.now_ms, facts.lake.seen_ms) + AHEAD_MS_MAX)


def _subscribed_until(facts: SeriesFacts, grid: Interval, until_ms: int) -> list[int]:
    """Return the end of the expected candles of each subscribed period."""
    if not facts.lake.knows_subscriptions:
        return [grid.floor(until_ms)]
    readable_ms = facts.readable_until_ms(until_ms)
    return [
        grid.floor(readable_ms if period.stop_ms is None else min(until_ms, period.stop_ms))
        for period in facts.periods
        if period.start_ms < until_ms
    ]


def _never_came(facts: SeriesFacts, moment: CoverageMoment) -> Expectation | None:
    """Return the expectation of a series without a candle, from its open periods.

    The result is None if no candle is expected. It is also None if a ledger has a gap
    with a reason other than "not_listed": such a gap explains the absence.
    """
    still = facts.open_periods
    if not still or facts.edge_ms is not None or _status(facts) == "before trading":
        return None
    if any(each.gap.reason != "not_listed" for each in facts.reported):
        return None
    grid, began_ms = facts.series.grid, min(period.start_ms for period in still)
    if moment.until_ms is not None and moment.now_ms is None:
        as_of_ms = moment.until_ms
        if began_ms >= as_of_ms:
            return None
    else:
        # A sandbox's clock may be ahead of ours.
        as_of_ms = max(moment.now_ms or 0, *(period.seen_ms for period in still))
    as_of_ms = facts.readable_until_ms(as_of_ms)
    start_ms = min(grid.floor(began_ms), *(each.gap.start_ms for each in facts.reported), FOREVER_MS)
    stop_ms = max(grid.floor(as_of_ms), *(each.gap.stop_ms for each in facts.reported), 0)
    if _status(facts) in ("unlisted", "ended"):
        stop_ms = max(stop_ms, grid.end(start_ms))  # report it at once, before its first candle is due
    if start_ms >= stop_ms:
        return None
    return Expectation(
        grid, start_ms, stop_ms, _left(facts, grid), never_came=_never_came_reason(facts, began_ms)
    )


def _left(facts: SeriesFacts, grid: Interval) -> list[Range]:
    """Return the ranges in which a series was left on purpose, on its grid.

    The candle in which a period begins is expected. The candle in which it ends is not.
    """
    return union(
        (grid.floor(start_ms), stop_ms if stop_ms == FOREVER_MS else grid.floor(stop_ms))
        for start_ms, stop_ms in unsubscribed_ranges(facts.periods)
    )


def _status(facts: SeriesFacts) -> _Status:
    """Return the status of a series' symbol in its market's last list."""
    market, symbol, _ = facts.series
    known = facts.lake.lists.get(market)
    began_ms = min((period.start_ms for period in facts.open_periods), default=0)
    if known is None or known.answered_ms < began_ms - LIST_AGE_MS_MAX:
        return ""
    status = known.statuses.get(symbol)
    if status is None:
        return "unlisted"
    if Instrument(symbol, status).trades:
        return "trades"
    return "before trading" if is_before_trading(status) else "ended"


def _never_came_reason(facts: SeriesFacts, began_ms: int) -> str:
    """Return the reason why a subscribed series never had a candle, from its market's last list."""
    market, symbol, _ = facts.series
    since = f"subscribed to since {format_minute(began_ms)}, and never a candle came"
    status = _status(facts)
    if status == "ended":
        return f"{since}: {market} {symbol} does not trade ({facts.lake.lists[market].statuses[symbol]})"
    if status == "unlisted":
        trading = [
            name
            for name, listed in facts.lake.lists[market].statuses.items()
            if Instrument(name, listed).trades
        ]
        near = get_close_matches(symbol, trading, 1, _ALIKE_MIN)
        return f"{since}: {market} does not list {symbol}" + (f", but {near[0]}" if near else "")
    return since


def format_minute(time_ms: int) -> str:
    """Return a time as "2024-06-30 15:00", in UTC."""
    return f"{datetime.fromtimestamp(time_ms / 1000, UTC):%Y-%m-%d %H:%M}"
