"""Files of lines below `_lakewriter`: bounded reading, and a checksum for each line.

    {"crc":1234,"candle":{…}}

The journal and the gap ledgers have such lines. A line that is too long, or does
not match its checksum, is reported as damaged; the other lines are read. The
caller validates the content.
"""

import os
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from lakewriter.regular_file import open_regular

# The longest line of ours has some 2,000 bytes.
LINE_BYTES_MAX = 64 * 1024

_PART_BYTES = 1 << 20

_BROKEN = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Lines(NamedTuple):
    """The lines of a file.

    Args:
        whole: each line with a newline, without it; None if the line is longer
            than LINE_BYTES_MAX.
        torn: whether the last line has no newline.
        cut: whether the file is larger than its limit. The rest was not read.
    """

    whole: list[bytes | None]
    torn: bool
    cut: bool


def read_lines(path: Path, bytes_max: int) -> Lines:
    """Read a file of lines; safe while its writer appends to it.

    Args:
        bytes_max: at most so many bytes are read.

    Raises:
        OSError: if it is absent, refused, or no regular file.
    """
    whole: list[bytes | None] = []
    rest = b""  # of a line whose newline was not read yet
    is_long = False
    left = bytes_max
    fd = open_regular(path)
    try:
        while part := os.read(fd, min(_PART_BYTES, left + 1)):
            left -= len(part)
            if left < 0:
                break
            first, *others = part.split(b"\n")
            if not is_long:
                rest += first
            for line in others:
                whole.append(None if is_long or len(rest) > LINE_BYTES_MAX else rest)
                rest, is_long = line, False
            if len(rest) > LINE_BYTES_MAX:
                rest, is_long = b"", True
    finally:
        os.close(fd)
    return Lines(whole, bool(rest) or is_long, left < 0)


class LineCodec:
    """Encodes and decodes lines with one field and its checksum.

    Args:
        field: its name.
    """

    def __init__(self, field: str) -> None:
        self._field = field
        line = msgspec.defstruct("_Line", [("crc", int), (field, msgspec.Raw)])
        self._decode: Any = msgspec.json.Decoder(line).decode

    def encode(self, body: bytes) -> bytes:
        """Return the line of a JSON value, with its newline."""
        return b'{"crc":%d,"%b":%b}\n' % (zlib.crc32(body), self._field.encode(), body)

    def decode(self, line: bytes | None) -> msgspec.Raw | None:
        """Return the JSON value of a line; None if the line is damaged."""
        if line is None:
            return None
        try:
            read = self._decode(line)
        except _BROKEN:
            return None
        body: msgspec.Raw = getattr(read, self._field)
        return body if zlib.crc32(body) == read.crc else None
