"""Small files of rows in `_lakewriter`: one JSON line a row, and each write replaces the file.

Damaged lines are reported and left out. A file with damaged lines is renamed to
a `.bad` file before it is replaced.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

import msgspec

from lakewriter.lake.durable import sync_directory
from lakewriter.lake.lines import read_lines
from lakewriter.lake.segments import BAD_SUFFIX
from lakewriter.lake.warn_once import warn_once

T = TypeVar("T")


class RowFile(NamedTuple, Generic[T]):
    """The reader of one kind of row file.

    Args:
        name: the first word of its warnings ("instruments").
        bytes_max: at most so many bytes of a file are read.
        decode: returns the row of a JSON line; None or a decoding error if the line is damaged.
    """

    name: str
    bytes_max: int
    decode: Callable[[bytes], T | None]

    def read(self, path: Path) -> list[T]:
        """Return the rows of a file.

        Raises:
            OSError: if it is absent, refused, or no regular file.
        """
        return self._read(path)[0]

    def read_to_replace(self, path: Path) -> list[T]:
        """Return the rows of a file that is to be replaced; rename it to `.bad` if it has damaged lines.

        Raises:
            OSError: if it is refused, or no regular file.
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
        lines = read_lines(path, self.bytes_max)
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
