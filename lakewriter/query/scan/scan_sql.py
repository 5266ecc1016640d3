"""How the engine reads partitions' own files: what stands behind FROM.

Files that lie in the lake say by their paths whose rows they are. The paths of
those that are held (see `held_files`) say nothing; the table `lake_held` does.
The day of a row is in its path only where a file is of a day. Files of months and
years are scanned apart from these, with the day from each begin time: the paths of
the others tell the engine which days it can skip.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import duckdb

from lakewriter.candle import SCHEMA
from lakewriter.errors import LakewriterError
from lakewriter.interval import INTERVALS
from lakewriter.query.scan.held_files import HeldFiles
from lakewriter.query.schema import COLUMN_LIST, COLUMNS, PATH_COLUMNS

# Inferred, `interval=1d` alone would be the number 1.0 and `symbol=1F` too.
_HIVE = (
    "hive_partitioning=true, hive_types_autocast=false, hive_types={"
    + ", ".join(f"'{name}': '{kind}'" for name, kind in PATH_COLUMNS.items())
    + "}"
)

# The column that says which file a row is of; by any plainer name a file may have one itself.
FILE_COLUMN = "lakewriter: which file"

# The same as of _HIVE, out of a file's name below the root, for a root that would itself be taken for a part of it.
_FROM_NAMES = ", ".join(
    f"""url_decode(string_split(substr("{FILE_COLUMN}", {{start}}), '/')[{at}][{len(name) + 2}:])::{kind} AS "{name}\""""
    for at, (name, kind) in enumerate(PATH_COLUMNS.items(), 1)
)
_FILE_COLUMNS = ", ".join(f'"{name}"' for name in SCHEMA.names)

# The day of a row, in UTC whatever zone the session has.
_DAY_OF_ROW = """("candle_begin_time" AT TIME ZONE 'UTC')::DATE AS "date\""""
_COLUMN_LIST_BY_ROW = ", ".join(_DAY_OF_ROW if name == "date" else f'"{name}"' for name in COLUMNS)

# A view over so few files has their names in it; of more they are in a variable.
NAMES_MAX = 64


class Scan(Protocol):
    """A scan of partitions' own files; as text, what stands behind FROM."""

    @property
    def names(self) -> Sequence[str]:
        """Which files."""

    def bind_files(self, connection: duckdb.DuckDBPyConnection, count: int) -> None:
        """Let the engine know the first of the names."""


class ScanSource(Protocol):
    """Somebody who reads files for an engine that cannot."""

    def scan(self, connection: duckdb.DuckDBPyConnection, name: str, files: Sequence[str]) -> Scan:
        """Return a scan of partitions' own files, which the engine knows by a name of its own."""

    def classify_error(self, error: Exception) -> LakewriterError:
        """Return whose fault the engine's error is."""

    def stop(self) -> None:
        """Read no more: nobody waits for it."""


def scans_of_own_files(root: Path, part: str, names: Sequence[str], held_files: HeldFiles) -> list[Scan]:
    """Return the scans of a part's files: of those that lie there, and of those that are held."""
    longer = [name for name in names if not _is_of_a_day(name)]
    of_days = [name for name in names if _is_of_a_day(name)] if longer else names
    return [
        *_scans_of(root, part, of_days, held_files, COLUMN_LIST),
        *_scans_of(root, f"{part}_longer", longer, held_files, _COLUMN_LIST_BY_ROW),
    ]


def _scans_of(
    root: Path, part: str, names: Sequence[str], held_files: HeldFiles, column_list: str
) -> Iterator[Scan]:
    held = [name for name in names if name in held_files.names] if held_files.names else []
    unheld = [name for name in names if name not in held_files.names] if held else names
    if held:
        yield HeldScan(f"{part}_held", held_files, held, column_list)
    if unheld:
        yield PlainScan(part, root, unheld, len(unheld) > NAMES_MAX, column_list)


def _is_of_a_day(name: str) -> bool:
    """Return whether a partition's own file is of a day, by its name."""
    interval = name.split("/", 3)[2].partition("=")[2]
    return INTERVALS[interval].file_period == "day"


class PlainScan(NamedTuple):
    """A scan of files, as SQL.

    Args:
        variable: a name of its own.
        in_variable: whether their names are in it, and not in the SQL.
        column_list: the columns of `candles`, as a SELECT names them.
    """

    variable: str
    root: Path
    names: Sequence[str]
    in_variable: bool
    column_list: str = COLUMN_LIST

    def __str__(self) -> str:
        # Never union_by_name: it opens each file twice, and between the two a flush
        # may replace it.
        files = f"getvariable('{self.variable}')"
        if not self.in_variable:
            quoted = (f"{self.root}/{name}".replace("'", "''") for name in self.names)
            files = "[" + ", ".join(_file_sql(f"'{name}'") for name in quoted) + "]"
        if any(part.partition("=")[0].lower() in PATH_COLUMNS for part in self.root.parts):
            values = _FROM_NAMES.format(start=len(f"{self.root}/") + 1)
            plain = f"read_parquet({files}, hive_partitioning=false, filename='{FILE_COLUMN}')"
            rows = f"(SELECT {_FILE_COLUMNS}, {values} FROM {plain})"  # noqa: S608
        else:
            rows = f"read_parquet({files}, {_HIVE})"
        return rows if self.column_list == COLUMN_LIST else f"(SELECT {self.column_list} FROM {rows})"  # noqa: S608

    def bind_files(self, connection: duckdb.DuckDBPyConnection, count: int) -> None:
        """Set the variable to the first of the names, if they are in it."""
        if self.in_variable:
            _set_paths(connection, self.variable, f"{self.root}/", self.names[:count])


class HeldScan(NamedTuple):
    """A scan of files that are held, as SQL: their paths say nothing, `lake_held` does.

    Args:
        variable: a name of its own, for their paths.
        column_list: the columns of `candles`, as a SELECT names them.
    """

    variable: str
    held_files: HeldFiles
    names: Sequence[str]
    column_list: str = COLUMN_LIST

    def __str__(self) -> str:
        rows = (
            f"SELECT {_FILE_COLUMNS}, \"{FILE_COLUMN}\" FROM read_parquet(getvariable('{self.variable}'),"  # noqa: S608
            f" hive_partitioning=false, filename='{FILE_COLUMN}')"
        )
        return f'(SELECT {self.column_list} FROM ({rows}) JOIN lake_held USING ("{FILE_COLUMN}"))'  # noqa: S608

    def bind_files(self, connection: duckdb.DuckDBPyConnection, count: int) -> None:
        """Set the variable to the paths of the first of the names."""
        _set_paths(connection, self.variable, "", [self.held_files.path(name) for name in self.names[:count]])


def _file_sql(name: str) -> str:
    """Return SQL for a file to read, from SQL for its path. A plain text would be a pattern."""
    return f"{{'filename': {name}}}"


def _set_paths(
    connection: duckdb.DuckDBPyConnection, variable: str, before: str, paths: Sequence[str]
) -> None:
    """Set a variable to paths, for a scan, that all begin with some text."""
    connection.execute(
        f"SET VARIABLE {variable} = (SELECT list({_file_sql('$before || path')})"  # noqa: S608
        " FROM (SELECT unnest($paths::VARCHAR[]) AS path))",
        {"before": before, "paths": list(paths)},
    )
