"""Files of lines below `_lakewriter`: reads with a limit, and a checksum for each line.

    {"crc":1234,"candle":{…}}

The journal and the gap ledgers have such lines. A line that is too long, or does
not match its checksum, counts as damaged; the other lines are read. The caller
validates the content.
"""

import os
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from lakewriter.regular_file import open_regular

# Our longest lines have about 2,000 bytes.
LINE_BYTES_MAX = 64 * 1024

_PART_BYTES = 1 << 20

_BROKEN = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Lines(NamedTuple):
    """The lines of a file.

    Args:
        whole: the lines that end with a newline, without it. A line longer than
            LINE_BYTES_MAX is None.
        torn: whether the last line has no newline.
        cut: whether the file is larger than the limit. The rest was not read.
        size: number of bytes of the whole lines, with their newlines.
    """

    whole: list[bytes | None]
    torn: bool
    cut: bool
    size: int


def read_lines(path: Path, bytes_max: int, line_max: int = LINE_BYTES_MAX) -> Lines:
    """Read a file of lines. A writer may append to the file meanwhile.

    Args:
        bytes_max: the maximum number of bytes to read.

    Raises:
        OSError: if the file is absent, not readable for this user, or not a regular file.
    """
    fd = open_regular(path)
    try:
        return read_open_lines(fd, bytes_max, line_max)
    finally:
        os.close(fd)


def read_open_lines(fd: int, bytes_max: int, line_max: int = LINE_BYTES_MAX) -> Lines:
    """Read the lines of an open file, from its current position on; see `read_lines`."""
    whole: list[bytes | None] = []
    rest = b""  # the start of a line whose newline was not read yet
    is_long = False
    left = bytes_max
    size = read = 0
    while part := os.read(fd, min(_PART_BYTES, left + 1)):
        left -= len(part)
        if left < 0:
            break
        first, *others = part.split(b"\n")
        if not is_long:
            rest += first
        for line in others:
            whole.append(None if is_long or len(rest) > line_max else rest)
            rest, is_long = line, False
        read += len(part)
        if others:
            size = read - len(rest)
        if len(rest) > line_max:
            rest, is_long = b"", True
    return Lines(whole, bool(rest) or is_long, left < 0, size)


class LineCodec:
    """The encoder and decoder of lines with one field and its checksum.

    Args:
        field: the field's name.
    """

    def __init__(self, field: str) -> None:
        self._field = field
        line = msgspec.defstruct("_Line", [("crc", int), (field, msgspec.Raw)])
        self._decode: Any = msgspec.json.Decoder(line).decode

    def encode(self, body: bytes) -> bytes:
        """Return the line for a JSON value, with its newline."""
        return b'{"crc":%d,"%b":%b}\n' % (zlib.crc32(body), self._field.encode(), body)

    def decode(self, line: bytes | None) -> msgspec.Raw | None:
        """Return the JSON value of a line, or None if the line is damaged."""
        if line is None:
            return None
        try:
            read = self._decode(line)
        except _BROKEN:
            return None
        body: msgspec.Raw = getattr(read, self._field)
        return body if zlib.crc32(body) == read.crc else None
