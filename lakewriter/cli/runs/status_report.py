"""The text of `lakewriter status`: one label and some words on each line, at most 80 columns wide."""

from collections.abc import Iterator
from datetime import UTC, datetime

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from lakewriter.errors import printable
from lakewriter.status.facts import Attention, LakeStatus
from lakewriter.status.recorders import RecorderFacts, RemoteRecorder
from lakewriter.status.wording import counted, duration_text
from lakewriter.subscribed_period import COMMAND_LINE
from lakewriter.written_size import size_text

# A wider terminal shows the same lines.
WIDTH_MAX = 100

# A longer forecast is no forecast.
_DAYS_SHOWN_MAX = 3_650

_GOOD, _BAD, _FAINT = "green", "bold red", "dim"


def status_text(status: LakeStatus) -> RenderableType:
    """Return the status without what needs a person."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style=_FAINT, no_wrap=True)
    grid.add_column(overflow="fold")
    for label, words in _lines(status):
        grid.add_row(label, words)
    return grid


def attention_text(attention: tuple[Attention, ...]) -> RenderableType:
    """Return what needs a person: a sentence and the command, for each."""
    if not attention:
        return Text("nothing known needs you", style=_GOOD)
    grid = Table.grid(padding=(0, 1))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for each in attention:
        grid.add_row(Text("!", style=_BAD), Text(printable(each.sentence), style=_BAD))
        grid.add_row("", Text(printable(each.command)))
    return grid


def watched_text(status: LakeStatus) -> RenderableType:
    """Return the whole status, with what needs a person."""
    return Group(status_text(status), Text(), attention_text(status.attention))


def _lines(status: LakeStatus) -> Iterator[tuple[str, Text]]:
    yield "lake", Text(printable(status.lake))
    yield "time", Text(f"{_moment(status.at_ms)} UTC")
    if not any(fact.state == "recording" for fact in status.recorders):
        words = Text("none on this host")
        if status.unrecorded_series:
            left = counted(status.unrecorded_series, "subscribed series is", "subscribed series are")
            words.append(f"; {left} not recorded", style="yellow")
        yield "recorder", words
    for fact in status.recorders:
        yield "recorder", _recorder(fact, status.at_ms)
    for each in status.remote_recorders:
        yield "elsewhere", _remote_recorder(each, status.at_ms)
    if status.series:
        yield from _recording(status)
    yield "gaps", Text("not known", _BAD) if status.store_away else _gaps(status)
    yield "compacted", _compaction(status)
    yield "size", Text("not known", _BAD) if status.store_away else _size(status)
    if status.disk is not None:
        yield "disk", _disk(status)


def _recording(status: LakeStatus) -> Iterator[tuple[str, Text]]:
    words = Text(f"{status.series:,}: {status.live_series:,} live")
    for count, name in ((status.polled_series, "polled"), (status.silent_series, "silent")):
        words.append(f", {count:,} {name}", style="yellow" if count else "")
    words.append(f", {status.overdue_series:,} overdue", style=_BAD if status.overdue_series else "")
    yield "series", words
    if status.most_overdue is not None:
        late = status.most_overdue
        yield (
            "",
            Text(f"{late.series}: {_moment(late.begin_ms)} is {duration_text(late.overdue_ms)} late", _BAD),
        )
    if status.lag_ms is not None:
        yield "lag", Text(f"the newest candle was durable {duration_text(status.lag_ms)} after its end")
    since = f", since {_moment(status.today_since_ms)[11:16]}" if status.today_since_ms else ""
    yield "today", Text(f"{counted(status.candles_today, 'candle')}{since}")
    journal = f"{counted(status.buffered, 'candle')} to flush, {size_text(status.journal_bytes)} of journal"
    if status.queued:
        journal += f", {counted(status.queued, 'candle')} to commit"
    yield "journal", Text(journal)
    if status.last_flush is not None:
        flush = status.last_flush
        age = duration_text(status.at_ms - flush.ended_at_ms)
        done = f"{counted(flush.candles, 'candle')} into {counted(flush.partitions, 'file')}"
        yield "flushed", Text(f"{age} ago: {done} in {flush.seconds:.1f} s")
    if status.clock_offset_ms is not None:
        way = "ahead of" if status.clock_offset_ms > 0 else "behind"
        yield "clock", Text(f"{abs(status.clock_offset_ms) / 1000:.2f} s {way} the exchange")


def _recorder(fact: RecorderFacts, at_ms: int) -> Text:
    own = fact.status
    if own is None:
        names = {"busy": "a backfill, or another version of lakewriter", "dead": "dead"}
        words = Text(f"{printable(fact.journal)}: ")
        words.append(names.get(fact.state, fact.state), style=_BAD if fact.state == "dead" else "")
    else:
        name = fact.journal if own.recorder == COMMAND_LINE else own.recorder
        words = Text(printable(name) + ": ")
        if fact.state == "recording":
            words.append("recording", style=_GOOD)
            words.append(f" for {duration_text(at_ms - own.started_at_ms)}, process {own.pid}")
            words.append(f", {counted(own.connections, 'connection')}")
            if own.reconnects:
                words.append(f", {counted(own.reconnects, 'reconnect')}")
        else:
            words.append("dead", style=_BAD)
    if fact.state == "dead":
        if fact.seen_at_ms is not None:
            words.append(f" for {duration_text(at_ms - fact.seen_at_ms)}")
        words.append(f", {counted(fact.journal_candles or 0, 'candle')} in its journal")
    return words


def _remote_recorder(fact: RemoteRecorder, at_ms: int) -> Text:
    words = Text(f"{printable(fact.host)}: ")
    own, age = fact.status, duration_text(max(0, at_ms - fact.published_at_ms))
    if fact.state == "silent":
        words.append(f"silent for {age}", style=_BAD)
        return words
    words.append("recording" if own else "busy", style=_GOOD)
    if own is not None:
        words.append(f", {counted(own.series, 'series', 'series')}")
        if own.overdue_series:
            words.append(f", {own.overdue_series:,} overdue", style=_BAD)
    words.append(f"; published {age} ago")
    return words


def _gaps(status: LakeStatus) -> Text:
    gaps = status.gaps
    parts = []
    if gaps.healing_candles:
        of = counted(gaps.healing_series, "series", "series")
        parts.append(f"{counted(gaps.healing_candles, 'candle')} of {of} being healed")
    if gaps.reasonless_candles:
        parts.append(f"{counted(gaps.reasonless_candles, 'candle')} without a reason")
    if gaps.unchecked_candles:
        parts.append(f"{counted(gaps.unchecked_candles, 'candle')} not checked")
    return Text("; ".join(parts) or "none open in the ledgers", style=_BAD if gaps.reasonless_candles else "")


def _compaction(status: LakeStatus) -> Text:
    last = status.last_compaction
    if last is None:
        return Text("never")
    what = f"{last.rewritten:,} of {counted(last.partitions, 'partition')} rewritten"
    failed = f", {last.failed:,} failed" if last.failed else ""
    age = duration_text(status.at_ms - last.ended_at_ms)
    return Text(f"{age} ago: {what}{failed} in {last.seconds:.1f} s", style=_BAD if last.failed else "")


def _size(status: LakeStatus) -> Text:
    size = status.size
    about = "about " if size.is_estimated else ""
    rows = f"about {_rounded(size.rows):,}" if size.rows_are_estimated else f"{size.rows:,}"
    return Text(
        f"{about}{size_text(size.file_bytes)}: {rows} candles in {counted(size.files, 'file')} of"
        f" {counted(size.series, 'series', 'series')}"
    )


def _rounded(count: int) -> int:
    """Return a count with three significant digits."""
    digits = max(0, len(str(count)) - 3)
    return round(count, -digits)


def _disk(status: LakeStatus) -> Text:
    disk = status.disk
    assert disk is not None
    words = Text(f"{size_text(disk.free_bytes)} of {size_text(disk.total_bytes)} free")
    if disk.days_until_full is not None and disk.growth_bytes_a_day:
        days = disk.days_until_full
        when = counted(round(days), "day") if days < _DAYS_SHOWN_MAX else "over 10 years"
        soon = any(each.kind == "disk_full_soon" for each in status.attention)
        words.append(f"; full in {when}", style=_BAD if soon else "")
        words.append(f" at {size_text(disk.growth_bytes_a_day)} a day")
    return words


def _moment(at_ms: int) -> str:
    return f"{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%d %H:%M:%S}"
