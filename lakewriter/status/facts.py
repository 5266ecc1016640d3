"""The status of a lake, as one value that the command line and pages show."""

from typing import Literal

import msgspec

from lakewriter.lake.compaction_record import CompactionRecord
from lakewriter.recording.status import FlushRecord, OverdueSeries
from lakewriter.status.open_gaps import OpenGaps
from lakewriter.status.recorders import RecorderFacts, RemoteRecorder
from lakewriter.status.size import LakeSize


class DiskState(msgspec.Struct, frozen=True, kw_only=True):
    """The disk of a lake, and when it will be full.

    Args:
        free_bytes: bytes that this user may still write.
        total_bytes: the size of the disk.
        free_files, total_files: files that can still be created, and all; None if the disk has
            no such limit.
        growth_bytes_a_day: the growth that the forecast uses; None if unknown.
        growth_is_measured: whether a recorder measured the free bytes for an hour or more, so
            that the growth is of all programs. Otherwise it is the growth of the recorded
            series, from their files.
        days_until_full: the free bytes divided by the growth; None without growth.
    """

    free_bytes: int
    total_bytes: int
    free_files: int | None
    total_files: int | None
    growth_bytes_a_day: int | None
    growth_is_measured: bool
    days_until_full: float | None


AttentionKind = Literal[
    "dead_recorder",
    "silent_host",
    "hanging_recorder",
    "disk_full",
    "disk_refuses",
    "journal_full",
    "store_away",
    "overdue",
    "unrecorded",
    "time_unknown",
    "brings_nothing",
    "unmerged",
    "damaged_journal",
    "gaps",
    "disk_full_soon",
    "clock_off",
    "compaction_failed",
]


class Attention(msgspec.Struct, frozen=True):
    """Something that needs a person.

    Args:
        kind: a name that does not change, for programs.
        sentence: what is wrong.
        command: a command line that shows more, or mends it.
    """

    kind: AttentionKind
    sentence: str
    command: str


class LakeStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The status of a lake. The sums are of all living recorders.

    Args:
        lake: the lake's name.
        at_ms: the time of the status.
        recorders: the recorders on this host, living ones first.
        remote_recorders: the recorders on other hosts of a lake on an object store, by their
            last reports. The sums leave them out.
        series: series that are listened to.
        live_series, polled_series, silent_series, overdue_series: as in `RecorderStatus`.
        most_overdue: the most overdue series; None if no candle is late.
        lag_ms: the largest `lag_ms` of a recorder; None without a streamed candle.
        candles_today: candles recorded on the present UTC day, by living recorders and dead
            ones that left a journal.
        today_since_ms: the start of the oldest of these recorders, if it started today; else None.
        queued: candles that were received, and wait for their commit.
        buffered: candles in journals that are not in partitions yet, also of dead recorders.
        journal_bytes: the size of all journals.
        healing_series, healing_candles: what the recorders request from REST.
        last_flush: the last flush of a living recorder.
        clock_offset_ms: the host's clock minus the exchange's; None if unknown.
        gaps: the open gaps, by the ledgers.
        unrecorded_series: series that are subscribed to, and that no living recorder records.
        unrecorded_example: the one that was recorded longest ago.
        unrecorded_ms: the time since its last recorder confirmed it, by the exchange's clock.
            A recorder confirms every five minutes.
        last_compaction: None if the lake was never compacted.
        size: the size of the lake.
        disk: its disk; None on an object store.
        attention: what needs a person, the most urgent first.
        store_away: the reason why the lake's object store does not answer; "" if it does. Then
            gaps and size are not known.
    """

    lake: str
    at_ms: int
    recorders: tuple[RecorderFacts, ...]
    series: int
    live_series: int
    polled_series: int
    silent_series: int
    overdue_series: int
    most_overdue: OverdueSeries | None
    lag_ms: int | None
    candles_today: int
    today_since_ms: int | None
    queued: int
    buffered: int
    journal_bytes: int
    healing_series: int
    healing_candles: int
    last_flush: FlushRecord | None
    clock_offset_ms: int | None
    gaps: OpenGaps
    last_compaction: CompactionRecord | None
    size: LakeSize
    disk: DiskState | None
    remote_recorders: tuple[RemoteRecorder, ...] = ()
    unrecorded_series: int = 0
    unrecorded_example: tuple[str, str, str] | None = None
    unrecorded_ms: int = 0
    attention: tuple[Attention, ...] = ()
    store_away: str = ""
