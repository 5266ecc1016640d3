"""The tables of SQL, as views over files and the journal.

Columns have the same names, types and order for all files, and in an empty lake. The
tables are temporary, so each statement has its own tables. The guard refuses
statements that name `lake_held` or `lake_unmerged`.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path

import duckdb
import pyarrow as pa

from lakewriter.errors import LakeError
from lakewriter.lake.lake import LakeStore
from lakewriter.partition import LEVELS, Partition, parse_partition, partition_on
from lakewriter.query.errors import UnreadableAsIsError
from lakewriter.query.scan.held_files import HeldFiles
from lakewriter.query.scan.merged_rows import merge_journal
from lakewriter.query.scan.scan_sql import FILE_COLUMN, Scan, ScanSource, scans_of_own_files
from lakewriter.query.scan.snapshot import (
    PARTITIONS_SCHEMA,
    Snapshot,
    files_with_other_schema,
    has_our_schema,
    partitions_table,
    unmerged_tables,
)
from lakewriter.query.schema import COLUMN_LIST, COLUMNS, PATH_COLUMNS, SQL_TYPES

# Tables that are filled only for a statement that names them.
_COMPUTED = frozenset(("partitions", "gaps", "coverage", "instruments", "subscriptions", "forgotten"))

# The parts of the view: own files of partitions without and with unmerged rows.
_MERGED, _WITH_UNMERGED = "merged", "with_unmerged"

# Maximum number of names when the view is created. The engine reads them in a millisecond.
_NAMES_AT_CREATION_MAX = 1_000

# Part of the view → its scans.
_Scans = Mapping[str, Sequence[Scan]]

_KEY = 'market, symbol, "interval", candle_begin_time'

# lakewriter.candle.precedence in SQL. The day follows from the key. PARTITION BY names
# it too, so that the engine pushes filters on the day down to the files. NaN sorts after
# every number, so it loses in ascending order. The SQL avoids isnan(), because the engine
# would fold it by a file's statistics, which ignore NaN.
_WINNER = f"""
QUALIFY row_number() OVER (
    PARTITION BY {_KEY}, "date"
    ORDER BY (source IS NOT DISTINCT FROM 'archive') DESC,
        trade_num DESC NULLS LAST,
        CASE WHEN trade_num IS NULL THEN -volume END ASC NULLS LAST,
        recv_time DESC NULLS LAST
) = 1
"""


# The last SELECT of the view, of keys with unmerged rows: the best row of each, or rows that are merged.
_BEST_ROWS = f"SELECT {COLUMN_LIST} FROM (FROM lake_unmerged {{same_keys}}) {_WINNER}"  # noqa: S608
_MERGED_ROWS = f"SELECT {COLUMN_LIST} FROM lake_unmerged"  # noqa: S608


def create_tables(
    connection: duckdb.DuckDBPyConnection, store: LakeStore, wanted: frozenset[str], *, all_names: bool
) -> None:
    """Create the tables of `guard.TABLES`, except `candles`.

    Args:
        wanted: the names of the tables to fill.
        all_names: whether to create the other tables too, without rows.

    Raises:
        FileNotFoundError: if a file vanished meanwhile.
        LakeError: if a ledger cannot be read.
    """
    if wanted.isdisjoint(_COMPUTED) and not all_names:
        return
    for name, (schema, rows) in _computed_tables().items():
        if name in wanted or all_names:
            _create(connection, name, {field.name: SQL_TYPES[field.type] for field in schema})
        if name in wanted:
            _insert(connection, name, rows(store))


def _computed_tables() -> dict[str, tuple[pa.Schema, Callable[[LakeStore], pa.Table]]]:
    """Return the schema of each table of _COMPUTED, and the function that returns its rows."""
    # This module imports half of the lake package, and most statements do not need it.
    from lakewriter.lake.coverage import tables as coverage_tables  # noqa: PLC0415

    return {
        "partitions": (PARTITIONS_SCHEMA, partitions_table),
        "gaps": (coverage_tables.GAPS_SCHEMA, coverage_tables.gaps_table),
        "coverage": (coverage_tables.COVERAGE_SCHEMA, coverage_tables.coverage_table),
        "instruments": (coverage_tables.INSTRUMENTS_SCHEMA, coverage_tables.instruments_table),
        "subscriptions": (coverage_tables.SUBSCRIPTIONS_SCHEMA, coverage_tables.subscriptions_table),
        "forgotten": (coverage_tables.FORGOTTEN_SCHEMA, coverage_tables.forgotten_table),
    }


def create_candles(
    connection: duckdb.DuckDBPyConnection,
    store: LakeStore,
    snapshot: Snapshot,
    held_files: HeldFiles,
    source: ScanSource | None = None,
) -> None:
    """Create `candles` as the union of three SELECTs.

    1. The own files of partitions without unmerged rows.
    2. The other own files, without the keys that have unmerged rows.
    3. The best row of each key that has unmerged rows, by `lakewriter.candle.precedence`.

    Keys with unmerged rows come only from the third SELECT, all others from the first
    two. So no key is duplicated or lost, even if a file is replaced between its scans.
    If few partitions have unflushed candles, the third SELECT has all their rows (see
    `merged_rows`), and the second does not exist.

    Args:
        held_files: the held files of the statement.
        source: the reader of the files; None if the engine itself reads them.

    Raises:
        FileNotFoundError: if a file vanished meanwhile.
        UnreadableAsIsError: if an own file has to be read as a foreign one.
        LakeError: if a foreign file has no candles.
    """
    merged_here = merge_journal(store, snapshot) if source is None else None
    if merged_here is not None:
        rows, snapshot = merged_here
        _create_filled(connection, "lake_unmerged", COLUMNS, rows)
        with_unmerged = []
    else:
        with_unmerged = _create_unmerged_table(connection, store, snapshot)
    unmerged_names = {partition.file for partition in with_unmerged}
    other = [name for name in snapshot.own if name in unmerged_names]
    merged = [name for name in snapshot.own if name not in unmerged_names] if other else list(snapshot.own)
    parts = {_MERGED: merged, _WITH_UNMERGED: other}
    if source is None:
        for names in parts.values():
            _check_first_file(held_files, names, snapshot)
        _create_held_table(connection, held_files)
        scans = {
            part: scans_of_own_files(held_files.root, part, names, held_files)
            for part, names in parts.items()
        }
    else:
        scans = {part: [source.scan(connection, part, names)] for part, names in parts.items() if names}
    # Creating a view over a hundred thousand names takes seconds. So the view is created
    # over some names, and its variables get all names afterwards.
    all_scans = list(chain(*scans.values()))
    for scan in all_scans:
        scan.bind_files(connection, min(len(scan.names), _NAMES_AT_CREATION_MAX))
    last = _MERGED_ROWS if merged_here is not None else _BEST_ROWS if with_unmerged else None
    connection.execute(_view(scans, last))
    for scan in all_scans:
        if len(scan.names) > _NAMES_AT_CREATION_MAX:
            scan.bind_files(connection, len(scan.names))


def _view(scans: _Scans, unmerged: str | None) -> str:
    return f"CREATE TEMP VIEW candles AS {' UNION ALL '.join(_parts(scans, unmerged))}"


def _parts(scans: _Scans, unmerged: str | None) -> list[str]:
    """Return the SELECTs of the view.

    Args:
        unmerged: the last SELECT; None if no partition has unmerged rows.
    """
    merged, other = scans.get(_MERGED, ()), scans.get(_WITH_UNMERGED, ())
    parts = [f"SELECT {COLUMN_LIST} FROM {scan}" for scan in merged]  # noqa: S608
    parts += [f"SELECT {COLUMN_LIST} FROM {scan} ANTI JOIN lake_unmerged USING ({_KEY})" for scan in other]  # noqa: S608
    if unmerged is not None or not parts:
        same_keys = " ".join(
            f"UNION ALL BY NAME FROM {scan} SEMI JOIN lake_unmerged USING ({_KEY})" for scan in other
        )
        parts.append((unmerged or _BEST_ROWS).format(same_keys=same_keys))
    return parts


def _create_held_table(connection: duckdb.DuckDBPyConnection, held_files: HeldFiles) -> None:
    """Create the table of the held files' path columns, if the statement holds files."""
    if not held_files.names:
        return
    names = list(held_files.names)
    partitions = [parse_partition(name.rpartition("/")[0]) for name in names]
    columns: dict[str, list[object]] = {
        level: [getattr(partition, level) for partition in partitions] for level in LEVELS
    }
    columns[FILE_COLUMN] = [held_files.path(name) for name in names]
    _create(connection, "lake_held", PATH_COLUMNS | {FILE_COLUMN: "VARCHAR"})
    _insert(connection, "lake_held", pa.table(columns))


def _create_unmerged_table(
    connection: duckdb.DuckDBPyConnection, store: LakeStore, snapshot: Snapshot
) -> list[Partition]:
    """Create the table of unmerged rows if they may exist, and return their partitions."""
    if snapshot.own and not snapshot.journal and not snapshot.foreign:
        return []
    _create(connection, "lake_unmerged", COLUMNS)
    for rows in unmerged_tables(store, snapshot):
        _insert(connection, "lake_unmerged", rows)
    partitions = connection.execute(
        'SELECT DISTINCT market, symbol, "interval", "date" FROM lake_unmerged'
    ).fetchall()
    return list(
        {partition_on((market, symbol, interval), day) for market, symbol, interval, day in partitions}
    )


def _create(connection: duckdb.DuckDBPyConnection, name: str, columns: Mapping[str, str]) -> None:
    listed = ", ".join(f'"{column}" {kind}' for column, kind in columns.items())
    connection.execute(f"CREATE TEMP TABLE {name} ({listed})")


def _create_filled(
    connection: duckdb.DuckDBPyConnection, name: str, columns: Mapping[str, str], rows: pa.Table
) -> None:
    """Create a table with rows, in one statement."""
    listed = ", ".join(f'"{column}"::{kind} AS "{column}"' for column, kind in columns.items())
    connection.register("arriving", rows)
    try:
        connection.execute(f"CREATE TEMP TABLE {name} AS SELECT {listed} FROM arriving")  # noqa: S608
    finally:
        connection.unregister("arriving")


def _check_first_file(held_files: HeldFiles, names: Sequence[str], snapshot: Snapshot) -> None:
    """Raise UnreadableAsIsError if the first file of a scan does not have our columns and types.

    DuckDB takes the columns and types of a scan from its first file.
    """
    unheld = next((name for name in names if name not in held_files.names), None)
    held = next((name for name in names if name in held_files.names), None) if held_files.names else None
    for name in (unheld, held):
        if name is not None and not has_our_schema(Path(held_files.path(name))):
            what = LakeError(f"lake: {held_files.root / name}: not a readable Parquet file of candles")
            raise UnreadableAsIsError(files_with_other_schema(held_files.root, snapshot.own) | {name}, what)


def _insert(connection: duckdb.DuckDBPyConnection, table: str, rows: pa.Table) -> None:
    connection.register("arriving", rows)
    try:
        connection.execute(f"INSERT INTO {table} BY NAME FROM arriving")
    finally:
        connection.unregister("arriving")
