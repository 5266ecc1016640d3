"""Decoding of foreign files in a partition, with a check of their series. No I/O.

The evidence is the same as for an import. A file whose columns, metadata or rows
are of another series does not belong to the partition. Readers leave it out, and
compaction does not fold it; each logs one warning. Rows that are marked open are
not candles yet.
"""

from functools import lru_cache
from typing import NamedTuple

import pyarrow as pa

from lakewriter.candle import SCHEMA, VALUE_COLUMNS, int_column
from lakewriter.errors import LakewriterError, UnreadableError
from lakewriter.evidence.choice import check_name_claims, choose_series
from lakewriter.evidence.claims import LEVELS, Claim, ImportOptions, agree, claims_on
from lakewriter.evidence.closed import marked_closed
from lakewriter.evidence.columns import column_claims, metadata_claims
from lakewriter.evidence.duplicates import without_duplicates
from lakewriter.evidence.row_groups import group_rows
from lakewriter.evidence.spacing import check_lengths, check_spacing
from lakewriter.interval import INTERVALS
from lakewriter.lake.parquet import REQUIRED, WRITER_KEY, conform, read_table
from lakewriter.partition import Partition

_BY = "its directory"
MEND = "it was not changed; repair it, or move it out of the lake, then run again"


# Partitions of one series follow each other.
_SERIES_MAX = 1024

# Without end times the spacing of a file's rows is checked, and without receive times its duplicates.
_PLAIN = {*REQUIRED, "candle_end_time", "recv_time"}


class ForeignRows(NamedTuple):
    """The candles of a foreign file, and the number of rows that the file marks open."""

    rows: pa.Table
    not_closed: int


def foreign_rows(data: bytes, name: str, partition: Partition) -> pa.Table:
    """Return the closed candles of a foreign file; see `decode_foreign`."""
    return decode_foreign(data, name, partition).rows


def decode_foreign(data: bytes, name: str, partition: Partition) -> ForeignRows:
    """Return the closed candles of a foreign file, in SCHEMA.

    Args:
        data: the whole file.
        name: the file's name in errors.
        partition: the partition of the file's directory.

    Raises:
        UnreadableError: if the file's rows are not candles, or of another series.
    """
    return decode_foreign_table(read_table(data, name), name, partition)


def decode_foreign_table(table: pa.Table, name: str, partition: Partition) -> ForeignRows:
    """Return the closed candles of a foreign file, in SCHEMA, from its table; see `decode_foreign`."""
    rows = conform(table, name)
    if _is_ours(table, partition):
        return ForeignRows(rows, 0)
    try:
        place = _claims_of(partition.market, partition.symbol, partition.interval)
        written_by_lake = metadata_claims(table)
        check_name_claims([*place, *written_by_lake], ImportOptions(), name)
        groups = group_rows(column_claims(table), name, lambda text: text == partition.symbol)
        choose_series(groups, place, ImportOptions(), name, table.num_rows)
        if not written_by_lake:
            _check_rows(table, rows, partition)
        closed = marked_closed(table)
    except LakewriterError as error:
        what = error.what if error.what.startswith(name) else f"{name}: {error.what}"
        raise UnreadableError(what, MEND) from None
    if closed is None:
        return ForeignRows(rows, 0)
    return ForeignRows(rows.filter(pa.array(closed)), int((~closed).sum()))


def has_only_candle_columns(table: pa.Table) -> bool:
    """Return whether a table has only columns of SCHEMA, among them the end and receive times.

    Such columns claim no series and mark no candle open. A lake's file claims one by its metadata.
    """
    if WRITER_KEY.encode() in (table.schema.metadata or {}):
        return False
    names = table.column_names
    return names == SCHEMA.names or (
        _PLAIN.issubset(names) and len(set(names)) == len(names) and set(names).issubset(SCHEMA.names)
    )


@lru_cache(_SERIES_MAX)
def is_possible_series(market: str, symbol: str, interval: str) -> bool:
    """Return whether the names of a partition's directories do not contradict each other."""
    try:
        agree(_claims_of(market, symbol, interval), symbol)
    except LakewriterError:
        return False
    return True


def _claims_of(*names: str) -> list[Claim]:
    return [each for level, name in zip(LEVELS, names, strict=True) for each in claims_on(level, name, _BY)]


def _is_ours(table: pa.Table, partition: Partition) -> bool:
    """Return whether a file's metadata names lakewriter as its writer, and this series.

    Such a file is read here if it lies in a further directory of the partition (see `PartitionDirs`).
    """
    metadata = table.schema.metadata or {}
    return (
        table.schema.equals(SCHEMA)
        and WRITER_KEY.encode() in metadata
        and all(metadata.get(level.encode()) == getattr(partition, level).encode() for level in LEVELS)
    )


def _check_rows(table: pa.Table, rows: pa.Table, partition: Partition) -> None:
    """Raise LakewriterError if the rows are of another interval, or duplicates differ."""
    begins, grid = int_column(rows, "candle_begin_time"), INTERVALS[partition.interval]
    proven = "candle_end_time" in table.column_names and check_lengths(
        begins, int_column(rows, "candle_end_time"), grid, _BY
    )
    if not proven:
        check_spacing(begins, grid, _BY)
    if "recv_time" not in table.column_names:
        # A receive time would show the later one of two duplicates.
        values = [rows[name].combine_chunks() for name in VALUE_COLUMNS]
        without_duplicates(begins, values)
