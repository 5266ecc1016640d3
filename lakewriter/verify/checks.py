"""What a partition must be. Pure: a file's words and rows in, flaws out.

What each of its candles must be is in `candle_checks`. That a candle was cut
short by a halt shows nowhere: its end is the grid's end.
"""

import numpy as np
import pyarrow as pa

from lakewriter.candle import SCHEMA, IntArray, int_column
from lakewriter.candle_arrays import Bools, Columns, ends, floors
from lakewriter.candle_checks import Violation, violations
from lakewriter.interval import DAY_MS, HOUR_MS, MINUTE_MS, Interval
from lakewriter.lake.parquet import ROWS_KEY, WRITER_KEY, FileHeader
from lakewriter.partition import LEVELS, Partition
from lakewriter.verify.findings import Defect, of_file

# The kind of a candle that begins after now.
FUTURE = "future"

# A host's clock that is slow by less makes no candle one of the future.
_SLOW_MS = MINUTE_MS


def check_label(partition: Partition, label: FileHeader) -> list[Defect]:
    """Check what a partition's own file says of itself against its path and its number of rows."""
    wrong = _schema(label.schema) + _metadata(partition, label)
    return [of_file(partition.start_ms, kind, f"{partition.file}: {what}") for kind, what in wrong]


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


def _metadata(partition: Partition, label: FileHeader) -> list[tuple[str, str]]:
    if WRITER_KEY not in label.said:
        return [("writer", "was written by somebody else; lakewriter compact encodes it anew")]
    should = {level: str(getattr(partition, level)) for level in LEVELS} | {ROWS_KEY: str(label.rows)}
    return [
        ("metadata", f"its metadata says {key} {label.said.get(key)!r}, not {value!r}")
        for key, value in should.items()
        if label.said.get(key) != value
    ]


def check_rows(partition: Partition, grid: Interval, rows: pa.Table) -> list[Defect]:
    """Check the order, the day and the grid of a file's rows.

    Args:
        grid: the series' interval; of `3d` with its anchor.
    """
    begins = int_column(rows, "candle_begin_time")
    flaws = _order(begins)
    outside = (begins < partition.start_ms) | (begins >= partition.stop_ms)
    flaws.append(_flaw("day", begins[outside], f"is a candle of another day than {partition.date}"))
    off = floors(grid, begins) != begins
    flaws.append(_flaw("grid", begins[off & ~outside], f"no candle of {partition.interval} begins then"))
    said, should = int_column(rows, "candle_end_time"), ends(grid, begins)
    wrong = np.flatnonzero((said != should) & ~off & ~outside)
    flaws.append(
        Defect(
            "partition",
            "end",
            begins[wrong],
            lambda at: f"its end is {time_text(said[wrong[at]])}, not {time_text(should[wrong[at]])}",
        )
    )
    return [flaw for flaw in flaws if len(flaw.begins)]


def _order(begins: IntArray) -> list[Defect]:
    steps = np.diff(begins)
    if bool(np.all(steps > 0)):
        return []
    ascending = np.sort(begins)
    twice = np.unique(ascending[1:][np.diff(ascending) == 0])
    return [
        _flaw("unsorted", begins[1:][steps < 0], "stands after a later candle"),
        _flaw("duplicate", twice, "is there more than once"),
    ]


def _flaw(kind: str, begins: IntArray, what: str) -> Defect:
    return Defect("partition", kind, begins, lambda _: what)


def in_place(partition: Partition, grid: Interval, begins: IntArray) -> Bools:
    """Tell which begin times are of the partition's day and on the grid."""
    inside = (begins >= partition.start_ms) & (begins < partition.stop_ms)
    placed: Bools = inside & (floors(grid, begins) == begins)
    return placed


def check_candles(candles: Columns, market: str) -> list[Defect]:
    """Check each candle by itself, as import and compaction do."""
    return [_candle_flaw(candles, each) for each in violations(candles, market)]


def check_begun(candles: Columns, now_ms: int) -> list[Defect]:
    """Check that no candle begins after now: the exchange cannot have closed it."""
    ahead = candles.begin[candles.begin > now_ms + _SLOW_MS]
    flaw = Defect(
        "candle", FUTURE, ahead, lambda at: f"begins {_span_text(int(ahead[at]) - now_ms)} from now"
    )
    return [flaw] if len(ahead) else []


def _span_text(span_ms: int) -> str:
    for unit, length_ms in (("d", DAY_MS), ("h", HOUR_MS), ("m", MINUTE_MS)):
        if span_ms >= 2 * length_ms:
            return f"{span_ms // length_ms}{unit}"
    return f"{span_ms / 1000:.0f}s"


def _candle_flaw(candles: Columns, found: Violation) -> Defect:
    return Defect(
        "candle", found.kind, candles.begin[found.rows], lambda at: found.describe(int(found.rows[at]))
    )


def time_text(time_ms: int) -> str:
    """Return a moment as text, in UTC."""
    if time_ms == np.iinfo(np.int64).min:
        return "nowhere"
    return str(np.datetime64(int(time_ms), "ms")).replace("T", " ").removesuffix(".000")
