"""Checks of a partition. Pure functions return the defects of a file's header and rows.

`candle_checks` has the checks of a single candle. A candle that a halt shortened cannot be
recognized, because it still ends on the grid.
"""

import numpy as np
import pyarrow as pa

from lakewriter.candle import SCHEMA, IntArray, int_column
from lakewriter.candle_arrays import Bools, Columns, ends, floors
from lakewriter.candle_checks import Violation, violations
from lakewriter.interval import DAY_MS, HOUR_MS, MINUTE_MS, Interval
from lakewriter.lake.parquet import ROWS_KEY, WRITER_KEY, FileHeader
from lakewriter.partition import LEVELS, Partition, day_range, period_date
from lakewriter.verify.findings import Defect, file_defect

# The kind of a candle that begins after now.
FUTURE = "future"

# The tolerated lag of the host's clock.
_CLOCK_ERROR_MS = MINUTE_MS


def check_header(partition: Partition, header: FileHeader) -> list[Defect]:
    """Check the header of a partition's own file against its path and its number of rows."""
    wrong = _schema(header.schema) + _metadata(partition, header)
    return [file_defect(partition.start_ms, kind, f"{partition.file}: {what}") for kind, what in wrong]


def _schema(schema: pa.Schema) -> list[tuple[str, str]]:
    if schema.equals(SCHEMA):
        return []
    absent = [f"no column {name}" for name in SCHEMA.names if name not in schema.names]
    foreign = [f"a column {name}" for name in schema.names if name not in SCHEMA.names]
    typed = [
        f"{field.name} is {schema.field(field.name).type}, not {field.type}"
        for field in SCHEMA
        if schema.names.count(field.name) == 1 and schema.field(field.name).type != field.type
    ]
    return [("schema", ", ".join(absent + foreign + typed) or "its columns are in another order")]


def _metadata(partition: Partition, header: FileHeader) -> list[tuple[str, str]]:
    if WRITER_KEY not in header.metadata:
        return [("writer", "was written by another program; lakewriter compact encodes it anew")]
    expected = {level: str(getattr(partition, level)) for level in LEVELS} | {ROWS_KEY: str(header.rows)}
    return [
        ("metadata", f"its metadata says {key} {header.metadata.get(key)!r}, not {value!r}")
        for key, value in expected.items()
        if header.metadata.get(key) != value
    ]


def check_rows(partition: Partition, grid: Interval, rows: pa.Table) -> list[Defect]:
    """Check the order of a file's rows, their period and their grid.

    Args:
        partition: the partition of the file's directory. If its date is within a period,
            the file holds one day, as in format 1.
        grid: the series' interval, for `3d` with its anchor.
    """
    begins = int_column(rows, "candle_begin_time")
    defects = _order(begins)
    (start_ms, stop_ms), period = (partition.start_ms, partition.stop_ms), str(partition.period)
    if partition.date != period_date(partition.interval, partition.date):
        (start_ms, stop_ms), period = day_range(partition.date), "day"
    outside = (begins < start_ms) | (begins >= stop_ms)
    another = f"is a candle of another {period} than {partition.date}"
    defects.append(_rows_defect("day", begins[outside], another))
    off_grid = floors(grid, begins) != begins
    defects.append(
        _rows_defect("grid", begins[off_grid & ~outside], f"no candle of {partition.interval} begins then")
    )
    ends_stored, ends_expected = int_column(rows, "candle_end_time"), ends(grid, begins)
    wrong = np.flatnonzero((ends_stored != ends_expected) & ~off_grid & ~outside)
    defects.append(
        Defect(
            "partition",
            "end",
            begins[wrong],
            lambda at: (
                f"its end is {time_text(ends_stored[wrong[at]])}, not {time_text(ends_expected[wrong[at]])}"
            ),
        )
    )
    return [defect for defect in defects if len(defect.begins)]


def _order(begins: IntArray) -> list[Defect]:
    steps = np.diff(begins)
    if bool(np.all(steps > 0)):
        return []
    ascending = np.sort(begins)
    twice = np.unique(ascending[1:][np.diff(ascending) == 0])
    return [
        _rows_defect("unsorted", begins[1:][steps < 0], "stands after a later candle"),
        _rows_defect("duplicate", twice, "is there more than once"),
    ]


def _rows_defect(kind: str, begins: IntArray, what: str) -> Defect:
    return Defect("partition", kind, begins, lambda _: what)


def is_on_grid(partition: Partition, grid: Interval, begins: IntArray) -> Bools:
    """Return whether each begin time is in the partition's period and on the grid."""
    inside = (begins >= partition.start_ms) & (begins < partition.stop_ms)
    placed: Bools = inside & (floors(grid, begins) == begins)
    return placed


def check_candles(candles: Columns, market: str) -> list[Defect]:
    """Check each candle on its own, as import and compaction do."""
    return [_candle_defect(candles, each) for each in violations(candles, market)]


def check_not_future(candles: Columns, now_ms: int) -> list[Defect]:
    """Check that no candle begins after now, because the exchange cannot have closed it."""
    ahead = candles.begin[candles.begin > now_ms + _CLOCK_ERROR_MS]
    defect = Defect(
        "candle", FUTURE, ahead, lambda at: f"begins {_duration_text(int(ahead[at]) - now_ms)} from now"
    )
    return [defect] if len(ahead) else []


def _duration_text(span_ms: int) -> str:
    for unit, length_ms in (("d", DAY_MS), ("h", HOUR_MS), ("m", MINUTE_MS)):
        if span_ms >= 2 * length_ms:
            return f"{span_ms // length_ms}{unit}"
    return f"{span_ms / 1000:.0f}s"


def _candle_defect(candles: Columns, found: Violation) -> Defect:
    return Defect(
        "candle", found.kind, candles.begin[found.rows], lambda at: found.describe(int(found.rows[at]))
    )


def time_text(time_ms: int) -> str:
    """Return a moment as text, in UTC."""
    if time_ms == np.iinfo(np.int64).min:
        return "nowhere"
    return str(np.datetime64(int(time_ms), "ms")).replace("T", " ").removesuffix(".000")
