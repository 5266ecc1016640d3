"""Small files of rows in `_lakewriter`: each row is a JSON line, and each write replaces the file.

Damaged lines are reported and left out. A file with damaged lines is renamed to
a `.bad` file before it is replaced.
"""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

import msgspec

from lakewriter.lake.durable import sync_directory
from lakewriter.lake.lines import LINE_BYTES_MAX, read_lines
from lakewriter.lake.segments import BAD_SUFFIX
from lakewriter.lake.warn_once import warn_once

T = TypeVar("T")

# In an object store each host has its own file, `<name>@<host>.ndjson`.
HOST_MARK = "@"


def host_files(path: Path) -> list[Path]:
    """Return the path of a file, which may be absent, and those of the other hosts' files beside it."""
    return [path, *sorted(path.parent.glob(f"{path.stem}{HOST_MARK}*{path.suffix}"))]


class RowFile(NamedTuple, Generic[T]):
    """The reader of one kind of row file.

    Args:
        name: the first word of warnings, such as "instruments".
        bytes_max: the maximum number of bytes to read of a file.
        decode: returns the row of a JSON line. For a damaged line it returns None or
            raises a decoding error.
    """

    name: str
    bytes_max: int
    decode: Callable[[bytes], T | None]
    line_max: int = LINE_BYTES_MAX

    def read(self, path: Path) -> list[T]:
        """Return the rows of a file.

        Raises:
            OSError: if the file is absent, not readable for this user, or not a regular file.
        """
        return self._read(path)[0]

    def read_all_hosts(self, path: Path) -> list[T]:
        """Return the rows of a file and of its other hosts' files. Absent files have no rows.

        Raises:
            OSError: as `read`.
        """
        rows: list[T] = []
        for each in host_files(path):
            with contextlib.suppress(FileNotFoundError):
                rows += self.read(each)
        return rows

    def read_to_replace(self, path: Path) -> list[T]:
        """Return the rows of a file before its replacement. An absent file has no rows.

        A file with damaged lines is renamed to a `.bad` file.

        Raises:
            OSError: if the file is not readable for this user, or not a regular file.
        """
        try:
            rows, left_out = self._read(path)
        except FileNotFoundError:
            return []
        if left_out:
            path.rename(path.with_name(path.name + BAD_SUFFIX))
            sync_directory(path.parent)
        return rows

    def _read(self, path: Path) -> tuple[list[T], int]:
        lines = read_lines(path, self.bytes_max, self.line_max)
        rows = [row for line in lines.whole if (row := self._row(line)) is not None]
        left_out = len(lines.whole) - len(rows) + lines.torn + lines.cut
        if left_out:
            warn_once(f"{self.name}: {path}: {left_out} damaged lines are left out")
        return rows, left_out

    def _row(self, line: bytes | None) -> T | None:
        if line is None:
            return None
        try:
            return self.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
