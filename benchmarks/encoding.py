"""The size of a partition by encoding: bytes per row and milliseconds per day.

It reads the archive's 1m files (CSV, zip or gz) on the command line, one
partition per 1,440 rows. Without files it reads days of the sandbox. Beside them are the
bytes of the files themselves, and of our own partitions with footer and checksums.

    python benchmarks/encoding.py [--quick] [FILE ...]
"""

import argparse
import gzip
import io
import time
import zipfile
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as arrow_csv
import pyarrow.parquet as pq

from lakewriter.candle import SCHEMA, VALUE_COLUMNS
from lakewriter.interval import DAY_MS
from lakewriter.lake.parquet import encode
from lakewriter.partition import Partition
from lakewriter.sandbox import Truth

ROWS = 1440
PARTITION = Partition("spot", "BTCUSDT", "1m", date(2024, 6, 30))
DOUBLES = [field.name for field in SCHEMA if pa.types.is_floating(field.type)]
WHOLE = [field.name for field in SCHEMA if field.name not in (*DOUBLES, "source")]
DELTA = dict.fromkeys(WHOLE, "DELTA_BINARY_PACKED")
ZSTD: dict[str, Any] = {"compression": "zstd", "compression_level": 3, "store_schema": False}
VARIANTS: dict[str, dict[str, Any]] = {
    "pyarrow's defaults: snappy, dictionaries": {},
    "zstd 3, dictionaries": ZSTD,
    "zstd 3, PLAIN": {**ZSTD, "use_dictionary": ["source"]},
    "zstd 3, PLAIN doubles, DELTA times and counts": {
        **ZSTD, "use_dictionary": ["source"], "column_encoding": DELTA,
    },
    "zstd 3, BYTE_STREAM_SPLIT doubles, DELTA": {
        **ZSTD,
        "use_dictionary": ["source"],
        "column_encoding": {**DELTA, **dict.fromkeys(DOUBLES, "BYTE_STREAM_SPLIT")},
    },
    "zstd 1, PLAIN doubles, DELTA": {
        **ZSTD, "compression_level": 1, "use_dictionary": ["source"], "column_encoding": DELTA,
    },
    "zstd 9, PLAIN doubles, DELTA": {
        **ZSTD, "compression_level": 9, "use_dictionary": ["source"], "column_encoding": DELTA,
    },
}  # fmt: skip


def days_of(path: Path) -> Iterator[pa.Table]:
    data = path.read_bytes()
    if path.suffix == ".zip":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            data = archive.read(archive.namelist()[0])
    elif path.suffix == ".gz":
        data = gzip.decompress(data)
    names = ["t", *VALUE_COLUMNS[:5], "T", "quote_volume", "trade_num", *VALUE_COLUMNS[7:], "ignore"]
    table = arrow_csv.read_csv(
        io.BytesIO(data),
        arrow_csv.ReadOptions(column_names=names, skip_rows=0 if data[:1].isdigit() else 1),
    )
    begins = [time_ms // 1000 if time_ms >= 10**15 else time_ms for time_ms in table["t"].to_pylist()]
    values = {name: table[name] for name in VALUE_COLUMNS}
    for first in range(0, table.num_rows, ROWS):
        yield day(
            begins[first : first + ROWS], {name: each.slice(first, ROWS) for name, each in values.items()}
        )


def day(begins: list[int], values: dict[str, Any]) -> pa.Table:
    """Return a partition as a recorder writes it: event and receive times are some milliseconds late."""
    columns = {
        "candle_begin_time": begins,
        "candle_end_time": [begin + 60_000 for begin in begins],
        "event_time": [begin + 60_012 for begin in begins],
        "recv_time": [begin * 1000 + 60_012_345 + begin * 7919 % 900 for begin in begins],
        "source": ["stream"] * len(begins),
    }
    return pa.Table.from_arrays(
        [
            pa.array(columns[field.name]).cast(field.type)
            if field.name in columns
            else values[field.name].cast(field.type)
            for field in SCHEMA
        ],
        schema=SCHEMA,
    )


def sandbox_days() -> Iterator[pa.Table]:
    for market, symbol in (("spot", "BTCUSDT"), ("usdt_futures", "ETHUSDT"), ("coin_futures", "BTCUSD_PERP")):
        for first_ms in range(1_719_705_600_000, 1_719_705_600_000 + 10 * DAY_MS, DAY_MS):
            arrays = Truth().arrays(market, symbol, "1m", first_ms, first_ms + DAY_MS)
            values = {name: pa.array(arrays[name]) for name in VALUE_COLUMNS}
            yield day(arrays["candle_begin_time"].tolist(), values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--quick", action="store_true", help="3 partitions")
    options = parser.parse_args()
    files: list[Path] = options.files
    days = [table for path in files for table in days_of(path)] or list(sandbox_days())
    if options.quick:
        days, files = days[:3], []
    rows = sum(table.num_rows for table in days)
    print(f"{len(days)} partitions, {rows} rows")
    if files:
        print(f"{'the files':48} {sum(path.stat().st_size for path in files) / rows:6.1f} B/row")
    ours = sum(len(encode(table, PARTITION)) for table in days)
    print(f"{'lakewriter':48} {ours / rows:6.1f} B/row")
    for name, options in VARIANTS.items():
        written, start = 0, time.perf_counter()
        for table in days:
            sink = pa.BufferOutputStream()
            pq.write_table(table, sink, **options)
            written += sink.tell()
        spent_ms = (time.perf_counter() - start) * 1000 / len(days)
        print(f"{name:48} {written / rows:6.1f} B/row  {spent_ms:5.2f} ms")


if __name__ == "__main__":
    main()
