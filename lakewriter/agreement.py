"""The exchange's time, as agreed on by three witnesses. Pure: times are passed in.

The witnesses are REST (serverTime), the streams (event times of closed
candles), and the host's wall clock.

Rule 1: a time is accepted when two witnesses agree, or when the exchange repeats
it and no witness contradicts.
Rule 2: a reading that disagrees changes nothing. The caller counts and logs it.
Rule 3: a single series never moves the time, however often it repeats its claim.
"""

from typing import NamedTuple

from lakewriter.series import Series
from lakewriter.timeline import Moment, TimeLine

# The clock of a synchronized host differs from the exchange's by less than this.
HOST_MS = 10_000.0

# A wrong host clock is off by hours, never by more than a day. Until the time is
# known, later frames are rejected.
HOST_WRONG_MS = 86_400_000.0

# A frame was delayed if it arrives later than this after its event time.
LATE_S = 5.0

# REST without another witness must repeat a time for this long. So must late frames
# that agree with the host.
INSIST_S = 60.0

# REST is no witness after this time without an answer.
REST_SILENT_S = 120.0

# Maximum age of a series' claim, and maximum number of stored claims.
_CLAIM_S = 120.0
_CLAIMS_MAX = 8

# Minimum number of REST moments that agree, if no other witness agrees.
_MOMENTS_MIN = 3


class ClockClaim(NamedTuple):
    """The event time of a series' closed candle, and the monotonic time at which it arrived."""

    series: Series
    event_ms: int
    heard_s: float


class Jump(NamedTuple):
    """A change to a time line that contradicts the previous one.

    Args:
        before_ms, after_ms: the time of the jump, by the old and by the new time line.
            They are equal if the host's clock jumped as well, as after sleep.
    """

    before_ms: int
    after_ms: int


class Agreement:
    """The agreed time of one exchange.

    Attributes:
        line: the agreed time line; None until the witnesses agree.
        jumps: number of jumps of the agreed time.
        last_jump: the last jump; None before the first one.
        needs_server_time: whether a REST answer would settle a disagreement.
    """

    def __init__(self) -> None:
        self.line: TimeLine | None = None
        self.jumps = 0
        self.last_jump: Jump | None = None
        self.needs_server_time = False
        # The time line of REST's answers that disagree, and the time line that needs a second witness.
        self._rival: TimeLine | None = None
        self._unconfirmed: TimeLine | None = None
        self._rest_answered_s: float | None = None
        # The time line of the streams' event times.
        self._stream_line: TimeLine | None = None
        # The wall clock minus the agreed time; None while the difference is not steady.
        self._host_lead_ms: float | None = None
        self._confirmed_s = float("-inf")
        self._late_since_s: float | None = None
        self._claims: list[ClockClaim] = []
        self._latest_claims: list[ClockClaim] = []

    def latest_ms(self, now_s: float, wall_ms: float) -> float:
        """Return the latest event time that a correct frame can have now."""
        if self.line is None:
            return wall_ms + HOST_WRONG_MS
        return self.line.most_ms(now_s) + self.line.slack_ms()

    def observe_server_time(self, moment: Moment, wall_ms: float) -> bool:
        """Add a reading by REST; return whether the agreed time accepts it."""
        self.needs_server_time = not moment.sane
        if not moment.sane:
            return False
        self._rest_answered_s = moment.answered_s
        if self.line is not None and self.line.fits(moment):
            self.line.sync(moment)
            self._rival = self._unconfirmed = None
            self._update_host_lead(moment.answered_s, wall_ms)
            return True
        rival = self._extended_rival(moment)
        # Any two moments fit some rate. With fewer than three moments, only the last one counts.
        line = self._unconfirmed = rival if rival.moments >= _MOMENTS_MIN else TimeLine(moment, self.line)
        if self._is_believed(rival, line, moment, wall_ms):
            self._adopt(line, moment.answered_s, wall_ms)
            return True
        self.needs_server_time = True
        return False

    def observe_event_time(self, series: Series, event_ms: int, now_s: float, wall_ms: float) -> bool:
        """Add a closed candle's event time; return whether it is plausible."""
        claim = ClockClaim(series, event_ms, now_s)
        if self._rest_answered_s is None:
            self._follow_streams(claim, wall_ms)
        if self.line is None:
            return self._observe_first(claim, wall_ms)
        if event_ms > self.latest_ms(now_s, wall_ms):
            return self._observe_ahead(self.line, claim, wall_ms)
        if event_ms >= self.line.least_ms(now_s) - LATE_S * 1000 * self.line.rate:
            self._confirmed_s, self._late_since_s = now_s, None
            self._update_host_lead(now_s, wall_ms)
            self._refine(self.line, claim)
        else:
            self._observe_late(self.line, claim, wall_ms)
        return True

    def _follow_streams(self, claim: ClockClaim, wall_ms: float) -> None:
        """Add a frame's time to the stream time line, which measures a sandbox's rate before REST answers."""
        moment = _moment_of(claim)
        if self._stream_line is None or not self._stream_line.may_fit(moment):
            self._stream_line = TimeLine(moment)
            return
        self._stream_line.sync(moment)
        fast = (
            self._stream_line.moments >= _MOMENTS_MIN
            and self._stream_line.rated
            and self._stream_line.rate > 1
        )
        if fast and (self.line is None or not self.line.rated):
            self._adopt(self._stream_line, claim.heard_s, wall_ms)

    def _observe_first(self, claim: ClockClaim, wall_ms: float) -> bool:
        """Add a claim while the time is unknown; return whether it is plausible.

        Its time is accepted if the host, REST or another series confirms it.
        """
        if self._unconfirmed is not None and _confirms(claim, self._unconfirmed):
            self._adopt(self._unconfirmed, claim.heard_s, wall_ms)
        elif abs(wall_ms - claim.event_ms) <= HOST_MS or self._has_second_series(claim, 1.0):
            self._adopt(_line_of(claim), claim.heard_s, wall_ms)
        self._remember(claim)
        return claim.event_ms <= self.latest_ms(claim.heard_s, wall_ms)

    def _observe_ahead(self, line: TimeLine, claim: ClockClaim, wall_ms: float) -> bool:
        """Add a claim ahead of the agreed time; return whether it is plausible.

        Its time is accepted only if another witness confirms it.
        """
        line_ms = line.least_ms(claim.heard_s)
        by_host = self._host_agrees(claim.event_ms, wall_ms)
        host_stays = self._host_agrees(line_ms, wall_ms)
        rest_silent = self._rest_answered_s is None or claim.heard_s - self._rest_answered_s > REST_SILENT_S
        if self._unconfirmed is not None and _confirms(claim, self._unconfirmed):
            self._adopt(self._unconfirmed, claim.heard_s, wall_ms)
        elif not host_stays and (by_host or (rest_silent and self._has_second_series(claim, line.rate))):
            self._adopt(_line_of(claim), claim.heard_s, wall_ms)
        else:
            self._remember(claim)
            self.needs_server_time = True
        return claim.event_ms <= self.latest_ms(claim.heard_s, wall_ms)

    def _observe_late(self, line: TimeLine, claim: ClockClaim, wall_ms: float) -> None:
        """Add a claim behind the agreed time. Adopt REST's time or the host's time if the claim confirms it.

        The host's time also needs two series that confirm it, and INSIST_S seconds in which
        every claim was late.
        """
        if self._unconfirmed is not None and _confirms(claim, self._unconfirmed):
            self._adopt(self._unconfirmed, claim.heard_s, wall_ms)
            return
        self._remember(claim)
        by_host = abs(wall_ms - claim.event_ms) <= HOST_MS
        if not by_host or abs(wall_ms - line.least_ms(claim.heard_s)) <= HOST_MS:
            return
        if self._late_since_s is None:
            self._late_since_s = claim.heard_s
        elif claim.heard_s - self._late_since_s >= INSIST_S and self._has_second_series(claim, line.rate):
            self._adopt(_line_of(claim), claim.heard_s, wall_ms)

    def _extended_rival(self, moment: Moment) -> TimeLine:
        """Return the time line of REST moments that agree with this moment, but not with the agreed time."""
        rival = self._rival
        if rival is None and self.line is not None and not self.line.rated:
            rival = TimeLine(self.line.first)  # the assumed rate may be wrong
        if rival is None or not rival.may_fit(moment):
            rival = TimeLine(moment)
        else:
            rival.sync(moment)
        self._rival = rival
        return rival

    def _is_believed(self, rival: TimeLine, line: TimeLine, moment: Moment, wall_ms: float) -> bool:
        """Return whether another witness confirms REST, or REST has repeated it often enough."""
        if any(_confirms(earlier, line) for earlier in self._recent(moment.answered_s)):
            return True
        by_host = self._host_agrees(moment.server_ms, wall_ms)
        repeated = rival.rated and rival.moments >= _MOMENTS_MIN
        if self.line is None:
            return by_host or repeated
        if rival.first == self.line.first:
            return repeated
        if by_host and not self._host_agrees(self.line.least_ms(moment.answered_s), wall_ms):
            return True
        if self._confirmed_s >= rival.first.asked_s:
            return False
        long = moment.answered_s - rival.first.answered_s >= INSIST_S
        return (by_host and rival.moments > 1) or (repeated and long)

    def _adopt(self, line: TimeLine, now_s: float, wall_ms: float) -> None:
        old = self.line
        if old is not None and _contradicts(line, old, now_s):
            before_ms, after_ms = old.least_ms(now_s), line.least_ms(now_s)
            lead_ms = self._host_lead_ms
            if lead_ms is not None and abs(wall_ms - lead_ms - after_ms) <= HOST_MS:
                before_ms = after_ms
            self.jumps += 1
            self.last_jump = Jump(int(before_ms), int(after_ms))
        self.line, self._rival, self._unconfirmed, self.needs_server_time = line, None, None, False
        self._late_since_s = self._host_lead_ms = None
        self._claims.clear()
        self._latest_claims.clear()
        self._update_host_lead(now_s, wall_ms)

    def _update_host_lead(self, now_s: float, wall_ms: float) -> None:
        if self.line is not None:
            steady = self.line.rate == 1.0
            self._host_lead_ms = wall_ms - self.line.least_ms(now_s) if steady else None

    def _host_agrees(self, time_ms: float, wall_ms: float) -> bool:
        """Return whether the host's clock shows this time, directly or corrected by its previous error."""
        lead_ms = self._host_lead_ms or 0.0
        return min(abs(wall_ms - time_ms), abs(wall_ms - lead_ms - time_ms)) <= HOST_MS

    def _refine(self, line: TimeLine, claim: ClockClaim) -> None:
        """Raise the time line's lower bound to a time that two series have shown. One series has no effect."""
        now_s, ms_per_s = claim.heard_s, 1000 * line.rate
        # The time now, by the claims of other series.
        shown = [
            (earlier.event_ms + (now_s - earlier.heard_s) * ms_per_s, earlier)
            for earlier in self._latest_claims
            if earlier.series != claim.series
        ]
        if len(shown) == 2 and claim.event_ms <= min(shown[0][0], shown[1][0]) <= line.least_ms(now_s):
            return  # as most claims of a burst: two others show more, and the bound has reached them
        shown.append((claim.event_ms, claim))
        shown.sort(reverse=True)
        self._latest_claims = [candidate for _, candidate in shown[:2]]
        if len(shown) > 1 and shown[1][0] > line.least_ms(now_s):
            line.raise_least(shown[1][0], now_s)

    def _has_second_series(self, claim: ClockClaim, rate: float) -> bool:
        for earlier in self._recent(claim.heard_s):
            passed_ms = (claim.heard_s - earlier.heard_s) * 1000 * rate
            near = abs(earlier.event_ms + passed_ms - claim.event_ms) <= LATE_S * 1000 * rate
            if earlier.series != claim.series and near:
                return True
        return False

    def _recent(self, now_s: float) -> list[ClockClaim]:
        return [earlier for earlier in self._claims if now_s - earlier.heard_s <= _CLAIM_S]

    def _remember(self, claim: ClockClaim) -> None:
        others = [earlier for earlier in self._recent(claim.heard_s) if earlier.series != claim.series]
        self._claims = [*others, claim][-_CLAIMS_MAX:]


def _contradicts(new: TimeLine, old: TimeLine, now_s: float) -> bool:
    """Return whether a new time line says more than the rate of the old one, which was not known."""
    if new.first == old.first or (new.rated and not old.rated and new.passes(old.first)):
        return False
    return old.is_rate_settled(now_s) or not old.may_fit(new.first)


def _line_of(claim: ClockClaim) -> TimeLine:
    return TimeLine(_moment_of(claim))


def _moment_of(claim: ClockClaim) -> Moment:
    return Moment(claim.event_ms, claim.heard_s - LATE_S, claim.heard_s)


def _confirms(claim: ClockClaim, line: TimeLine) -> bool:
    return line.confirms(claim.event_ms, claim.heard_s, LATE_S)
