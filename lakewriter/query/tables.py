"""The tables that SQL sees, as views over files and the journal.

Every column is named and typed here, in one order, whatever the files say: an
empty lake has the same columns as a full one. What SQL should not see lives in
the schema `lake`.
"""

from collections.abc import Sequence
from pathlib import Path

import duckdb
import pyarrow as pa

from lakewriter.candle import SCHEMA
from lakewriter.lake.lake import LakeStore
from lakewriter.query.files import Snapshot, journal_table, partitions_table, take_snapshot

_PATH_COLUMNS = {"market": "VARCHAR", "symbol": "VARCHAR", "interval": "VARCHAR", "date": "DATE"}

_SQL_TYPES = {
    pa.float64(): "DOUBLE",
    pa.int64(): "BIGINT",
    pa.string(): "VARCHAR",
    pa.timestamp("ms", tz="UTC"): "TIMESTAMPTZ",
    pa.timestamp("us", tz="UTC"): "TIMESTAMPTZ",
}

# column → SQL type, in the order that `SELECT *` shows.
COLUMNS = _PATH_COLUMNS | {field.name: _SQL_TYPES[field.type] for field in SCHEMA}

_CAST_COLUMNS = ", ".join(f'CAST("{name}" AS {kind}) AS "{name}"' for name, kind in COLUMNS.items())

# Inferred, `interval=1d` alone would be the number 1.0 and `symbol=1F` too.
_HIVE = (
    "hive_partitioning=true, hive_types_autocast=false, hive_types={"
    + ", ".join(f"'{name}': '{kind}'" for name, kind in _PATH_COLUMNS.items())
    + "}"
)

# lakewriter.candle.precedence in SQL.
_WINNER = """
QUALIFY row_number() OVER (
    PARTITION BY market, symbol, "interval", candle_begin_time
    ORDER BY (source IS NOT DISTINCT FROM 'archive') DESC, trade_num DESC NULLS LAST, recv_time DESC NULLS LAST
) = 1
"""


def create_tables(connection: duckdb.DuckDBPyConnection, store: LakeStore, wanted: frozenset[str]) -> None:
    """Create every table of `guard.TABLES`.

    Args:
        wanted: those to fill; the others are empty but have their columns.

    Raises:
        FileNotFoundError: if a file vanished meanwhile.
        LakeError: if the lake cannot be listed or its journal not read.
    """
    connection.execute("CREATE SCHEMA lake")
    snapshot = take_snapshot(store) if "candles" in wanted else Snapshot([], (), ())
    _create_candles(connection, store.root, snapshot)
    connection.execute(
        'CREATE TABLE partitions (market VARCHAR, symbol VARCHAR, "interval" VARCHAR, "date" DATE,'
        " files BIGINT, bytes BIGINT)"
    )
    if "partitions" in wanted:
        _insert(connection, "partitions", partitions_table(store))


def _create_candles(connection: duckdb.DuckDBPyConnection, root: Path, snapshot: Snapshot) -> None:
    columns = ", ".join(f'"{name}" {kind}' for name, kind in COLUMNS.items())
    connection.execute(f"CREATE TABLE lake.journal ({columns})")
    if snapshot.journal:
        _insert(connection, "lake.journal", journal_table(snapshot.journal))
    parts = []
    if snapshot.settled:
        _set_files(connection, "settled", root, snapshot.settled)
        parts.append(f"SELECT {_CAST_COLUMNS} FROM read_parquet(getvariable('settled'), {_HIVE})")  # noqa: S608
    if snapshot.loose:
        _set_files(connection, "loose", root, snapshot.loose)
        # The journal's columns stand in for those that a foreign file lacks.
        parts.append(
            f"SELECT {_CAST_COLUMNS} FROM ("  # noqa: S608
            f"FROM read_parquet(getvariable('loose'), union_by_name=true, {_HIVE}) "
            f"UNION ALL BY NAME FROM lake.journal) {_WINNER}"
        )
    elif snapshot.journal or not parts:
        parts.append(f"SELECT {_CAST_COLUMNS} FROM lake.journal {_WINNER}")  # noqa: S608
    connection.execute(f"CREATE VIEW candles AS {' UNION ALL '.join(parts)}")


def _insert(connection: duckdb.DuckDBPyConnection, table: str, rows: pa.Table) -> None:
    connection.register("arriving", rows)
    try:
        connection.execute(f"INSERT INTO {table} BY NAME FROM arriving")
    finally:
        connection.unregister("arriving")


def _set_files(
    connection: duckdb.DuckDBPyConnection, variable: str, root: Path, names: Sequence[str]
) -> None:
    # As structs, names are taken as they stand; as strings, `[` and `*` would be
    # globs and each of them looked up once more.
    connection.execute(
        f"SET VARIABLE {variable} = (SELECT list({{'filename': $root || name}})"  # noqa: S608
        " FROM (SELECT unnest($names::VARCHAR[]) AS name))",
        {"root": f"{root}/", "names": list(names)},
    )
