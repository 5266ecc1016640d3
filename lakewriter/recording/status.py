"""Counts of a recorder: its running counts, and a snapshot of them as its status.

`Recorder.status` fills the status; the command line shows it. The healer and the
listener have their own counts.
"""

import msgspec

from lakewriter.candle import Candle
from lakewriter.recording.histogram import Distribution, Histogram


class RecorderStats(msgspec.Struct):
    """Counts since a recorder started.

    Args:
        recorded: candles whose journal commit returned.
        flushed: candles merged into partitions.
        flushes: flushes that ended.
        corrections: rows replaced by rows with other prices or volumes.
        unmerged_partitions: partitions that the last flush could not merge.
        refusals: commits that the disk refused; each was retried.
        commit_candles: number of candles in a journal commit.
        commit_ms: duration of a commit, including the wait for its turn.
        last: the candle recorded last.
    """

    recorded: int = 0
    flushed: int = 0
    flushes: int = 0
    corrections: int = 0
    unmerged_partitions: int = 0
    refusals: int = 0
    commit_candles: Histogram = msgspec.field(default_factory=Histogram)
    commit_ms: Histogram = msgspec.field(default_factory=Histogram)
    last: Candle | None = None


class Freshness(msgspec.Struct):
    """Milliseconds from a candle's end to its commit, by the exchange's clock.

    Args:
        streamed: candles that a stream delivered.
        healed: candles that ended during the recording and that REST delivered.
    """

    streamed: Histogram = msgspec.field(default_factory=Histogram)
    healed: Histogram = msgspec.field(default_factory=Histogram)


class RecorderStatus(msgspec.Struct, frozen=True):
    """A snapshot of a recorder's counts.

    Args:
        recorded: candles whose journal commit returned.
        flushed: candles merged into partitions.
        buffered: candles in the journal that are not in their partitions yet.
        unmerged_partitions: partitions that the last flush could not merge.
        last: the candle recorded last.
        commit_candles: number of candles in a journal commit.
        commit_ms: duration of a commit.
        streamed_ms: time from a streamed candle's end to its commit.
        rest_ms: time from the end of a candle that REST delivered to its commit.
        series: series that are listened to.
        silent_series: series whose stream is silent, and whose candles REST delivers.
        connections: open sockets.
        bad_frames: frames that could not be read.
        pages_asked: pages requested by the healer.
        healed: candles that REST delivered and the stream did not.
        explained: candles that the exchange does not have, with a reason.
        unhealable: candles that were given up after an error.
        healing_series: series with pending candles.
    """

    recorded: int
    flushed: int
    buffered: int
    unmerged_partitions: int
    last: Candle | None
    commit_candles: Distribution
    commit_ms: Distribution
    streamed_ms: Distribution
    rest_ms: Distribution
    series: int
    silent_series: int
    connections: int
    bad_frames: int
    pages_asked: int
    healed: int
    explained: int
    unhealable: int
    healing_series: int
