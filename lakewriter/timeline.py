"""A time line of the exchange's clock, fitted to a few readings. Pure: times are passed in.

The server read its clock at an unknown moment between request and answer, so a time line
has two bounds. The exchange's clock shows at least `least_ms` and at most `most_ms`. The
rate is measured too, because a sandbox may run faster than real time.
"""

from typing import NamedTuple

from lakewriter.interval import TIME_MS_MAX, TIME_MS_MIN

# A rate that differs from 1 by less than this is set to 1, the rate of the real exchange.
_RATE_SNAP = 0.02

# Minimum rate. It is positive, so waits end even if the clock hardly moves.
_RATE_MIN = 0.001

# The maximum rate of a sandbox.
RATE_MAX = 10_000.0

# Maximum drift between two quartz clocks. 0.1 % is ten times the usual tolerance.
_DRIFT = 0.001

# Two moments determine a rate if they are at least this far apart.
APART_S = 0.05

# The clocks of the exchange's servers differ by less than this.
_MACHINES_S = 0.05

# Any rate is possible until two moments determine it, for at most this time.
_UNRATED_S = 10.0

# Differences between the exchange's servers, and its rounding, are smaller than this.
FIT_MS = 1_000.0

# A fast clock can only be read with this precision, in real seconds.
_FIT_S = 0.05


class Moment(NamedTuple):
    """A reading of the exchange's clock, `server_ms`, between two readings of the monotonic clock."""

    server_ms: int
    asked_s: float
    answered_s: float

    @property
    def sane(self) -> bool:
        """Whether `server_ms` is a plausible time in milliseconds."""
        return TIME_MS_MIN <= self.server_ms < TIME_MS_MAX and self.asked_s <= self.answered_s


class TimeLine:
    """An estimate of the exchange's clock: a straight line through readings that agree.

    Args:
        first: the first reading. The rate is 1 until `sync` measures it.
        like: a time line of the same clock, whose rate is copied.

    Attributes:
        moments: number of readings.
        rate: seconds of the exchange's clock per real second.
        rated: whether the rate was measured.
    """

    def __init__(self, first: Moment, like: "TimeLine | None" = None) -> None:
        self.first = first
        self.moments = 1
        self.rate: float = 1.0 if like is None else like.rate
        self.rated: bool = like is not None and like.rated
        self._rate_most: float = 1.0 + _DRIFT if like is None else like._rate_most
        self._least_s, self._least_ms = first.answered_s, float(first.server_ms)
        self._most_s, self._most_ms = first.asked_s, float(first.server_ms)

    def least_ms(self, now_s: float) -> float:
        """Return the lower bound of the exchange's time. Candle logic uses it as the time."""
        return self._least_ms + (now_s - self._least_s) * 1000 * self.rate

    def most_ms(self, now_s: float) -> float:
        """Return the upper bound of the exchange's time. It is generous while the rate is unknown."""
        return self._most_at(now_s, self._rate_most if self.is_rate_settled(now_s) else RATE_MAX)

    def is_rate_settled(self, now_s: float) -> bool:
        """Return whether the rate was measured, or is assumed to be 1 after _UNRATED_S."""
        return self.rated or now_s - self.first.answered_s > _UNRATED_S

    def slack_ms(self) -> float:
        """Return the tolerance: the maximum distance of an agreeing moment from the bounds."""
        return FIT_MS + _FIT_S * 1000 * self.rate

    def fits(self, moment: Moment) -> bool:
        """Return whether a moment lies on this line, at the rate that is known so far."""
        latest_ms = moment.server_ms + (moment.answered_s - moment.asked_s) * 1000 * self._rate_most
        return (
            moment.server_ms <= self._most_at(moment.answered_s, self._rate_most) + self.slack_ms()
            and latest_ms >= self.least_ms(moment.answered_s) - self.slack_ms()
        )

    def confirms(self, event_ms: int, heard_s: float, late_s: float) -> bool:
        """Return whether a frame was sent on this line, at most `late_s` before it arrived."""
        least_ms = self.least_ms(heard_s) - late_s * 1000 * self.rate
        return least_ms <= event_ms <= self._most_at(heard_s, self._rate_most) + self.slack_ms()

    def may_fit(self, moment: Moment) -> bool:
        """Return whether a moment lies on this line, at any possible rate if the rate is unknown."""
        if self.rated:
            return self.fits(moment)
        passed_ms = moment.server_ms - self.first.server_ms
        return -FIT_MS <= passed_ms <= (moment.answered_s - self.first.asked_s) * 1000 * RATE_MAX

    def passes(self, moment: Moment) -> bool:
        """Return whether a moment of about the time of the first one lies on this line, at its rate."""
        rates = (self.rate, self._rate_most)
        early_s, late_s = moment.asked_s - self.first.answered_s, moment.answered_s - self.first.asked_s
        least_ms = min(self.first.server_ms + early_s * 1000 * rate for rate in rates)
        most_ms = max(self.first.server_ms + late_s * 1000 * rate for rate in rates)
        return least_ms - self.slack_ms() <= moment.server_ms <= most_ms + self.slack_ms()

    def sync(self, moment: Moment) -> None:
        """Add a moment that fits; update the rate, measured from the first moment, and both bounds."""
        self.moments += 1
        self._measure_rate(moment)
        at_s = moment.answered_s
        passed_s = at_s - self._least_s
        least_ms = self.least_ms(at_s) - passed_s * 1000 * self.rate * _DRIFT
        latest_ms = moment.server_ms + (at_s - moment.asked_s) * 1000 * self._rate_most
        most_ms = min(latest_ms, self._most_at(at_s, self._rate_most))
        self._least_ms = max(float(moment.server_ms), min(least_ms, latest_ms))
        self._most_ms = max(self._least_ms, most_ms)
        self._least_s = self._most_s = at_s

    def raise_least(self, ms: float, now_s: float) -> None:
        """Raise the lower bound, at most to the upper bound."""
        self._least_ms = max(self.least_ms(now_s), min(ms, self._most_at(now_s, self._rate_most)))
        self._least_s = now_s

    def _measure_rate(self, moment: Moment) -> None:
        base_s = moment.asked_s - self.first.answered_s
        if base_s < APART_S:
            return
        # The server read its clock between request and answer, so the rate lies
        # between these two rates. The lower one is never ahead.
        passed_s = (moment.server_ms - self.first.server_ms) / 1000
        least = (passed_s - _MACHINES_S) / (moment.answered_s - self.first.asked_s)
        most = (passed_s + _MACHINES_S) / base_s
        usual = least - _RATE_SNAP <= 1 <= most + _RATE_SNAP
        self.rate = 1.0 if usual else max(least, _RATE_MIN)
        self._rate_most = 1.0 + _DRIFT if usual else max(most, _RATE_MIN)
        self.rated = True

    def _most_at(self, now_s: float, rate: float) -> float:
        return self._most_ms + (now_s - self._most_s) * 1000 * rate
