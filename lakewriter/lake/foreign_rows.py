"""Decoding of foreign files in a partition, with a check of their series. No I/O.

The evidence is the same as for an import. A file whose columns, metadata or rows
are of another series does not belong to the partition. Readers leave it out, and
compaction does not fold it; each logs one warning. Rows that are marked open are
not candles yet.
"""

from typing import NamedTuple

import pyarrow as pa

from lakewriter.candle import SCHEMA, VALUE_COLUMNS, int_column
from lakewriter.errors import LakewriterError, UnreadableError
from lakewriter.evidence.choice import check_name_claims, choose_series
from lakewriter.evidence.claims import LEVELS, ImportOptions, claims_on
from lakewriter.evidence.closed import marked_closed
from lakewriter.evidence.columns import column_claims, metadata_claims
from lakewriter.evidence.duplicates import without_duplicates
from lakewriter.evidence.row_groups import group_rows
from lakewriter.evidence.spacing import check_lengths, check_spacing
from lakewriter.interval import INTERVALS
from lakewriter.lake.parquet import WRITER_KEY, conform, read_table
from lakewriter.partition import Partition

_BY = "its directory"
_MEND = "it was not changed; repair it, or move it out of the lake, then run again"


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
    table = read_table(data, name)
    rows = conform(table, name)
    if _is_ours(table, partition):
        return ForeignRows(rows, 0)
    try:
        place = [each for level in LEVELS for each in claims_on(level, getattr(partition, level), _BY)]
        written_by_lake = metadata_claims(table)
        check_name_claims([*place, *written_by_lake], ImportOptions(), name)
        groups = group_rows(column_claims(table), name, lambda text: text == partition.symbol)
        choose_series(groups, place, ImportOptions(), name, table.num_rows)
        if not written_by_lake:
            _check_rows(table, rows, partition)
        closed = marked_closed(table)
    except LakewriterError as error:
        what = error.what if error.what.startswith(name) else f"{name}: {error.what}"
        raise UnreadableError(what, _MEND) from None
    if closed is None:
        return ForeignRows(rows, 0)
    return ForeignRows(rows.filter(pa.array(closed)), int((~closed).sum()))


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
