"""What a partition and each of its candles must be. Pure: a file's words and rows in, flaws out.

A price is finite and above 0: nothing trades for nothing. A volume is finite
and may be 0. A candle without trades is flat and has no volume. That a candle
was cut short by a halt shows nowhere: its end is the grid's end.
"""

from typing import Any

import numpy as np
import pyarrow as pa

from lakewriter.candle import SCHEMA, IntArray, int_column
from lakewriter.interval import Interval
from lakewriter.lake.parquet import ROWS_KEY, WRITER_KEY, Label
from lakewriter.partition import LEVELS, Partition
from lakewriter.verify.candle_arrays import PRICES, VOLUMES, Bools, Columns, ends, floors
from lakewriter.verify.findings import Flaw, of_file

# What takers bought is a part of the whole; the two columns that say so.
_PARTS = (
    ("taker_buy_base_asset_volume", "volume"),
    ("taker_buy_quote_asset_volume", "quote_volume"),
)


def check_label(partition: Partition, label: Label) -> list[Flaw]:
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


def _metadata(partition: Partition, label: Label) -> list[tuple[str, str]]:
    if WRITER_KEY not in label.said:
        return [("writer", "was written by somebody else; lakewriter compact encodes it anew")]
    should = {level: str(getattr(partition, level)) for level in LEVELS} | {ROWS_KEY: str(label.rows)}
    return [
        ("metadata", f"its metadata says {key} {label.said.get(key)!r}, not {value!r}")
        for key, value in should.items()
        if label.said.get(key) != value
    ]


def check_rows(partition: Partition, grid: Interval, rows: pa.Table) -> list[Flaw]:
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
        Flaw(
            "partition",
            "end",
            begins[wrong],
            lambda at: f"its end is {time_text(said[wrong[at]])}, not {time_text(should[wrong[at]])}",
        )
    )
    return [flaw for flaw in flaws if len(flaw.begins)]


def _order(begins: IntArray) -> list[Flaw]:
    steps = np.diff(begins)
    if bool(np.all(steps > 0)):
        return []
    ascending = np.sort(begins)
    twice = np.unique(ascending[1:][np.diff(ascending) == 0])
    return [
        _flaw("unsorted", begins[1:][steps < 0], "stands after a later candle"),
        _flaw("duplicate", twice, "is there more than once"),
    ]


def _flaw(kind: str, begins: IntArray, what: str) -> Flaw:
    return Flaw("partition", kind, begins, lambda _: what)


def in_place(partition: Partition, grid: Interval, begins: IntArray) -> Bools:
    """Tell which begin times are of the partition's day and on the grid."""
    inside = (begins >= partition.start_ms) & (begins < partition.stop_ms)
    placed: Bools = inside & (floors(grid, begins) == begins)
    return placed


def check_candles(candles: Columns) -> list[Flaw]:
    """Check each candle by itself."""
    priced = _each(candles, PRICES, lambda values: np.isfinite(values) & (values > 0))
    measured = _each(candles, VOLUMES, lambda values: np.isfinite(values) & (values >= 0))
    counted = candles.trade_num >= 0
    flaws = [
        _candle_flaw(candles, "price", ~priced, lambda one: _named(one, PRICES)),
        _candle_flaw(candles, "volume", ~measured, lambda one: _named(one, VOLUMES)),
        _candle_flaw(candles, "trades", ~counted, _trades_text),
        *_shape(candles, priced),
        *_parts(candles, measured),
        *_quiet(candles, priced, measured),
    ]
    return [flaw for flaw in flaws if len(flaw.begins)]


def _each(candles: Columns, names: tuple[str, ...], holds: Any) -> Bools:
    good: Bools = np.logical_and.reduce([holds(getattr(candles, name)) for name in names])
    return good


def _shape(candles: Columns, priced: Bools) -> list[Flaw]:
    bottom = np.minimum(candles.open, candles.close)
    top = np.maximum(candles.open, candles.close)
    return [
        _candle_flaw(
            candles,
            "low",
            priced & (candles.low > bottom),
            lambda one: f"low is above {'open' if one.low > one.open else 'close'}: {_named(one, PRICES)}",
        ),
        _candle_flaw(
            candles,
            "high",
            priced & (candles.high < top),
            lambda one: f"high is below {'open' if one.high < one.open else 'close'}: {_named(one, PRICES)}",
        ),
    ]


def _parts(candles: Columns, measured: Bools) -> list[Flaw]:
    flaws = []
    for part, whole in _PARTS:
        # The exchange rounds no part above its whole, but who adds up doubles may, by a last digit.
        limit = np.nextafter(getattr(candles, whole), np.inf)
        more = measured & (getattr(candles, part) > limit)
        names = (part, whole)
        flaws.append(
            _candle_flaw(
                candles,
                "taker",
                more,
                lambda one, names=names: f"a part above its whole: {_named(one, names)}",
            )
        )
    return flaws


def _quiet(candles: Columns, priced: Bools, measured: Bools) -> list[Flaw]:
    quiet = candles.trade_num == 0
    spread = candles.high != candles.low
    for name in ("open", "close"):
        spread |= getattr(candles, name) != candles.low
    volume = np.logical_or.reduce([getattr(candles, name) != 0 for name in VOLUMES])
    return [
        _candle_flaw(
            candles,
            "flat",
            quiet & priced & spread,
            lambda one: f"moved without a trade: {_named(one, PRICES)}",
        ),
        _candle_flaw(
            candles,
            "quiet",
            quiet & measured & volume,
            lambda one: f"volume without a trade: {_named(one, VOLUMES)}",
        ),
    ]


def _candle_flaw(candles: Columns, kind: str, wrong: Bools, say: Any) -> Flaw:
    at = np.flatnonzero(wrong)
    return Flaw("candle", kind, candles.begin[at], lambda position: say(_one(candles, at[position])))


def _one(candles: Columns, at: int) -> Columns:
    return Columns(*(column[at] for column in candles))


def _named(one: Columns, names: tuple[str, ...]) -> str:
    return ", ".join(f"{name} {float(getattr(one, name))!r}" for name in names)


def _trades_text(one: Columns) -> str:
    trades = int(one.trade_num)
    return "has no trade_num" if trades == np.iinfo(np.int64).min else f"trade_num {trades}"


def time_text(time_ms: int) -> str:
    """Return a moment as text, in UTC."""
    if time_ms == np.iinfo(np.int64).min:
        return "nowhere"
    return str(np.datetime64(int(time_ms), "ms")).replace("T", " ").removesuffix(".000")
