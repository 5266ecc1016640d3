"""The tail of all journals: candles that became durable since the last read.

Contract: each read returns the candles that were appended since the last one, in the
order of their commits. Of a living recorder it reads up to the commit mark, so each
candle is durable. A dead recorder has no further commits: its whole lines are synced
here, then read.

A flush may delete a segment before it was read. Then the read reports `missed`, and the
candles are in their partitions. A segment that was opened is read to its end even if it
is deleted meanwhile.
"""

import contextlib
import os
from pathlib import Path
from typing import NamedTuple

from lakewriter.candle import Candle
from lakewriter.lake.commit_mark import CommitMark, read_mark
from lakewriter.lake.journal_directories import (
    LOCK_NAME,
    SEGMENT_SUFFIX,
    living_recorders,
    recorder_directories,
    segment_paths,
)
from lakewriter.lake.lines import LINE_BYTES_MAX
from lakewriter.lake.segments import complaint, decode_lines
from lakewriter.lake.warn_once import warn_once
from lakewriter.regular_file import open_regular

# Maximum bytes of one read of each segment, some 9,000 candles. The next read goes on there.
PART_BYTES = 4 << 20

assert PART_BYTES > LINE_BYTES_MAX

# All whole lines of all segments.
_EVERYTHING = CommitMark(10**8, 0)


class Appended(NamedTuple):
    """The result of a read.

    Args:
        candles: the new candles of all recorders.
        missed: whether some candles left the journals unread. They are in partitions.
        more: whether the next read has candles without a further commit.
    """

    candles: list[Candle]
    missed: bool
    more: bool


class JournalTail:
    """The tail of the journals of one lake.

    Args:
        root: the directory that has `_lakewriter`. It may not exist yet.

    Attributes:
        living: the number of recorders that lived at the last `check_living`.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._recorders: dict[str, _RecorderTail] = {}
        self._dead: frozenset[str] = frozenset()
        self.living = 0

    def check_living(self) -> None:
        """Find out which recorders live. Their locks tell."""
        directories = {directory.name for directory in recorder_directories(self._root)}
        living = living_recorders(self._root)
        self._dead = frozenset(directories - living)
        self.living = sum(not name.startswith("backfill-") for name in living)

    def read(self) -> Appended:
        """Return the candles since the last read. Call this before you list partitions."""
        candles: list[Candle] = []
        missed = more = False
        directories = {directory.name: directory for directory in recorder_directories(self._root)}
        for name in self._recorders.keys() - directories.keys():
            directories[name] = self._recorders[name].directory
        for name, directory in directories.items():
            tail = self._recorders.setdefault(name, _RecorderTail(directory))
            appended = tail.read(is_dead=name in self._dead)
            candles += appended.candles
            missed |= appended.missed
            more |= appended.more
            if tail.is_gone and not appended.more:
                del self._recorders[name]
        return Appended(candles, missed, more)

    def close(self) -> None:
        """Close the open segments."""
        for tail in self._recorders.values():
            tail.close()


class _RecorderTail:
    """The tail of one recorder's journal.

    Args:
        directory: the recorder's directory.

    Attributes:
        is_gone: whether the directory is gone, and all that was in reach is read.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.is_gone = False
        self._number = 0  # of the segment that is open, or was read last
        self._fd: int | None = None
        self._offset = 0
        self._candles: list[Candle] = []

    def close(self) -> None:
        if self._fd is not None:
            fd, self._fd = self._fd, None
            os.close(fd)

    def read(self, *, is_dead: bool) -> Appended:
        self._candles = []
        try:
            mark = _EVERYTHING if is_dead else read_mark(self.directory / LOCK_NAME)
        except OSError:
            # The lock is gone with its journal, or is being created again.
            mark = None
            if not self.directory.is_dir():
                mark, self.is_gone = CommitMark(self._number + 1, 0), True
        if mark is None or (mark.segment, mark.size) <= (self._number, self._offset):
            return Appended([], missed=False, more=False)
        missed = False
        if self._fd is not None:
            # A later segment was begun, or this one grew.
            if not self._read_open(mark, sync=is_dead):
                return Appended(self._candles, missed=False, more=True)
        elif self.is_gone:
            return Appended([], missed=True, more=False)
        more = False
        if mark.segment > self._number:
            missed, more = self._read_later(mark, sync=is_dead)
        return Appended(self._candles, missed or self.is_gone, more)

    def _read_later(self, mark: CommitMark, *, sync: bool) -> tuple[bool, bool]:
        """Read the segments after the present one; return whether some are missed, and whether one has more."""
        missed = False
        for number, path in self._segments():
            if not self._number < number <= mark.segment:
                continue
            missed |= number > self._number + 1
            try:
                fd = open_regular(path)
            except FileNotFoundError:
                missed = True
                continue
            except OSError as error:
                warn_once(f"journal: {path}: {error.strerror}; its candles are seen after their flush")
                self._number, self._offset = number, 0
                continue
            self.close()
            self._fd, self._number, self._offset = fd, number, 0
            if not self._read_open(mark, sync=sync):
                return missed, True
        if mark is not _EVERYTHING and mark.segment > self._number:
            missed, self._number, self._offset = True, mark.segment, mark.size
            self.close()
        return missed, False

    def _read_open(self, mark: CommitMark, *, sync: bool) -> bool:
        """Read the open segment up to the mark; return whether it was read so far. A finished one is closed."""
        assert self._fd is not None
        is_last = mark.segment == self._number
        size = mark.size if is_last else os.fstat(self._fd).st_size
        if sync:
            with contextlib.suppress(OSError):  # on a file system that is read-only
                os.fdatasync(self._fd)
        data = os.pread(self._fd, min(size - self._offset, PART_BYTES), self._offset)
        whole = data.rfind(b"\n") + 1
        self._decode(data[:whole])
        # Without a newline the rest is a torn line, which was never committed.
        is_done = not whole or self._offset + len(data) >= size
        self._offset += whole
        if is_done and not is_last and mark is not _EVERYTHING:
            self.close()
        return is_done

    def _decode(self, data: bytes) -> None:
        lines = [line if len(line) <= LINE_BYTES_MAX else None for line in data.split(b"\n")[:-1]]
        candles, damaged, unknown = decode_lines(lines)
        if problem := complaint(len(damaged), unknown, cut=False):
            warn_once(f"journal: {self.directory}: {problem} are left out")
        self._candles += candles

    def _segments(self) -> list[tuple[int, Path]]:
        try:
            paths = segment_paths(self.directory)
        except OSError:
            return []
        return [
            (int(path.name.removesuffix(SEGMENT_SUFFIX)), path) for path in paths if _is_number(path.name)
        ]


def _is_number(name: str) -> bool:
    return name.removesuffix(SEGMENT_SUFFIX).isdecimal()
