"""The rows of a partition in each lake, read from all its files and checked.

Files that are folded away meanwhile are read before the partition's own one, which has
their rows then.
"""

from typing import NamedTuple

import pyarrow as pa

from lakewriter.candle import SCHEMA, deduplicate, int_column, to_table
from lakewriter.copying.work import Item
from lakewriter.errors import LakeError, UnreadableError
from lakewriter.lake.fold_rows import NamedBytes, rows_of_file
from lakewriter.lake.footer_crc import has_whole_footer
from lakewriter.lake.foreign import read_or_leave_out
from lakewriter.lake.foreign_rows import foreign_rows
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.parquet import decode, read_header, written_by_us
from lakewriter.lake.storage import StoredBytes, StoreError
from lakewriter.partition import LEVELS, Partition

_NOTHING = SCHEMA.empty_table()


class SourceRows(NamedTuple):
    """The wanted rows of a partition of the source.

    Args:
        rows: the rows, sorted, one for each key.
        whole_file: the bytes of the one file that has exactly these rows and that lakewriter
            wrote; None if there is no such file.
        version: the version of the partition's own file, or "" without one.
        unflushed: number of rows from journals.
        not_closed: number of rows of foreign files that were left out as not closed.
        errors: why files were left out.
    """

    rows: pa.Table
    whole_file: bytes | None
    version: str
    unflushed: int
    not_closed: int
    errors: tuple[str, ...]


class TargetRows(NamedTuple):
    """The rows of a partition of the target.

    Args:
        own: its own file, or None.
        rows: the rows of all its files, in any order and with duplicates.
        has_others: whether some rows are of other files.
    """

    own: StoredBytes | None
    rows: pa.Table
    has_others: bool


def read_source(source: LakeStore, item: Item, now_ms: int) -> SourceRows:
    """Read and check all files of a partition of the source, and add the unflushed candles.

    A damaged file is left out with an error. The rows of the others count.

    Args:
        now_ms: the present; a row of a foreign file that ends later is not closed.

    Raises:
        StoreError: if the store refuses.
    """
    partition = item.partition
    tables: list[pa.Table] = []
    errors: list[str] = []
    not_closed = 0
    own = whole_file = None
    others = [name for name in item.source_names if name != partition.file]
    for name in (*others, partition.file):
        path = f"{source.name}/{name}"
        try:
            found = source.storage.read(name)
            if found is None:
                continue
            _check_series(found.data, path, partition)
            file = NamedBytes(path, found, name == partition.file)
            rows, left_out, *_ = rows_of_file(partition, file, now_ms)
        except StoreError:
            raise
        except LakeError as error:
            errors.append(error.what)
            continue
        except OSError as error:
            errors.append(f"{path}: {error.strerror or error}")
            continue
        tables.append(rows)
        not_closed += left_out
        if name == partition.file:
            own, whole_file = found, _whole_file(item, found, rows)
    is_one_file = len(tables) == 1
    every = deduplicate(pa.concat_tables([*tables, to_table(item.unflushed)]))
    return SourceRows(
        every if item.is_whole else _within(every, item.range_ms),
        whole_file if is_one_file else None,
        "" if own is None else own.version,
        len(item.unflushed),
        not_closed,
        tuple(errors),
    )


def read_target(target: LakeStore, item: Item) -> TargetRows:
    """Read all files of a partition of the target. A foreign file that cannot be read has no rows.

    Raises:
        LakeError: if its own file is damaged, or the store refuses.
        OSError: if the disk refuses.
    """
    partition = item.partition
    tables = [
        read_or_leave_out(
            target, partition, name, lambda data, path: foreign_rows(data, path, partition), _NOTHING
        )
        for name in item.target_names
        if name != partition.file
    ]
    others = [table for table in tables if table is not None and table.num_rows]
    own = target.storage.read(partition.file)
    rows = _NOTHING if own is None else decode(own.data, f"{target.name}/{partition.file}")
    return TargetRows(own, pa.concat_tables([*others, rows]), bool(others))


def _check_series(data: bytes, path: str, partition: Partition) -> None:
    """Raise UnreadableError if lakewriter wrote a file for another series than that of its directory."""
    metadata = read_header(data, path).metadata
    names = tuple(metadata.get(level, "") for level in LEVELS[:-1])
    if written_by_us(data) and names != tuple(partition.series):
        raise UnreadableError(f"{path}: it was written for {' '.join(names)}", "move it out of the lake")


def _whole_file(item: Item, found: StoredBytes, rows: pa.Table) -> bytes | None:
    """Return the bytes of the source's own file if the target may get them as they are."""
    is_ours = written_by_us(found.data) and has_whole_footer(found.data)
    begins = int_column(rows, "candle_begin_time")
    is_sorted = bool((begins[1:] > begins[:-1]).all())
    return found.data if is_ours and is_sorted and item.is_whole and not item.unflushed else None


def _within(rows: pa.Table, range_ms: tuple[int, int]) -> pa.Table:
    begins = int_column(rows, "candle_begin_time")
    return rows.filter(pa.array((begins >= range_ms[0]) & (begins < range_ms[1])))
