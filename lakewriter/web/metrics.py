"""The metrics of a recorder, in Prometheus' text format.

Strategy: the recorder counts anyway. Each scrape reads its counts into metric families;
nothing is updated between scrapes. Names follow Prometheus' rules: base units,
`_total` for counters, `_seconds` and `_bytes`. A label has few values and they are
known in advance, except a pool's name. No label has a symbol, so 3,000 series need no
more metrics than one.

docs/reference/metrics.md explains each metric; a test compares the names.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from lakewriter.gap import REASONS
from lakewriter.recording.health import judge
from lakewriter.recording.histogram import Histogram
from lakewriter.recording.listening import reopening
from lakewriter.recording.status import DiskUse, RecorderStatus
from lakewriter.recording.status_snapshot import MarketCounters, RecorderCounters

PREFIX = "lakewriter_"

# Frames that are no open candle, by kind; see `ListenerStats`.
_FRAMES = ("closed_candle", "reply", "shutdown", "unreadable", "other")

# The kinds of frames that are dropped; see `FrameError` and `CandleSink`.
_DROPPED = ("ahead", "interval", "json", "number", "shape", "size", "stray", "symbol", "time")

# Bounds of the histograms, as exponents of two. A power of two begins a bucket of `Histogram`,
# so that the counts are exact.
_LAG_MS = range(2, 18)  # 4 ms to 131 s
_COMMIT_US = range(8, 25)  # 0.26 ms to 17 s
_FLUSH_MS = range(3, 18)  # 8 ms to 131 s


class RecorderMetrics:
    """The metrics of one recorder, with a registry of their own.

    Args:
        status: returns the recorder's status.
        counters: returns its counts in detail.
    """

    def __init__(
        self, status: Callable[[], RecorderStatus], counters: Callable[[], RecorderCounters]
    ) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_RecorderCollector(status, counters))
        ProcessCollector(registry=self._registry)

    def text(self) -> bytes:
        """Return the present metrics in the text format, version 0.0.4."""
        return generate_latest(self._registry)


class _RecorderCollector(Collector):
    """The recorder's counts as metric families."""

    def __init__(
        self, status: Callable[[], RecorderStatus], counters: Callable[[], RecorderCounters]
    ) -> None:
        self._status = status
        self._counters = counters

    def describe(self) -> Iterable[Metric]:
        """Return nothing, because the registry has no other collector with these names."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics."""
        status, counters = self._status(), self._counters()
        yield from _recorder(status)
        yield from _series(status)
        yield from _candles(status, counters)
        yield from _journal(status, counters)
        yield from _connections(counters.markets)
        yield from _healing(status, counters)
        yield from _exchange(status, counters)
        if status.disk is not None:
            yield from _disk(status.disk)


def _recorder(status: RecorderStatus) -> Iterator[Metric]:
    yield InfoMetricFamily(PREFIX + "build", "The version of lakewriter.", {"version": status.version})
    health = judge(status)
    yield _gauge(
        "healthy", "Whether candles become durable in time, as /healthz answers.", health.status == "ok"
    )
    yield _gauge(
        "starting",
        "Whether it waits for its first candle, and nothing is overdue.",
        health.status == "starting",
    )
    yield _gauge(
        "stuck", "Whether a restart may help: the systemd watchdog is not fed then.", health.is_stuck
    )


def _series(status: RecorderStatus) -> Iterator[Metric]:
    states = {"live": status.live_series, "polled": status.polled_series, "silent": status.silent_series}
    yield _gauges("series", "Series that are listened to, by state.", "state", states)
    yield _gauge(
        "overdue_series",
        "Series with a candle that missed its deadline and is not explained.",
        status.overdue_series,
    )
    overdue_ms = max((each.overdue_ms for each in status.most_overdue if not each.is_absent), default=0)
    yield _gauge(
        "overdue_seconds",
        "Time since the oldest deadline that REST has not answered either.",
        overdue_ms / 1000,
    )


def _candles(status: RecorderStatus, counters: RecorderCounters) -> Iterator[Metric]:
    yield _counter("candles_recorded", "Candles that are durable in the journal.", status.recorded)
    yield _counter("candles_flushed", "Candles that were merged into partitions.", status.flushed)
    yield _counter("candles_corrected", "Rows replaced by rows with other values.", status.corrections)
    if status.last is not None:
        yield _gauge(
            "last_candle_end_timestamp_seconds",
            "End of the candle recorded last, by the exchange's clock.",
            status.last.end_ms / 1000,
        )
    freshness = counters.freshness
    yield _histograms(
        "candle_lag_seconds",
        "Time from a candle's end to its commit, by the exchange's clock.",
        {"stream": freshness.streamed, "rest": freshness.healed},
        "source",
        exponents=_LAG_MS,
        units_per_s=1_000,
    )
    yield _gauge("queue_candles", "Candles that wait for their commit.", status.queued)
    yield _gauge(
        "queue_candles_max", "Size of the queue; sockets are not read when it is full.", status.queue_max
    )


def _journal(status: RecorderStatus, counters: RecorderCounters) -> Iterator[Metric]:
    stats = counters.stats
    yield _histogram(
        "commit_duration_seconds",
        "Duration of a commit to the journal, with its sync.",
        stats.commit_us,
        exponents=_COMMIT_US,
        units_per_s=1_000_000,
    )
    yield _gauge(
        "commit_wait_seconds", "Time for which the present commit has waited.", status.commit_waits_ms / 1000
    )
    yield _counter("commit_refusals", "Commits that the disk refused; each was retried.", status.refusals)
    yield _gauge("journal_bytes", "Size of the journal's segments.", status.journal_bytes)
    if status.journal_bytes_max is not None:
        yield _gauge(
            "journal_bytes_max", "Recording waits at this size of the journal.", status.journal_bytes_max
        )
    yield _gauge(
        "store_away_seconds",
        "Time for which the lake's object store has been away; 0 if it is not.",
        (status.store_away_ms or 0) / 1000,
    )
    yield _gauge("journal_candles", "Candles in the journal that wait for a flush.", status.buffered)
    yield _histogram(
        "flush_duration_seconds",
        "Duration of a flush, which merges the journal into partitions.",
        stats.flush_ms,
        exponents=_FLUSH_MS,
        units_per_s=1_000,
    )
    if status.last_flush is not None:
        yield _gauge(
            "last_flush_timestamp_seconds",
            "End of the last flush, by the host's clock.",
            status.last_flush.ended_at_ms / 1000,
        )
    yield _gauge(
        "unmerged_partitions", "Partitions that the last flush could not merge.", status.unmerged_partitions
    )


def _connections(markets: Mapping[str, MarketCounters]) -> Iterator[Metric]:
    stats = {name: market.listening for name, market in markets.items()}
    sockets = {name: each.connections for name, each in stats.items()}
    yield _gauges("connections", "Open sockets.", "market", sockets)
    streams = {name: each.connected_streams for name, each in stats.items()}
    yield _gauges("connected_streams", "Streams that the exchange acknowledged.", "market", streams)
    reconnects = CounterMetricFamily(
        PREFIX + "reconnects", "Connections that were reopened or replaced.", labels=["market", "reason"]
    )
    dropped = CounterMetricFamily(
        PREFIX + "frames_dropped", "Frames that were not used, by reason.", labels=["market", "reason"]
    )
    frames = CounterMetricFamily(
        PREFIX + "frames", "Frames that were received, by kind.", labels=["market", "kind"]
    )
    for name, market in markets.items():
        listening = market.listening
        for reason in reopening.REASONS:
            reconnects.add_metric([name, reason], listening.reopened[reason])
        for kind in dict.fromkeys((*_DROPPED, *listening.bad_frames)):
            dropped.add_metric([name, kind], listening.bad_frames[kind])
        dropped.add_metric([name, "duplicate"], listening.duplicates)
        dropped.add_metric([name, "left"], listening.strays)
        for kind in _FRAMES:
            frames.add_metric([name, kind], listening.frames[kind])
        frames.add_metric([name, "open_candle"], market.frames - listening.frames.total())
    yield reconnects
    yield frames
    yield dropped


def _healing(status: RecorderStatus, counters: RecorderCounters) -> Iterator[Metric]:
    healing = counters.healing
    yield _counter("heal_requests", "Pages that the healer requested from REST.", healing.asked)
    yield _counter("heal_errors", "Pages that REST did not deliver.", healing.errors)
    yield _counter("healed_candles", "Candles that REST delivered and the stream did not.", healing.healed)
    yield _counter("heal_corrections", "Candles whose second request had more trades.", healing.corrected)
    yield _counter(
        "explained_candles", "Candles that the exchange does not have, with a reason.", healing.explained
    )
    yield _gauge("healing_series", "Series with missing candles that are requested.", status.healing_series)
    gaps: dict[str, float] = {reason: counters.gaps[reason] for reason in REASONS}
    yield _gauges("gap_candles", "Absent candles in this recorder's ledger, by reason.", "reason", gaps)


def _exchange(status: RecorderStatus, counters: RecorderCounters) -> Iterator[Metric]:
    offsets = {
        each.market: each.clock_offset_ms / 1000
        for each in status.markets
        if each.clock_offset_ms is not None
    }
    yield _gauges(
        "clock_offset_seconds",
        "The host's clock minus the exchange's, exact to a round trip.",
        "market",
        offsets,
    )
    pools = {pool.name.removeprefix("REST "): pool for pool in counters.pools}
    weight = {name: pool.weight for name, pool in pools.items()}
    yield _gauges(
        "rest_weight", "Request weight of the last minute, by all processes of this host.", "pool", weight
    )
    limits = {name: pool.weight_max for name, pool in pools.items()}
    yield _gauges("rest_weight_max", "The exchange's limit of request weight per minute.", "pool", limits)
    spent = CounterMetricFamily(
        PREFIX + "rest_weight_spent", "Request weight that this process spent.", labels=["pool"]
    )
    for name, pool in pools.items():
        spent.add_metric([name], pool.spent)
    yield spent
    blocked = {name: pool.blocked_s for name, pool in pools.items()}
    yield _gauges("rest_blocked_seconds", "Time until the exchange accepts requests again.", "pool", blocked)


def _disk(disk: DiskUse) -> Iterator[Metric]:
    yield _gauge(
        "disk_free_bytes", "Bytes that may still be written to the disk of the lake.", disk.free_bytes
    )
    yield _gauge("disk_size_bytes", "Size of the disk of the lake.", disk.total_bytes)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(PREFIX + name, text, value=float(value))


def _gauges(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(PREFIX + name, text, labels=[label])
    for value_of, value in values.items():
        family.add_metric([value_of], value)
    return family


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(PREFIX + name, text, value=value)


def _histogram(name: str, text: str, histogram: Histogram, *, exponents: range, units_per_s: int) -> Metric:
    buckets, total_s = _buckets(histogram, exponents, units_per_s)
    return HistogramMetricFamily(PREFIX + name, text, buckets=buckets, sum_value=total_s)


def _histograms(
    name: str,
    text: str,
    histograms: Mapping[str, Histogram],
    label: str,
    *,
    exponents: range,
    units_per_s: int,
) -> Metric:
    family = HistogramMetricFamily(PREFIX + name, text, labels=[label])
    for value_of, histogram in histograms.items():
        buckets, total_s = _buckets(histogram, exponents, units_per_s)
        family.add_metric([value_of], buckets, total_s)
    return family


def _buckets(
    histogram: Histogram, exponents: range, units_per_s: int
) -> tuple[list[tuple[str, float]], float]:
    """Return the upper bounds in seconds with the cumulative counts, and the sum in seconds."""
    counts = histogram.counts_below(exponents)
    bounds = [str((1 << exponent) / units_per_s) for exponent in exponents]
    return [*zip(bounds, counts, strict=True), ("+Inf", histogram.count)], histogram.total / units_per_s
