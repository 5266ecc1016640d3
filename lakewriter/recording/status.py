"""Counts of a recorder: those it keeps while it runs, and the status made of them at one moment.

`Recorder.status` fills the status; the command line shows it. The healer and the
listener keep counts of their own.
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
        corrections: rows replaced by ones with other prices or volumes.
        unmerged_partitions: partitions that the last flush could not merge.
        refusals: commits that the disk refused, and that were retried.
        commit_candles: candles in a journal commit.
        commit_ms: duration of a commit, with the wait for its turn.
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
    """A recorder at one moment.

    Args:
        recorded: candles whose journal commit returned.
        flushed: candles merged into partitions.
        buffered: candles in the journal and not in their partitions.
        unmerged_partitions: partitions that the last flush could not merge.
        last: the candle recorded last.
        commit_candles: candles in a journal commit.
        commit_ms: duration of a commit.
        streamed_ms: from a streamed candle's end to its commit.
        rest_ms: the same of candles that REST delivered.
        series: series that are listened to.
        silent_series: series whose stream is silent, and that are fetched by REST.
        connections: open sockets.
        bad_frames: frames that could not be read.
        pages_asked: pages asked for by the healer.
        healed: candles that REST had and the stream had not delivered.
        explained: candles that the exchange does not have, with a reason.
        unhealable: candles given up, with the error.
        healing_series: series with candles that are pending.
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
