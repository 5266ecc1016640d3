"""The rows of one partition, from all its files, and the version of its own file."""

from collections.abc import Sequence
from datetime import date
from functools import partial

import numpy as np
import pyarrow as pa

from lakewriter.candle import SCHEMA, deduplicate, int_column
from lakewriter.candle_arrays import ends
from lakewriter.errors import LakeError
from lakewriter.interval import INTERVALS
from lakewriter.lake.foreign import read_or_leave_out
from lakewriter.lake.foreign_rows import foreign_rows
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.listing import by_period, candle_files
from lakewriter.lake.parquet import decode
from lakewriter.partition import LEVELS, Partition, parse_date_value, series_path
from lakewriter.series import Series

# Each repetition is caused by a compaction that folded a file while we read.
READ_LAPS_MAX = 20


def partitions_of(store: LakeStore, series: Series) -> dict[Partition, list[str]]:
    """Return the partitions of a series and their directories, sorted by day.

    Directories whose symbol another program percent-encoded are left out.
    """
    directory = series_path(series)
    days = {
        name.partition("=")[2]: [f"{directory}/{name}"]
        for name in store.storage.entries(directory).directories
        if name.startswith(f"{LEVELS[-1]}=") and parse_date_value(name.partition("=")[2])
    }
    return {
        Partition(*series, date.fromisoformat(day)): directories
        for day, directories in sorted(by_period(series, days).items())
    }


def read_partition(
    store: LakeStore, partition: Partition, directories: Sequence[str], listed: Sequence[str] | None = None
) -> tuple[pa.Table, str | None]:
    """Return the rows of a partition's period in all its files, sorted and unique, and its own file's version.

    Args:
        directories: the partition's directories.
        listed: its files in an earlier listing, if there was one. The directories are listed
            if one of them has vanished.

    Raises:
        LakeError: if our own file cannot be read, or the files change at every attempt.
            A foreign file that cannot be read is logged and left out.
    """
    nothing = SCHEMA.empty_table()
    for _ in range(READ_LAPS_MAX):
        version = None
        tables = []
        names, listed = listed or candle_files(store.storage, directories), None
        for name in names:
            if name == partition.file:
                found = store.storage.read(name)
                rows = None if found is None else decode(found.data, f"{store.name}/{name}")
                version = None if found is None else found.version
            else:
                read = partial(foreign_rows, partition=partition)
                rows = read_or_leave_out(store, partition, name, read, nothing)
            if rows is None:
                break  # it was folded into the own file, which may have been read before
            tables.append(rows)
        else:
            return _inside(partition, deduplicate(pa.concat_tables([nothing, *tables]))), version
    raise LakeError(f"{partition}: its files changed during every attempt to read them", "run it again")


def _inside(partition: Partition, rows: pa.Table) -> pa.Table:
    """Return the rows in the partition's period, with end times. A foreign file may have others, and may lack these."""
    first, stop = np.searchsorted(
        int_column(rows, "candle_begin_time"), (partition.start_ms, partition.stop_ms)
    )
    rows = rows.slice(int(first), int(stop - first))
    at = rows.schema.get_field_index("candle_end_time")
    if not rows.column(at).null_count:
        return rows
    end_ms = pa.array(ends(INTERVALS[partition.interval], int_column(rows, "candle_begin_time")))
    return rows.set_column(at, rows.schema.field(at), end_ms.cast(rows.schema.field(at).type))


def rows_max(series: Series) -> int:
    """Return about how many rows a partition of the series has."""
    day_of_leap_year_ms = 1_704_067_200_000  # 2024-01-01
    grid = INTERVALS[series.interval]
    return grid.count(grid.period_start(day_of_leap_year_ms), grid.period_stop(day_of_leap_year_ms))
