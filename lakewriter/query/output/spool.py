"""Rows of text that are read more than once: in memory while they are few, else in a file."""

import tempfile
from collections.abc import Iterable, Iterator

Row = tuple[str, ...]

# Larger tables are kept in an unnamed temporary file.
MEMORY_BYTES_MAX = 32 * 1024 * 1024


class RowSpool:
    """Rows of printable text that can be read repeatedly. Has to be closed.

    Args:
        memory_bytes_max: bytes in memory before a file is used.
    """

    def __init__(self, memory_bytes_max: int = MEMORY_BYTES_MAX) -> None:
        self._file = tempfile.SpooledTemporaryFile(  # noqa: SIM115 - closed by close
            memory_bytes_max, "w+", encoding="utf-8", newline="\n"
        )
        self._rows = 0

    def __len__(self) -> int:
        return self._rows

    def __iter__(self) -> Iterator[Row]:
        self._file.seek(0)
        for line in self._file:
            yield tuple(line[:-1].split("\t"))

    def extend(self, rows: Iterable[Row]) -> None:
        """Append rows. No cell contains a tab or a line break, since both are escaped."""
        lines = ["\t".join(row) + "\n" for row in rows]
        self._file.writelines(lines)
        self._rows += len(lines)

    def close(self) -> None:
        """Close the file and drop the rows."""
        self._file.close()
