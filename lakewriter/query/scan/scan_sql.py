"""The SQL after FROM with which the engine reads partitions' own files.

The paths of files in the lake contain market, symbol, interval and date. The paths
of held files (see `held_files`) do not, so the table `lake_held` has these values.
The date in a path is the day of every row only in files of a day. There the engine
skips days by the paths. Files of months and years have separate scans, which take
the day from each begin time.
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

# Without these types DuckDB would infer the number 1.0 from `interval=1d`, and from `symbol=1F`.
_HIVE = (
    "hive_partitioning=true, hive_types_autocast=false, hive_types={"
    + ", ".join(f"'{name}': '{kind}'" for name, kind in PATH_COLUMNS.items())
    + "}"
)

# The column with the path of a row's file. A simpler name could be the name of a file's column.
FILE_COLUMN = "lakewriter: which file"

# SQL for the columns of _HIVE from a file's name below the root. It is needed if DuckDB
# would also parse the directories of the root.
_FROM_NAMES = ", ".join(
    f"""url_decode(string_split(substr("{FILE_COLUMN}", {{start}}), '/')[{at}][{len(name) + 2}:])::{kind} AS "{name}\""""
    for at, (name, kind) in enumerate(PATH_COLUMNS.items(), 1)
)
_FILE_COLUMNS = ", ".join(f'"{name}"' for name in SCHEMA.names)

# The day of a row in UTC, for any time zone of the session.
_DAY_OF_ROW = """("candle_begin_time" AT TIME ZONE 'UTC')::DATE AS "date\""""
_COLUMN_LIST_BY_ROW = ", ".join(_DAY_OF_ROW if name == "date" else f'"{name}"' for name in COLUMNS)

# Maximum number of files whose names a view contains. The names of more files are in a variable.
NAMES_MAX = 64


class Scan(Protocol):
    """A scan of partitions' own files. Its `str` is the SQL after FROM."""

    @property
    def names(self) -> Sequence[str]:
        """The names of the files, relative to the root."""

    def bind_files(self, connection: duckdb.DuckDBPyConnection, count: int) -> None:
        """Send the first `count` names to the engine."""


class ScanSource(Protocol):
    """A reader of files that the engine cannot open."""

    def scan(self, connection: duckdb.DuckDBPyConnection, name: str, files: Sequence[str]) -> Scan:
        """Register partitions' own files under a unique name, and return their scan."""

    def classify_error(self, error: Exception) -> LakewriterError:
        """Return an engine's error as a LakewriterError."""

    def stop(self) -> None:
        """Stop reading files, because the statement ended."""


def scans_of_own_files(root: Path, part: str, names: Sequence[str], held_files: HeldFiles) -> list[Scan]:
    """Return the scans of a part's files, with separate scans for held files and for longer periods.

    Args:
        root: the lake's root directory.
        part: the part of the view `candles`, as a unique name.
        names: the files, relative to the root.
        held_files: the held files of the statement.
    """
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
    """Return whether a partition's own file is of a day, as its name says."""
    interval = name.split("/", 3)[2].partition("=")[2]
    return INTERVALS[interval].file_period == "day"


class PlainScan(NamedTuple):
    """The SQL for a scan of files in place.

    Args:
        variable: the unique name of the scan's variable.
        root: the lake's root directory.
        names: the files, relative to the root.
        in_variable: whether the variable contains the files' names, instead of the SQL.
        column_list: the columns of `candles` in the syntax of a SELECT.
    """

    variable: str
    root: Path
    names: Sequence[str]
    in_variable: bool
    column_list: str = COLUMN_LIST

    def __str__(self) -> str:
        # `union_by_name` would open each file twice, and a flush may replace it in between.
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
        """Set the variable to the first `count` names, if the scan uses the variable."""
        if self.in_variable:
            _set_paths(connection, self.variable, f"{self.root}/", self.names[:count])


class HeldScan(NamedTuple):
    """The SQL for a scan of held files.

    The scan joins `lake_held`, because descriptors' paths contain no column values.

    Args:
        variable: the unique name of the variable with the files' paths.
        held_files: the held files of the statement.
        names: the files to scan, relative to the root.
        column_list: the columns of `candles` in the syntax of a SELECT.
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
        """Set the variable to the paths of the first `count` names."""
        _set_paths(connection, self.variable, "", [self.held_files.path(name) for name in self.names[:count]])


def _file_sql(name: str) -> str:
    """Return SQL for a file from SQL for its path. DuckDB treats a plain text as a pattern."""
    return f"{{'filename': {name}}}"


def _set_paths(
    connection: duckdb.DuckDBPyConnection, variable: str, before: str, paths: Sequence[str]
) -> None:
    """Set a variable to paths with a common prefix."""
    connection.execute(
        f"SET VARIABLE {variable} = (SELECT list({_file_sql('$before || path')})"  # noqa: S608
        " FROM (SELECT unnest($paths::VARCHAR[]) AS path))",
        {"before": before, "paths": list(paths)},
    )
