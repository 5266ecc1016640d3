"""Foreign files: those of other tools, and those of a lakewriter of format 1."""

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from crash.audit import key_text, recorded_line
from lakewriter.lake.parquet import encode
from lakewriter.partition import FILE_NAME, day_of, partition_at
from lakewriter.sandbox import Truth, TruthCandle
from lakewriter.series import Series
from support.truth_lakes import truth_table

# The maximum candles from which a file takes some. A whole day of seconds would take long.
_CANDLES_MAX = 500
_MONTH_MS = 31 * 86_400_000


class ForeignFiles(NamedTuple):
    """The writer of foreign files into a lake. It promises their candles.

    Args:
        lake: its root.
        truth: the source of the candles.
        log: the log with a line for each candle, as in a recorder's log.
        put_new: writes bytes under a new name of an object store; None writes files.
    """

    lake: Path
    truth: Truth
    log: Path
    put_new: Callable[[str, bytes], bool] | None = None

    def put(self, series: Series, start_ms: int, stop_ms: int, number: int, chance: random.Random) -> bool:
        """Write candles of one period into one new file; return whether it was written.

        A third of the files are in the directory of the period, a third in that of a day of it.
        The last third are files of days as in format 1. They never replace another file,
        because a lakewriter of format 1 would have merged both.

        Args:
            start_ms, stop_ms: the candles begin in this range, mostly late in it.
            number: the file's number.
        """
        grid, chosen_stop_ms = series.grid, stop_ms - int(chance.random() ** 2 * (stop_ms - start_ms))
        partition = partition_at(series, grid.floor(chosen_stop_ms - 1))
        least_ms = chosen_stop_ms - _CANDLES_MAX * (grid.length_ms or _MONTH_MS)
        candles = self.truth.candles(*series, max(start_ms, partition.start_ms, least_ms), chosen_stop_ms)
        shape = chance.choice(("period", "day", "format 1"))
        day = partition.date
        if candles and shape != "period":
            day = day_of(chance.choice(candles).begin_ms)
            candles = [candle for candle in candles if day_of(candle.begin_ms) == day]
        place = msgspec.structs.replace(partition, date=day)
        if not candles:
            return False
        if shape == "format 1" and day != partition.date:
            rows = truth_table(self.truth, series, candles[0].begin_ms, candles[-1].begin_ms + 1)
            name, data = FILE_NAME, encode(rows, place)
        else:
            candles = sorted(chance.sample(candles, chance.randint(1, len(candles))))
            name, data = f"part-{number}.parquet", _written(_foreign_table(candles, chance))
        if self.put_new is not None:
            is_there = self.put_new(f"{place.path}/{name}", data)
        else:
            is_there = _put(self.lake / place.path, name, data, number)
        if not is_there:
            return False
        with self.log.open("a") as file:
            file.writelines(recorded_line(key_text(series, candle.begin_ms)) for candle in candles)
        return True


def _put(directory: Path, name: str, data: bytes, number: int) -> bool:
    """Write a complete file under a new name; return whether the name was free."""
    hidden = directory / f".foreign-{number}"
    while True:
        directory.mkdir(parents=True, exist_ok=True)
        try:
            hidden.write_bytes(data)
        except FileNotFoundError:
            continue  # a compaction removed the empty directory
        try:
            os.link(hidden, directory / name)
        except FileExistsError:
            return False
        finally:
            hidden.unlink()
        return True


def _written(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _foreign_table(candles: list[TruthCandle], chance: random.Random) -> pa.Table:
    unit = chance.choice(("ms", "us", "ns"))
    zone = chance.choice(("UTC", None))

    def times(name: str) -> pa.Array:
        milliseconds = pa.array([getattr(candle, name) for candle in candles], pa.timestamp("ms", zone))
        return milliseconds.cast(pa.timestamp(unit, zone))

    names = ("open", "high", "low", "close", "volume", "quote_volume", "trade_num")
    names += ("taker_buy_base_asset_volume", "taker_buy_quote_asset_volume")
    columns = {"candle_begin_time": times("begin_ms"), "candle_end_time": times("end_ms")}
    for name, values in zip(names, zip(*(candle.numbers() for candle in candles), strict=True), strict=True):
        columns[name] = pa.array(values, pa.int64() if name == "trade_num" else pa.float64())
    if chance.random() < 0.5:
        columns["source"] = pa.array([chance.choice(("archive", "rest"))] * len(candles))
    if chance.random() < 0.3:
        columns["note"] = pa.array(["not one of ours"] * len(candles))
    return pa.table(columns)
