"""The SQL after FROM with which the engine reads partitions' own files.

The paths of files in the lake contain market, symbol, interval and date. The paths
of held files (see `held_files`) do not; the table `lake_held` has these values.
The date of a path is the day of its rows only in files of a day. So files of months
and years have scans of their own, with the day from each begin time. By the paths of
the other files the engine skips days.
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

# The column with the path of a row's file. A file may have a column with a plainer name.
FILE_COLUMN = "lakewriter: which file"

# The columns of _HIVE from a file's name below the root, for a root that DuckDB would parse as well.
_FROM_NAMES = ", ".join(
    f"""url_decode(string_split(substr("{FILE_COLUMN}", {{start}}), '/')[{at}][{len(name) + 2}:])::{kind} AS "{name}\""""
    for at, (name, kind) in enumerate(PATH_COLUMNS.items(), 1)
)
_FILE_COLUMNS = ", ".join(f'"{name}"' for name in SCHEMA.names)

# The day of a row, in UTC whatever zone the session has.
_DAY_OF_ROW = """("candle_begin_time" AT TIME ZONE 'UTC')::DATE AS "date\""""
_COLUMN_LIST_BY_ROW = ", ".join(_DAY_OF_ROW if name == "date" else f'"{name}"' for name in COLUMNS)

# A view over at most so many files contains their names; those of more are in a variable.
NAMES_MAX = 64


class Scan(Protocol):
    """A scan of partitions' own files; its text is the SQL after FROM."""

    @property
    def names(self) -> Sequence[str]:
        """The files, relative to the root."""

    def bind_files(self, connection: duckdb.DuckDBPyConnection, count: int) -> None:
        """Give the engine the first `count` names."""


class ScanSource(Protocol):
    """A reader of files that the engine cannot open."""

    def scan(self, connection: duckdb.DuckDBPyConnection, name: str, files: Sequence[str]) -> Scan:
        """Return a scan of partitions' own files, registered under a unique name."""

    def classify_error(self, error: Exception) -> LakewriterError:
        """Return the engine's error as one of ours."""

    def stop(self) -> None:
        """Read no more files, because the statement ended."""


def scans_of_own_files(root: Path, part: str, names: Sequence[str], held_files: HeldFiles) -> list[Scan]:
    """Return the scans of a part's files: one of files in place, one of held files."""
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
    """A scan of files in place, as SQL.

    Args:
        variable: a unique name.
        in_variable: whether the variable has the files' names, instead of the SQL.
        column_list: the columns of `candles`, as a SELECT names them.
    """

    variable: str
    root: Path
    names: Sequence[str]
    in_variable: bool
    column_list: str = COLUMN_LIST

    def __str__(self) -> str:
        # Not union_by_name: it opens each file twice, and a flush may replace it in between.
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
        """Set the variable to the first names, if the scan uses it."""
        if self.in_variable:
            _set_paths(connection, self.variable, f"{self.root}/", self.names[:count])


class HeldScan(NamedTuple):
    """A scan of held files, as SQL. It joins `lake_held`, since their paths have no values.

    Args:
        variable: a unique name, for the files' paths.
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
        """Set the variable to the paths of the first names."""
        _set_paths(connection, self.variable, "", [self.held_files.path(name) for name in self.names[:count]])


def _file_sql(name: str) -> str:
    """Return SQL for a file, from SQL for its path. DuckDB takes a plain text for a pattern."""
    return f"{{'filename': {name}}}"


def _set_paths(
    connection: duckdb.DuckDBPyConnection, variable: str, before: str, paths: Sequence[str]
) -> None:
    """Set a variable to paths with a common beginning."""
    connection.execute(
        f"SET VARIABLE {variable} = (SELECT list({_file_sql('$before || path')})"  # noqa: S608
        " FROM (SELECT unnest($paths::VARCHAR[]) AS path))",
        {"before": before, "paths": list(paths)},
    )
