"""Counts of a recorder: its running counts, and a snapshot of them as its status.

`Recorder.status` fills the status. The command line shows it, and `self_report`
publishes it for other processes. The healer and the listener have their own counts.

Times that end in `_at_ms` are the host's, in milliseconds since the epoch. Others are
the exchange's.
"""

import msgspec

from lakewriter.candle import Candle
from lakewriter.interval import DAY_MS
from lakewriter.recording.histogram import Distribution, Histogram
from lakewriter.series import Series

# A host that is synchronized differs from the exchange by less than this.
CLOCK_OFF_MS = 2_000

# A commit that has not returned for longer means that the disk refuses writes or hangs.
COMMIT_WAITS_MS = 10_000

# A market's time is known within seconds of the start, if REST answers.
TIME_UNKNOWN_MS = 60_000


class DayCount(msgspec.Struct):
    """The number of candles of a UTC day, and the day's number since the epoch."""

    day: int = 0
    candles: int = 0

    def add(self, candles: int, at_ms: int) -> None:
        """Count candles; a new day starts at 0."""
        day = at_ms // DAY_MS
        if day != self.day:
            self.day, self.candles = day, 0
        self.candles += candles

    def on(self, at_ms: int) -> int:
        """Return the number of candles of the day that contains a time."""
        return self.candles if at_ms // DAY_MS == self.day else 0


class FlushRecord(msgspec.Struct, frozen=True):
    """A flush that ended.

    Args:
        ended_at_ms: the time of its end.
        candles: candles merged into partitions.
        partitions: partitions that were merged.
        seconds: its duration.
    """

    ended_at_ms: int
    candles: int
    partitions: int
    seconds: float


class RecorderStats(msgspec.Struct):
    """Counts since a recorder started.

    Args:
        recorded: candles whose journal commit returned.
        flushed: candles merged into partitions.
        flushes: flushes that ended.
        corrections: rows replaced by rows with other prices or volumes.
        unmerged_partitions: partitions that the last flush could not merge.
        refusals: commits that the disk refused; each was retried.
        committing_since_s: monotonic time at which the present commit began; None without one.
        today: candles whose commit returned on the present UTC day of the host.
        last_flush: the last flush that ended.
        commit_candles: number of candles in a journal commit.
        commit_us: duration of a commit, including the wait for its turn, in whole microseconds.
        flush_ms: duration of the merges of a flush, in whole milliseconds.
        last: the candle recorded last.
    """

    recorded: int = 0
    flushed: int = 0
    flushes: int = 0
    corrections: int = 0
    unmerged_partitions: int = 0
    refusals: int = 0
    commit_candles: Histogram = msgspec.field(default_factory=Histogram)
    commit_us: Histogram = msgspec.field(default_factory=Histogram)
    flush_ms: Histogram = msgspec.field(default_factory=Histogram)
    last: Candle | None = None
    committing_since_s: float | None = None
    today: DayCount = msgspec.field(default_factory=DayCount)
    last_flush: FlushRecord | None = None


class Freshness(msgspec.Struct):
    """Milliseconds from a candle's end to its commit, by the exchange's clock.

    Args:
        streamed: candles that a stream delivered.
        healed: candles that ended during the recording and that REST delivered.
        last_streamed_ms: this time of the candle that a stream delivered last; None before the first.
    """

    streamed: Histogram = msgspec.field(default_factory=Histogram)
    healed: Histogram = msgspec.field(default_factory=Histogram)
    last_streamed_ms: int | None = None

    def add(self, age_ms: int, *, is_streamed: bool) -> None:
        """Count a candle that was committed `age_ms` after its end."""
        if is_streamed:
            self.streamed.add(age_ms)
            self.last_streamed_ms = age_ms
        else:
            self.healed.add(age_ms)


class OverdueSeries(msgspec.Struct, frozen=True):
    """A series with a late candle.

    Args:
        market, symbol, interval: the series.
        begin_ms: the begin time of its first late candle.
        overdue_ms: the time since that candle's deadline, which is its end and a grace period.
        is_absent: whether REST has answered since the deadline, and lacks the candle too.
    """

    market: str
    symbol: str
    interval: str
    begin_ms: int
    overdue_ms: int
    is_absent: bool = False

    @property
    def series(self) -> Series:
        """The series."""
        return Series(self.market, self.symbol, self.interval)


class SilentSeries(msgspec.Struct, frozen=True):
    """A series that brought no candle although one was due.

    Args:
        market, symbol, interval: the series.
        since_ms: the time since which it is listened to.
        silent_ms: the time since the deadline of its first candle.
    """

    market: str
    symbol: str
    interval: str
    since_ms: int
    silent_ms: int

    @property
    def series(self) -> Series:
        """The series."""
        return Series(self.market, self.symbol, self.interval)


class MarketStatus(msgspec.Struct, frozen=True):
    """The state of one market.

    Args:
        market: the market's name.
        series: series that are listened to.
        connections: open sockets.
        reconnects: connections that ended and were reopened.
        rotations: connections replaced because of their age or their server's shutdown.
        replaced: connections replaced because streams were silent on them.
        exchange_ms: the exchange's time; None while it is unknown. No candle is expected then.
        clock_rate: seconds of the exchange's clock per real second. It is 1, except in a sandbox.
        clock_offset_ms: the host's clock minus the exchange's, exact to a round trip. None
            while unknown, or if the rate is not 1.
        stuck_series: series whose next candle is overdue for more than a minute, and for which
            REST does not answer either.
    """

    market: str
    series: int
    connections: int
    reconnects: int
    rotations: int
    replaced: int
    exchange_ms: int | None = None
    clock_rate: float = 1.0
    clock_offset_ms: int | None = None
    stuck_series: int = 0


class DiskUse(msgspec.Struct, frozen=True):
    """The disk of the lake, as a recorder measures it once a minute.

    Args:
        free_bytes: bytes that this user may still write.
        total_bytes: the size of the disk.
        growth_bytes_a_day: the decrease of the free bytes a day, by all programs, measured
            over at least an hour. None before, or if they do not decrease.
    """

    free_bytes: int
    total_bytes: int
    growth_bytes_a_day: int | None = None


class RecorderStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot of a recorder's counts. Counts begin with the recorder.

    Args:
        recorder: the path of its config, or "command line".
        version: its version of lakewriter.
        host: the name of its host.
        pid: its process id.
        started_at_ms: the time of its start.
        at_ms: the time of this snapshot.
        subscriptions: its subscriptions, as the user wrote them.
        series: series that are listened to.
        live_series: those whose stream delivers, or whose first candle is not due yet.
        polled_series: those whose stream is silent, and whose candles REST delivers.
        silent_series: those that brought no candle although one was due. Live, polled and
            silent series add up to all series.
        overdue_series: those with a late candle, neither recorded nor explained. Each is also
            live, polled or silent.
        most_overdue: some of the overdue series. Those that REST lacks too come last;
            otherwise the most overdue comes first.
        silent_longest: some of the silent series, the longest silent first.
        markets: the state of each market.
        connections: open sockets.
        reconnects: connections that ended and were reopened.
        rotations: connections replaced because of their age or their server's shutdown.
        replaced: connections replaced because streams were silent on them.
        bad_frames: frames that could not be read.
        clock_offset_ms: the largest `clock_offset_ms` of a market, by its absolute value.
        recorded: candles whose journal commit returned.
        candles_today: those of the present UTC day of the host.
        last: the candle recorded last.
        lag_ms: the time from the end of the candle streamed last to its commit; None before it.
        streamed_ms: time from a streamed candle's end to its commit.
        rest_ms: time from the end of a candle that REST delivered to its commit.
        queued: candles that were received, and wait for their commit.
        queue_max: the number of queued candles at which sockets are not read.
        commit_candles: number of candles in a journal commit.
        commit_ms: duration of a commit.
        commit_waits_ms: the time for which the present commit has not returned. It is long if
            the disk refuses writes or hangs. 0 without a commit.
        refusals: commits that the disk refused; each was retried.
        journal_bytes: the size of the journal's segments.
        journal_bytes_max: recording waits at this size; None of a recorder without the limit.
        store_away_ms: the time for which the lake's object store has been away; None if it is not.
        buffered: candles in the journal that are not in their partitions yet.
        flushed: candles merged into partitions.
        flushes: flushes that ended.
        last_flush: the last of them.
        unmerged_partitions: partitions that the last flush could not merge.
        corrections: rows replaced by rows with other prices or volumes.
        healing_series: series with pending candles.
        healing_candles: pending candles, which are requested until they arrive or are explained.
        pages_asked: pages requested by the healer.
        healed: candles that REST delivered and the stream did not.
        explained: candles that the exchange does not have, with a reason.
        unhealable: candles that were given up after an error.
        disk: the disk of the lake; None before its first measurement.
    """

    recorder: str
    version: str
    host: str
    pid: int
    started_at_ms: int
    at_ms: int
    subscriptions: tuple[str, ...]
    series: int
    live_series: int
    polled_series: int
    silent_series: int
    overdue_series: int
    most_overdue: tuple[OverdueSeries, ...]
    silent_longest: tuple[SilentSeries, ...]
    markets: tuple[MarketStatus, ...]
    connections: int
    reconnects: int
    rotations: int
    replaced: int
    bad_frames: int
    clock_offset_ms: int | None
    recorded: int
    candles_today: int
    last: Candle | None
    lag_ms: int | None
    streamed_ms: Distribution
    rest_ms: Distribution
    queued: int
    queue_max: int
    commit_candles: Distribution
    commit_ms: Distribution
    commit_waits_ms: int
    refusals: int
    journal_bytes: int
    buffered: int
    flushed: int
    flushes: int
    last_flush: FlushRecord | None
    unmerged_partitions: int
    corrections: int
    healing_series: int
    healing_candles: int
    pages_asked: int
    healed: int
    explained: int
    unhealable: int
    disk: DiskUse | None
    journal_bytes_max: int | None = None
    store_away_ms: int | None = None
