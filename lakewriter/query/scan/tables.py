"""The tables that SQL sees, as views over files and the journal.

Every column has its name, type and place, whatever the files say: an empty lake
has the same columns as a full one. All are temporary, so each statement has its
own. The guard lets no statement name `lake_held` and `lake_unmerged`.
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

# What is made only for a statement that names it.
_MADE = frozenset(("partitions", "gaps", "coverage", "instruments", "subscriptions", "forgotten"))

# Partitions' own files: those without loose rows in their partition, and those with.
_SETTLED, _HOT = "settled", "hot"

# The engine goes through so many names in a millisecond.
_NAMES_AT_CREATION_MAX = 1_000

# By the part of the view that they are of.
_Scans = Mapping[str, Sequence[Scan]]

_KEY = 'market, symbol, "interval", candle_begin_time'

# lakewriter.candle.precedence in SQL. The day follows from the key; it is named
# for the engine, which pushes filters on what is named here down to the files.
# NaN sorts after every number, so it loses ascending; isnan() would be folded by
# the statistics of a file, which leave NaN out.
_WINNER = f"""
QUALIFY row_number() OVER (
    PARTITION BY {_KEY}, "date"
    ORDER BY (source IS NOT DISTINCT FROM 'archive') DESC,
        trade_num DESC NULLS LAST,
        CASE WHEN trade_num IS NULL THEN -volume END ASC NULLS LAST,
        recv_time DESC NULLS LAST
) = 1
"""


def create_tables(
    connection: duckdb.DuckDBPyConnection, store: LakeStore, wanted: frozenset[str], *, all_names: bool
) -> None:
    """Create the tables of `guard.TABLES` but `candles`.

    Args:
        wanted: those to fill.
        all_names: create the others too, empty.

    Raises:
        FileNotFoundError: if a file vanished meanwhile.
        LakeError: if a ledger cannot be read.
    """
    if wanted.isdisjoint(_MADE) and not all_names:
        return
    for name, (schema, rows) in _made().items():
        if name in wanted or all_names:
            _create(connection, name, {field.name: SQL_TYPES[field.type] for field in schema})
        if name in wanted:
            _insert(connection, name, rows(store))


def _made() -> dict[str, tuple[pa.Schema, Callable[[LakeStore], pa.Table]]]:
    """Return the columns of each table of _MADE, and what makes its rows."""
    # Half of the lake is imported for these, and most statements name none of them.
    from lakewriter.lake.coverage import tables as told  # noqa: PLC0415

    return {
        "partitions": (PARTITIONS_SCHEMA, partitions_table),
        "gaps": (told.GAPS_SCHEMA, told.gaps_table),
        "coverage": (told.COVERAGE_SCHEMA, told.coverage_table),
        "instruments": (told.INSTRUMENTS_SCHEMA, told.instruments_table),
        "subscriptions": (told.SUBSCRIPTIONS_SCHEMA, told.subscriptions_table),
        "forgotten": (told.FORGOTTEN_SCHEMA, told.forgotten_table),
    }


def create_candles(
    connection: duckdb.DuckDBPyConnection,
    store: LakeStore,
    snapshot: Snapshot,
    held_files: HeldFiles,
    source: ScanSource | None = None,
) -> None:
    """Create `candles`: settled files, the rest of hot ones, and the winners of what is loose.

    A hot file is scanned twice, and may be replaced in between. A key that is
    loose comes from the last part alone, any other one from the first two, so
    none is repeated or lost by that.

    Args:
        held_files: files that are held.
        source: reads the files; None is the engine itself.

    Raises:
        FileNotFoundError: if a file vanished meanwhile.
        DoubtError: if an own file has to be read as a foreign one.
        LakeError: if a foreign file holds no candles.
    """
    named = _fill_loose(connection, store, snapshot)
    hot_names = {partition.file for partition in named}
    hot = [name for name in snapshot.own if name in hot_names]
    settled = [name for name in snapshot.own if name not in hot_names] if hot else list(snapshot.own)
    parts = {_SETTLED: settled, _HOT: hot}
    if source is None:
        for names in parts.values():
            _check_first(held_files, names, snapshot)
        _fill_pinned(connection, held_files)
        scans = {
            part: scans_of_own_files(held_files.root, part, names, held_files)
            for part, names in parts.items()
        }
    else:
        scans = {part: [source.scan(connection, part, names)] for part, names in parts.items() if names}
    # A view over a hundred thousand names takes seconds to create. It is created over
    # some of them, and reads all of them.
    all_scans = list(chain(*scans.values()))
    for scan in all_scans:
        scan.bind_files(connection, min(len(scan.names), _NAMES_AT_CREATION_MAX))
    connection.execute(_view(scans, loose=bool(named)))
    for scan in all_scans:
        if len(scan.names) > _NAMES_AT_CREATION_MAX:
            scan.bind_files(connection, len(scan.names))


def _view(scans: _Scans, *, loose: bool = False) -> str:
    return f"CREATE TEMP VIEW candles AS {' UNION ALL '.join(_parts(scans, loose=loose))}"


def _parts(scans: _Scans, *, loose: bool) -> list[str]:
    settled, hot = scans.get(_SETTLED, ()), scans.get(_HOT, ())
    parts = [f"SELECT {COLUMN_LIST} FROM {each}" for each in settled]  # noqa: S608
    parts += [f"SELECT {COLUMN_LIST} FROM {each} ANTI JOIN lake_unmerged USING ({_KEY})" for each in hot]  # noqa: S608
    if loose or not parts:
        again = " ".join(
            f"UNION ALL BY NAME FROM {each} SEMI JOIN lake_unmerged USING ({_KEY})" for each in hot
        )
        parts.append(f"SELECT {COLUMN_LIST} FROM (FROM lake_unmerged {again}) {_WINNER}")  # noqa: S608
    return parts


def _fill_pinned(connection: duckdb.DuckDBPyConnection, held_files: HeldFiles) -> None:
    """Make the table of what the paths of held files would say of them, if there is need of it."""
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


def _fill_loose(
    connection: duckdb.DuckDBPyConnection, store: LakeStore, snapshot: Snapshot
) -> list[Partition]:
    """Make the table of loose rows, if there is need of it; return the partitions that they name."""
    if snapshot.own and not snapshot.journal and not snapshot.foreign:
        return []
    _create(connection, "lake_unmerged", COLUMNS)
    for rows in unmerged_tables(store, snapshot):
        _insert(connection, "lake_unmerged", rows)
    named = connection.execute(
        'SELECT DISTINCT market, symbol, "interval", "date" FROM lake_unmerged'
    ).fetchall()
    return list({partition_on((market, symbol, interval), day) for market, symbol, interval, day in named})


def _create(connection: duckdb.DuckDBPyConnection, name: str, columns: Mapping[str, str]) -> None:
    listed = ", ".join(f'"{column}" {kind}' for column, kind in columns.items())
    connection.execute(f"CREATE TEMP TABLE {name} ({listed})")


def _check_first(held_files: HeldFiles, names: Sequence[str], snapshot: Snapshot) -> None:
    """Refuse scans whose columns and types would be those of a file that has others.

    After this they are ours, and need no casting.
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
