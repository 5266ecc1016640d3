"""The file of a gap ledger: lines of changes, whose replay gives the ledger's state.

{"crc":…,"change":{"op":"mark",…}}      the range has this reason now
{"crc":…,"change":{"op":"clear",…}}     the candles of the range are in the lake

A line is left out if it is damaged, cannot be a gap, or is of another version. The
other lines are read.
"""

from pathlib import Path
from typing import NamedTuple

import msgspec

from lakewriter.gap import Gap
from lakewriter.interval import CALENDAR_MS_MAX, TIME_MS_MAX
from lakewriter.lake.gaps.intervals import Entries, Entry, State, with_entry, without
from lakewriter.lake.lines import LineCodec, read_lines
from lakewriter.lake.warn_once import warn_once
from lakewriter.partition import is_series
from lakewriter.series import Series

# A recorder rewrites its file long before this size. The limit bounds a reader's memory.
LEDGER_BYTES_MAX = 256 * 1024 * 1024


class _MarkLine(Gap, frozen=True, tag_field="op", tag="mark", omit_defaults=True):
    """A gap, as a line of the file."""


class _Clear(msgspec.Struct, tag_field="op", tag="clear"):
    market: str
    symbol: str
    interval: str
    start_ms: int
    stop_ms: int


class _OtherVersionError(Exception):
    pass


class LedgerFile(NamedTuple):
    """The content of a ledger's file.

    Args:
        state: the state after all lines.
        damaged: whether lines are damaged or cannot be gaps, or the file is too large.
        unknown: whether some lines are of another version.
    """

    state: dict[Series, Entries]
    damaged: bool
    unknown: bool


_line = LineCodec("change")
_encode = msgspec.json.Encoder().encode
_decode_change = msgspec.json.Decoder(_MarkLine | _Clear).decode


def read(path: Path) -> LedgerFile:
    """Return the content of a ledger's file; log the number of lines left out.

    Raises:
        FileNotFoundError: if the ledger was taken over.
        OSError: if the file is not readable for this user, or not a regular file.
    """
    state: dict[Series, Entries] = {}
    damaged = unknown = 0
    lines = read_lines(path, LEDGER_BYTES_MAX)
    for line in lines.whole:
        try:
            change = _decode(line)
        except _OtherVersionError:
            unknown += 1
            continue
        if change is None:
            damaged += 1
            continue
        series = Series(change.market, change.symbol, change.interval)
        entries = state.get(series, ())
        if isinstance(change, _MarkLine):
            state[series] = with_entry(entries, Entry(*(getattr(change, name) for name in Entry._fields)))
        else:
            state[series] = without(entries, change.start_ms, change.stop_ms)
    if damaged:
        warn_once(f"gaps: {path}: {damaged} damaged lines are left out")
    if unknown:
        warn_once(f"gaps: {path}: {unknown} lines of another version are left out")
    if lines.cut:
        warn_once(f"gaps: {path}: larger than {LEDGER_BYTES_MAX:,} bytes; the rest is left out")
    state = {series: entries for series, entries in state.items() if entries}
    return LedgerFile(state, bool(damaged) or lines.cut, bool(unknown))


def _decode(line: bytes | None) -> _MarkLine | _Clear | None:
    """Return the change of a line, or None if the line is damaged or cannot be a gap.

    Raises:
        _OtherVersionError: if the line matches its checksum, but this version cannot read it.
    """
    body = _line.decode(line)
    if body is None:
        return None
    try:
        change: _MarkLine | _Clear = _decode_change(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _OtherVersionError from None
    return change if _is_sound(change) else None


def _is_sound(change: _MarkLine | _Clear) -> bool:
    if not is_series(change.market, change.symbol, change.interval):
        return False
    if not 0 <= change.start_ms < change.stop_ms <= TIME_MS_MAX:
        return False
    if isinstance(change, _Clear):
        return True
    return all(
        0 <= moment_ms <= CALENDAR_MS_MAX for moment_ms in (change.detected_ms, change.resolved_ms or 0)
    )


def state_lines(state: State) -> list[bytes]:
    """Return the lines of a new file with this state."""
    return [_mark_line(series, entry) for series, entries in state.items() for entry in entries]


def difference_lines(series: Series, before: Entries, after: Entries) -> list[bytes]:
    """Return the lines that change a series' entries from `before` to `after`."""
    old, new = set(before), set(after)
    gone = [_change_line(_Clear(*series, *entry[:2])) for entry in before if entry not in new]
    return gone + [_mark_line(series, entry) for entry in after if entry not in old]


def _mark_line(series: Series, entry: Entry) -> bytes:
    start_ms, stop_ms, reason, detected_ms, resolved_ms, error = entry
    return _change_line(_MarkLine(*series, start_ms, stop_ms, reason, detected_ms, resolved_ms, error))


def _change_line(change: _MarkLine | _Clear) -> bytes:
    return _line.encode(_encode(change))
