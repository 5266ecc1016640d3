"""The subscribed period: the time in which a recorder subscribes to a series. Pure.

Rule 1: a period ends only when its recorder unsubscribes from the series: at run
time, or because the subscriptions of the next start lack it. A stop, a crash or a
halt of the symbol ends no period.
Rule 2: the next start of a recorder takes over from its previous run. It also continues
open periods of other dead recorders, for series that it subscribes to. It never changes
periods of running recorders.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from lakewriter.ranges import Range, minus, union
from lakewriter.series import Series

# The name of a recorder without a config, whose command line has its subscriptions.
COMMAND_LINE = "command line"

# The period of a dead recorder is closed this long before its last confirmation. The
# next start of the recorder fetches younger candles.
STOP_MARGIN_MS = 120_000

# Maximum number of closed periods of a series. The oldest ones beyond it are dropped.
PERIODS_MAX = 1_000

# Later than every time that can be stored: 9999-12-31.
FOREVER_MS = 253_402_300_800_000


class RecorderId(NamedTuple):
    """One run of a recorder.

    Args:
        name: the path of the config, or COMMAND_LINE; the same at each start.
        journal: the name of the journal's directory, whose lock shows whether the run is alive.
    """

    name: str
    journal: str


class SubscribedPeriod(NamedTuple):
    """A time in which a recorder subscribes to a series.

    Args:
        market, symbol, interval: the series.
        start_ms: the exchange's time at which the recorder subscribed.
        seen_ms: the exchange's time of the last confirmation.
        stop_ms: the exchange's time at which the recorder unsubscribed; None while subscribed.
        recorder: the recorder's name.
        journal: the journal of the run that last wrote this period.
        owed_ms: the time from which candles are expected, because the series was
            subscribed to, listed and trading; None if it never was.
    """

    market: str
    symbol: str
    interval: str
    start_ms: int
    seen_ms: int
    stop_ms: int | None
    recorder: str
    journal: str
    owed_ms: int | None = None

    @property
    def series(self) -> Series:
        """The series of the period."""
        return Series(self.market, self.symbol, self.interval)

    @property
    def is_open(self) -> bool:
        """Whether the series is still subscribed to."""
        return self.stop_ms is None


class Confirmation(NamedTuple):
    """The subscriptions of a recorder at one moment.

    Args:
        recorder: the run that confirms.
        listened: series that the run listens to.
        covers: returns whether the run subscribes to a series, even if it does not trade.
        now_ms: the exchange's time by market. An absent market is not confirmed yet.
        owed_ms: the time from which candles of each listed and trading series are expected.
        starting: whether this run may still take over from a previous run.
    """

    recorder: RecorderId
    listened: Iterable[Series]
    covers: Callable[[Series], bool]
    now_ms: Mapping[str, int]
    owed_ms: Mapping[Series, int]
    starting: bool


def with_confirmation(
    periods: Iterable[SubscribedPeriod], confirmation: Confirmation, alive: frozenset[str]
) -> list[SubscribedPeriod]:
    """Return all periods after a confirmation by one recorder, sorted by series and time.

    Args:
        periods: the periods of all recorders.
        alive: journals of the running recorders.
    """
    before = sorted(periods, key=_order)
    former = _former(before, confirmation, alive) if confirmation.starting else frozenset()
    own = confirmation.recorder.journal
    held = {period.series for period in before if period.is_open and period.journal == own}
    after = []
    # The oldest open period of a series is continued, because the periods are sorted.
    for period in before:
        if period.is_open and period.journal == own:
            period = _own(period, confirmation)
        elif period.is_open and period.journal not in alive:
            period = _inherited(period, confirmation, held, former)
        after.append(period)
    name, journal = confirmation.recorder
    for series in set(confirmation.listened) - held:
        now_ms = confirmation.now_ms.get(series.market)
        if now_ms is not None:
            after.append(SubscribedPeriod(*series, now_ms, now_ms, None, name, journal))
    return _bounded(sorted((_owed(period, confirmation) for period in after), key=_order))


def with_periods(
    periods: Iterable[SubscribedPeriod], others: Iterable[SubscribedPeriod], alive: frozenset[str]
) -> list[SubscribedPeriod]:
    """Return the periods of two lakes, sorted by series and time.

    Two periods of a series with one start are one period, seen at two times. The later
    one counts. A period of a running recorder stays.

    Args:
        periods: the periods of the lake that gets the others.
        alive: journals of its running recorders.
    """
    found = list(periods)
    places = {(period.series, period.start_ms): place for place, period in enumerate(found)}
    for other in others:
        place = places.setdefault((other.series, other.start_ms), len(found))
        if place == len(found):
            found.append(other)
        elif found[place].journal not in alive and _is_later(other, found[place]):
            owed = [each.owed_ms for each in (other, found[place]) if each.owed_ms is not None]
            found[place] = other._replace(owed_ms=min(owed, default=None))
    return _bounded(sorted(found, key=_order))


def _is_later(one: SubscribedPeriod, other: SubscribedPeriod) -> bool:
    return (one.seen_ms, not one.is_open) > (other.seen_ms, not other.is_open)


def closed_period(period: SubscribedPeriod) -> SubscribedPeriod:
    """Return a dead recorder's open period, closed STOP_MARGIN_MS before its last confirmation."""
    return period._replace(stop_ms=max(period.start_ms, period.seen_ms - STOP_MARGIN_MS))


def subscribed_ranges(periods: Iterable[SubscribedPeriod]) -> list[Range]:
    """Return the times in which any recorder subscribed to a series. An open period lasts forever."""
    return union(
        (period.start_ms, FOREVER_MS if period.stop_ms is None else period.stop_ms) for period in periods
    )


def owed_since_ms(periods: Iterable[SubscribedPeriod]) -> int | None:
    """Return the time from which candles of a series are expected; None if they never were."""
    return min((period.owed_ms for period in periods if period.owed_ms is not None), default=None)


def unsubscribed_ranges(periods: Iterable[SubscribedPeriod]) -> list[Range]:
    """Return the times in which a series was unsubscribed: between its periods and after the last one."""
    known = list(periods)
    first_ms = min((period.start_ms for period in known), default=FOREVER_MS)
    return minus(union([(first_ms, FOREVER_MS)]), subscribed_ranges(known))


def _own(period: SubscribedPeriod, confirmation: Confirmation) -> SubscribedPeriod:
    """Return an open period of the confirming recorder: confirmed now, or closed if the series was left."""
    now_ms = max(period.start_ms, confirmation.now_ms.get(period.market, period.seen_ms))
    left = not confirmation.covers(period.series)
    return period._replace(seen_ms=now_ms, stop_ms=now_ms if left else None)


def _inherited(
    period: SubscribedPeriod, confirmation: Confirmation, held: set[Series], former: frozenset[str]
) -> SubscribedPeriod:
    """Return an open period of a dead recorder, after it was continued, closed or left unchanged."""
    name, journal = confirmation.recorder
    if confirmation.covers(period.series):
        if period.series not in held:
            held.add(period.series)
            now_ms = max(period.start_ms, confirmation.now_ms.get(period.market, period.seen_ms))
            return period._replace(seen_ms=now_ms, recorder=name, journal=journal)
        if not confirmation.starting:
            return period  # the recorder may start again
        return period._replace(stop_ms=period.seen_ms)
    if period.journal not in former:
        return period
    return closed_period(period)


def _owed(period: SubscribedPeriod, confirmation: Confirmation) -> SubscribedPeriod:
    """Return a period with the earliest time from which its candles are expected."""
    owed_ms = confirmation.owed_ms.get(period.series)
    if owed_ms is None or not period.is_open or period.journal != confirmation.recorder.journal:
        return period
    return period._replace(owed_ms=owed_ms if period.owed_ms is None else min(owed_ms, period.owed_ms))


def _former(
    periods: Iterable[SubscribedPeriod], confirmation: Confirmation, alive: frozenset[str]
) -> frozenset[str]:
    """Return the journals of the runs from which the starting recorder takes over.

    Runs with a config match by its path. Among runs without a config, the run that shares
    the most series matches.
    """
    runs: defaultdict[str, list[SubscribedPeriod]] = defaultdict(list)
    for period in periods:
        if period.is_open and period.journal not in alive and period.recorder == confirmation.recorder.name:
            runs[period.journal].append(period)
    if confirmation.recorder.name != COMMAND_LINE:
        return frozenset(runs)
    common = {
        journal: (
            sum(confirmation.covers(period.series) for period in run),
            max(period.seen_ms for period in run),
        )
        for journal, run in runs.items()
    }
    best = max(common, key=common.__getitem__, default=None)
    return frozenset() if best is None or not common[best][0] else frozenset({best})


def _order(period: SubscribedPeriod) -> tuple[Series, int, int, bool, str]:
    return (period.series, period.start_ms, period.seen_ms, period.is_open, period.journal)


def _bounded(periods: list[SubscribedPeriod]) -> list[SubscribedPeriod]:
    """Return sorted periods; of series with more than PERIODS_MAX, drop the oldest closed periods."""
    closed_count: defaultdict[Series, int] = defaultdict(int)
    for period in periods:
        closed_count[period.series] += not period.is_open
    kept = []
    for period in periods:
        if not period.is_open and closed_count[period.series] > PERIODS_MAX:
            closed_count[period.series] -= 1
        else:
            kept.append(period)
    return kept
