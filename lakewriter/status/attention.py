"""What needs a person, as one sentence each and the command to run. Pure.

Rule 1: a lake without a recorder is no finding, unless its recorder died. Rule 2: what
mends itself within a minute is no finding.
"""

import shlex
from collections.abc import Iterable, Iterator, Sequence

from lakewriter.disk_forecast import FULL_SOON_DAYS
from lakewriter.interval import DAY_MS
from lakewriter.lake.journal_directories import JOURNAL_DIRECTORY
from lakewriter.recording.status import CLOCK_OFF_MS, COMMIT_WAITS_MS, TIME_UNKNOWN_MS, RecorderStatus
from lakewriter.series import Series
from lakewriter.status.facts import Attention, LakeStatus
from lakewriter.status.recorders import RecorderFacts
from lakewriter.status.wording import are, counted, duration_text
from lakewriter.subscribed_period import COMMAND_LINE
from lakewriter.suggested_commands import command_line, subscriptions_command
from lakewriter.written_size import size_text

# A recorder publishes its status every two seconds, unless it or its disk hangs.
HANGS_MS = 30_000

# A late candle is requested from REST at once. One that is late for longer, in real time, is
# a finding. So is a series that brought nothing for this long.
LATE_MS = 60_000

# A disk is full if less is free than both limits. Some file systems slow down before.
FULL_BYTES = 100_000_000
FULL_FILES = 1_000
FULL_SHARE = 0.01

# An object store that is away for less mends itself.
AWAY_MS = 60_000

# A recorder confirms its subscriptions every five minutes, and may be restarted in between.
UNRECORDED_MS = 6 * 60_000

_FILES_SHOWN = 3


def attention(status: LakeStatus, lake: str | None) -> tuple[Attention, ...]:
    """Return what needs a person, the most urgent first.

    Args:
        status: the status without its findings.
        lake: the lake as the user named it, for the commands; None for the default.
    """
    living = [(fact, fact.status) for fact in status.recorders if fact.status and fact.state == "recording"]
    statuses = [own for _, own in living]
    found: list[Attention] = []
    found += _disk_full(status)
    for fact, own in living:
        found += _hanging(fact, own, status.at_ms)
        found += _journal_full(own, lake)
        found += _refused(own, status.lake)
        found += _store_away(own, status, lake)
    if status.store_away and not any(each.kind == "store_away" for each in found):
        sentence = f"{status.store_away}; gaps and size are not known"
        found.append(Attention("store_away", sentence, command_line("doctor", lake=lake)))
    found += _dead(status, bool(living), lake)
    found += _silent_hosts(status, lake)
    for own in statuses:
        found += _time_unknown(own, lake)
    found += _overdue(statuses, lake)
    found += _unrecorded(status, statuses, lake)
    found += _brings_nothing(statuses, lake)
    found += _unmerged(statuses, lake)
    found += _damaged(status)
    found += _gaps(status, lake)
    found += _disk(status, lake)
    found += _clock(status)
    found += _compaction(status, lake)
    return tuple(found)


def _dead(status: LakeStatus, is_recording: bool, lake: str | None) -> Iterator[Attention]:
    for fact in status.recorders:
        waiting = fact.journal_candles or 0
        # A recorder that was killed right after a flush left nothing, and another may record on.
        if fact.state != "dead" or (not waiting and (is_recording or fact.status is None)):
            continue
        own = fact.status
        name = own.recorder if own is not None and own.recorder != COMMAND_LINE else fact.journal
        left = f"{counted(waiting, 'candle')} of its journal {are(waiting)} not in the lake's files yet"
        sentence = f"the recorder {name} died; {left if waiting else 'none records now'}"
        # Without a config, nothing knows the options of the recorder, such as its exchange.
        command = ["flush"]
        if own is not None and own.recorder != COMMAND_LINE and not is_recording:
            command = ["record", "--config", own.recorder]
        yield Attention("dead_recorder", sentence, command_line(*command, lake=lake))


def _silent_hosts(status: LakeStatus, lake: str | None) -> Iterator[Attention]:
    for each in status.remote_recorders:
        if each.state == "silent":
            yield Attention(
                "silent_host",
                f"the recorder {each.journal} on the host {each.host} reported nothing for"
                f" {duration_text(status.at_ms - each.published_at_ms)}: it died, or does not reach the store;"
                " start it again there, or, if the host is gone for good:",
                command_line("unsubscribe", "--host", each.host, lake=lake),
            )


def _hanging(fact: RecorderFacts, own: RecorderStatus, at_ms: int) -> Iterator[Attention]:
    age_ms = at_ms - own.at_ms
    if age_ms > HANGS_MS:
        yield Attention(
            "hanging_recorder",
            f"the recorder {fact.journal} lives, and reported nothing for {duration_text(age_ms)}:"
            " it or its disk hangs",
            f"ps -o pid,stat,wchan:20,etime,args -p {own.pid}",
        )


def _is_journal_full(own: RecorderStatus) -> bool:
    return own.journal_bytes_max is not None and own.journal_bytes >= own.journal_bytes_max


def _journal_full(own: RecorderStatus, lake: str | None) -> Iterator[Attention]:
    if _is_journal_full(own):
        yield Attention(
            "journal_full",
            f"the journal has reached its limit of {size_text(own.journal_bytes_max or 0)}, and recording"
            f" waits: {counted(own.buffered, 'candle')} of it could not be merged. Candles that are missed"
            " meanwhile are fetched by REST later",
            command_line("doctor", lake=lake),
        )


def _store_away(own: RecorderStatus, status: LakeStatus, lake: str | None) -> Iterator[Attention]:
    if own.store_away_ms is not None and (own.store_away_ms > AWAY_MS or status.store_away):
        limit = f" of at most {size_text(own.journal_bytes_max)}" if own.journal_bytes_max else ""
        yield Attention(
            "store_away",
            f"{status.lake} has not answered for {duration_text(own.store_away_ms)};"
            f" {counted(own.buffered, 'candle')} {are(own.buffered)} safe in the journal,"
            f" {size_text(own.journal_bytes)}{limit}",
            command_line("doctor", lake=lake),
        )


def _refused(own: RecorderStatus, lake: str) -> Iterator[Attention]:
    if own.commit_waits_ms > COMMIT_WAITS_MS and not _is_journal_full(own):
        yield Attention(
            "disk_refuses",
            f"the disk has taken no candle for {duration_text(own.commit_waits_ms)}; recording waits",
            shlex.join(["df", "-h", lake]),
        )


def _time_unknown(own: RecorderStatus, lake: str | None) -> Iterator[Attention]:
    unknown = [each.market for each in own.markets if each.exchange_ms is None]
    if unknown and own.at_ms - own.started_at_ms > TIME_UNKNOWN_MS:
        yield Attention(
            "time_unknown",
            f"the exchange's time is unknown, so no candle is expected yet: {', '.join(unknown)};"
            " REST does not answer",
            command_line("doctor", lake=lake),
        )


def _overdue(recorders: Iterable[RecorderStatus], lake: str | None) -> Iterator[Attention]:
    late = [
        (real_ms, each.series, own.overdue_series)
        for own in recorders
        for each in own.most_overdue
        if (real_ms := each.overdue_ms / _rate(own, each.market)) > LATE_MS
    ]
    if late:
        real_ms, series, _ = max(late)
        count = max(len({each for _, each, _ in late}), *(total for *_, total in late))
        yield Attention(
            "overdue",
            f"{_named(series, count)} overdue: a candle that the exchange should have sent"
            f" {duration_text(real_ms)} ago is neither recorded nor explained",
            command_line("gaps", "--until", "now", lake=lake),
        )


def _unrecorded(
    status: LakeStatus, living: Sequence[RecorderStatus], lake: str | None
) -> Iterator[Attention]:
    # A recorder that just started takes over its former subscriptions once it knows the time.
    settled = living and all(status.at_ms - own.started_at_ms > LATE_MS for own in living)
    if status.unrecorded_example is not None and status.unrecorded_ms > UNRECORDED_MS and settled:
        count = status.unrecorded_series
        yield Attention(
            "unrecorded",
            f"{_named(Series(*status.unrecorded_example), count)} subscribed to, and nothing recorded"
            f" {'it' if count == 1 else 'them'} for {duration_text(status.unrecorded_ms)}; start a recorder,"
            " or unsubscribe",
            command_line("coverage", "--until", "now", lake=lake),
        )


def _brings_nothing(recorders: Iterable[RecorderStatus], lake: str | None) -> Iterator[Attention]:
    silent = [
        (real_ms, each.series, own.silent_series)
        for own in recorders
        for each in own.silent_longest
        if (real_ms := each.silent_ms / _rate(own, each.market)) > LATE_MS
    ]
    if silent:
        real_ms, series, count = max(silent)
        yield Attention(
            "brings_nothing",
            f"{_named(series, count)} subscribed to, and brought nothing: the first candle was due"
            f" {duration_text(real_ms)} ago",
            subscriptions_command(series, lake),
        )


def _unmerged(recorders: Iterable[RecorderStatus], lake: str | None) -> Iterator[Attention]:
    count = sum(own.unmerged_partitions for own in recorders)
    if count:
        yield Attention(
            "unmerged",
            f"{counted(count, 'partition')} cannot be merged; the candles stay in the journal, and the"
            " recorder's log names the files",
            command_line("verify", lake=lake),
        )


def _damaged(status: LakeStatus) -> Iterator[Attention]:
    for fact in status.recorders:
        if fact.damaged:
            directory = f"{status.lake}/{JOURNAL_DIRECTORY}/{fact.journal}"
            files = counted(len(fact.damaged), "file")
            yield Attention(
                "damaged_journal",
                f"damaged lines of the journal {fact.journal} are kept in {files}; look at them, then delete them",
                shlex.join(["ls", "-l", *(f"{directory}/{name}" for name in fact.damaged[:_FILES_SHOWN])]),
            )


def _gaps(status: LakeStatus, lake: str | None) -> Iterator[Attention]:
    gaps = status.gaps
    if gaps.example is not None:
        candles = gaps.reasonless_candles
        yield Attention(
            "gaps",
            f"{counted(candles, 'candle')} of {_of(Series(*gaps.example), gaps.reasonless_series)}"
            f" {are(candles)} missing without a reason",
            command_line("gaps", lake=lake),
        )
    elif gaps.unchecked_candles:
        yield Attention(
            "gaps",
            f"{counted(gaps.unchecked_candles, 'candle')} could not be healed; the files to check whether"
            " a backfill brought them are too many here",
            command_line("coverage", lake=lake),
        )


def _disk_full(status: LakeStatus) -> Iterator[Attention]:
    disk = status.disk
    if disk is None:
        return
    if disk.free_bytes < min(FULL_BYTES, disk.total_bytes * FULL_SHARE):
        left, option = f"{size_text(disk.free_bytes)} {are(disk.free_bytes)} left", "-h"
    elif disk.free_files is not None and disk.free_files < min(
        FULL_FILES, (disk.total_files or 0) * FULL_SHARE
    ):
        left, option = f"{counted(disk.free_files, 'file')} can still be created", "-i"
    else:
        return
    yield Attention("disk_full", f"the disk is full: {left}", shlex.join(["df", option, status.lake]))


def _disk(status: LakeStatus, lake: str | None) -> Iterator[Attention]:
    disk = status.disk
    if (
        any(_disk_full(status))
        or disk is None
        or disk.days_until_full is None
        or disk.days_until_full > FULL_SOON_DAYS
    ):
        return
    days = disk.days_until_full
    when = f"in {days:.1f} days" if days >= 1 else f"in {duration_text(days * DAY_MS)}"
    yield Attention(
        "disk_full_soon",
        f"the disk will be full {when}, at today's growth; move the lake, or remove old candles",
        command_line("forget", "--older-than", "365d", "--dry-run", lake=lake),
    )


def _clock(status: LakeStatus) -> Iterator[Attention]:
    offset_ms = status.clock_offset_ms
    if offset_ms is not None and abs(offset_ms) > CLOCK_OFF_MS:
        way = "ahead of" if offset_ms > 0 else "behind"
        yield Attention(
            "clock_off",
            f"this host's clock is {abs(offset_ms) / 1000:.1f} s {way} the exchange's; recv_time is wrong by that",
            "timedatectl set-ntp true",
        )


def _compaction(status: LakeStatus, lake: str | None) -> Iterator[Attention]:
    last = status.last_compaction
    if last is not None and last.failed:
        yield Attention(
            "compaction_failed",
            f"the last compaction could not fold the files of {counted(last.failed, 'partition')}",
            command_line("compact", lake=lake),
        )


def _rate(own: RecorderStatus, market: str) -> float:
    """Return the seconds of a market's clock per real second."""
    return next((max(each.clock_rate, 1.0) for each in own.markets if each.market == market), 1.0)


def _of(series: Series, count: int) -> str:
    """Return a series, and the number of the others."""
    return str(series) if count <= 1 else f"{series} and {count - 1:,} more series"


def _named(series: Series, count: int) -> str:
    return f"{_of(series, count)} {are(count)}"
