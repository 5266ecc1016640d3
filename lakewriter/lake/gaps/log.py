"""The lines of a gap ledger's file, which give its state when they are replayed.

{"crc":…,"change":{"op":"mark",…}}      this range has this reason now
{"crc":…,"change":{"op":"clear",…}}     the candles of this range are there
"""

import logging
import zlib
from pathlib import Path

import msgspec

from lakewriter.errors import LakeError
from lakewriter.gap import Reason
from lakewriter.lake.gaps.intervals import Entries, Entry, State, put, without
from lakewriter.series import Series

log = logging.getLogger(__name__)


class _Mark(msgspec.Struct, tag_field="op", tag="mark", omit_defaults=True):
    market: str
    symbol: str
    interval: str
    start_ms: int
    stop_ms: int
    reason: Reason
    detected_ms: int
    resolved_ms: int | None = None
    error: str = ""


class _Clear(msgspec.Struct, tag_field="op", tag="clear"):
    market: str
    symbol: str
    interval: str
    start_ms: int
    stop_ms: int


class _Line(msgspec.Struct):
    crc: int
    change: msgspec.Raw


_encode = msgspec.json.Encoder().encode
_decode_line = msgspec.json.Decoder(_Line).decode
_decode_change = msgspec.json.Decoder(_Mark | _Clear).decode


def read(path: Path) -> dict[Series, Entries]:
    """Return the state that a ledger's lines give.

    Raises:
        FileNotFoundError: if it was taken over.
        LakeError: if another version wrote it.
    """
    state: dict[Series, Entries] = {}
    damaged = 0
    *lines, _torn = path.read_bytes().split(b"\n")
    for line in lines:
        change = _decode(line, path)
        if change is None:
            damaged += 1
            continue
        series = Series(change.market, change.symbol, change.interval)
        entries = state.get(series, ())
        if isinstance(change, _Mark):
            state[series] = put(entries, Entry(*(getattr(change, name) for name in Entry._fields)))
        else:
            state[series] = without(entries, change.start_ms, change.stop_ms)
    if damaged:
        log.warning("gaps: %s: %d damaged lines are passed over", path, damaged)
    return {series: entries for series, entries in state.items() if entries}


def _decode(line: bytes, path: Path) -> _Mark | _Clear | None:
    """Return the line's change; None if the line is not what was written."""
    try:
        read = _decode_line(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if zlib.crc32(read.change) != read.crc:
        return None
    try:
        change: _Mark | _Clear = _decode_change(read.change)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise LakeError(
            f"gaps: {path}: a line of another version: {error}", "pip install --upgrade lakewriter"
        ) from None
    return change


def lines_of(state: State) -> list[bytes]:
    """Return the lines that give a state to an empty file."""
    return [_mark(series, entry) for series, entries in state.items() for entry in entries]


def difference(series: Series, before: Entries, after: Entries) -> list[bytes]:
    """Return the lines that make one state of a series into another."""
    old, new = set(before), set(after)
    gone = [_line(_Clear(*series, *entry[:2])) for entry in before if entry not in new]
    return gone + [_mark(series, entry) for entry in after if entry not in old]


def _mark(series: Series, entry: Entry) -> bytes:
    start_ms, stop_ms, reason, detected_ms, resolved_ms, error = entry
    return _line(_Mark(*series, start_ms, stop_ms, reason, detected_ms, resolved_ms, error))


def _line(change: _Mark | _Clear) -> bytes:
    body = _encode(change)
    return b'{"crc":%d,"change":%b}\n' % (zlib.crc32(body), body)
