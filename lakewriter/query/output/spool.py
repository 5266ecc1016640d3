"""A store for rows of text that are read repeatedly, in memory or in a temporary file."""

import tempfile
from collections.abc import Iterable, Iterator

Row = tuple[str, ...]

# Maximum bytes of rows in memory. More rows go to an unnamed temporary file.
MEMORY_BYTES_MAX = 32 * 1024 * 1024


class RowSpool:
    """Rows of printable text that can be read repeatedly. The caller has to close it.

    Args:
        memory_bytes_max: the maximum bytes in memory. More rows go to a file.
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
        """Append rows. Their cells contain no tab and no line break, since both are escaped."""
        lines = ["\t".join(row) + "\n" for row in rows]
        self._file.writelines(lines)
        self._rows += len(lines)

    def close(self) -> None:
        """Close the file and discard the rows."""
        self._file.close()
