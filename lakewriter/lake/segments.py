"""A segment of the journal: a file with one candle on each line.

    {"crc":…,"candle":{…}}

Rule 1: a line is valid if it matches its checksum and can be a candle.
Rule 2: any other line is damaged, or of another version of lakewriter. It is left
out, and the other lines are read.
Rule 3: a reader reads at most twice the bytes of the largest segment that a
recorder writes.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec

from lakewriter.candle import Candle
from lakewriter.lake.durable import sync_directory, write_durably
from lakewriter.lake.lines import LineCodec, read_lines
from lakewriter.partition import is_storable

# Flushes roll segments long before this size. The limit bounds a reader's memory.
SEGMENT_BYTES_MAX = 64 * 1024 * 1024
READ_BYTES_MAX = 2 * SEGMENT_BYTES_MAX

BAD_SUFFIX = ".bad"

_line = LineCodec("candle")
_encode = msgspec.json.Encoder().encode
_decode_candle = msgspec.json.Decoder(Candle).decode


class OtherVersionError(Exception):
    """A line matches its checksum, but this version cannot read its candle."""


class Segment(NamedTuple):
    """The content of one segment.

    Args:
        path: the file.
        candles: the candles of the valid lines, in the order of their commits.
        torn: whether the last line is incomplete. Its commit never returned.
        damaged: the damaged lines, by their number from 1. A line that is too long
            is None.
        unknown: number of lines of another version.
        cut: whether the file is larger than any segment. The rest was not read.
    """

    path: Path
    candles: list[Candle]
    torn: bool
    damaged: dict[int, bytes | None]
    unknown: int = 0
    cut: bool = False

    @property
    def damage(self) -> int:
        """The number of damaged lines. An unread rest counts as one."""
        return len(self.damaged) + self.cut

    @property
    def complaint(self) -> str:
        """The reason why candles of whole lines are left out, or "" if none is."""
        return complaint(len(self.damaged), self.unknown, cut=self.cut)


def complaint(damaged: int, unknown: int, *, cut: bool) -> str:
    """Return a text on the lines that were left out, other than a torn last line; "" if there are none.

    Args:
        damaged, unknown: number of damaged lines, and of lines of another version.
        cut: whether the rest of the file was not read.
    """
    reasons = []
    if damaged:
        reasons.append(f"{damaged} damaged lines")
    if unknown:
        reasons.append(f"{unknown} lines of another version")
    if cut:
        reasons.append(f"all after {READ_BYTES_MAX:,} bytes")
    return " and ".join(reasons)


def read_segment(path: Path) -> Segment:
    """Return the content of a segment. Its recorder may append to it meanwhile.

    Raises:
        FileNotFoundError: if the segment was dropped.
        OSError: if the file is not readable for this user, or not a regular file.
    """
    read = read_lines(path, READ_BYTES_MAX)
    candles, damaged, unknown = decode_lines(read.whole)
    return Segment(path, candles, read.torn, damaged, unknown, read.cut)


def decode_lines(lines: Iterable[bytes | None]) -> tuple[list[Candle], dict[int, bytes | None], int]:
    """Return the candles of lines, the damaged lines by their number from 1, and the number of unknown ones."""
    candles: list[Candle] = []
    damaged: dict[int, bytes | None] = {}
    unknown = 0
    for number, line in enumerate(lines, 1):
        try:
            candle = decode_line(line)
        except OtherVersionError:
            unknown += 1
            continue
        if candle is None:
            damaged[number] = line
        else:
            candles.append(candle)
    return candles, damaged, unknown


def set_aside(segment: Segment) -> None:
    """Write the damaged lines of a segment to a `.bad` file beside it.

    If the segment or one of its lines is too large, the segment itself becomes the
    `.bad` file.

    Crash: the `.bad` file is whole or absent. The segment is unchanged, or was renamed to
    the `.bad` file.
    """
    path = segment.path.with_name(segment.path.name + BAD_SUFFIX)
    lines = [line for line in segment.damaged.values() if line is not None]
    if segment.cut or len(lines) < len(segment.damaged):
        segment.path.rename(path)
        sync_directory(path.parent)
    else:
        write_durably(path, b"".join(line + b"\n" for line in lines))


def encode_line(candle: Candle) -> bytes:
    """Return the line for a candle, with its newline."""
    return _line.encode(_encode(candle))


def decode_line(line: bytes | None) -> Candle | None:
    """Return the candle of a line, or None if the line is damaged or cannot be a candle.

    Raises:
        OtherVersionError: if the line matches its checksum, but this version cannot read it.
    """
    body = _line.decode(line)
    if body is None:
        return None
    try:
        candle = _decode_candle(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise OtherVersionError(str(error)) from None
    return candle if is_storable(candle) else None
