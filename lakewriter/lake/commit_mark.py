"""The commit mark: the place in a journal up to which its candles are durable.

A recorder writes the mark into its lock file after each sync. A follower reads a living
recorder's journal up to the mark, so it never shows a candle that a power loss could
take. The kernel wakes the follower when the mark changes.

    00000007 0000123456 89abcdef      segment, bytes of whole lines, checksum
"""

import os
import zlib
from pathlib import Path
from typing import NamedTuple

from lakewriter.regular_file import open_regular

_DIGITS = 8 + 1 + 10
_BYTES = _DIGITS + 1 + 8 + 1


class CommitMark(NamedTuple):
    """A place in a journal. All earlier segments are durable, too.

    Args:
        segment: the number of a segment.
        size: number of durable bytes of the segment.
    """

    segment: int
    size: int


def write_mark(fd: int, mark: CommitMark) -> None:
    """Write the mark at the start of an open lock file. It is not synced: only living recorders' marks count.

    Raises:
        OSError: if the disk refuses.
    """
    place = b"%08d %010d" % mark
    os.pwrite(fd, b"%b %08x\n" % (place, zlib.crc32(place)), 0)


def read_mark(path: Path) -> CommitMark | None:
    """Return the mark in a lock file; None if it has none, or is written at this moment.

    Raises:
        OSError: if the file is absent, not readable for this user, or not a regular file.
    """
    fd = open_regular(path)
    try:
        data = os.read(fd, _BYTES)
    finally:
        os.close(fd)
    place = data[:_DIGITS]
    if len(data) < _BYTES or data[_DIGITS:] != b" %08x\n" % zlib.crc32(place):
        return None
    return CommitMark(int(place[:8]), int(place[9:]))
