"""A file of others → its candles. Puts together what its name, its columns and the user say."""

from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from lakewriter.binance.kline_columns import RowError, Stamp
from lakewriter.candle import Source, settle
from lakewriter.errors import LakewriterError
from lakewriter.importer.columns import candles_in
from lakewriter.importer.file_names import Told, series_of
from lakewriter.importer.read_file import FileTable, read_table
from lakewriter.lake.parquet import conform
from lakewriter.series import Series


class ReadFile(NamedTuple):
    """A file's candles.

    Args:
        series: whose they are.
        rows: in SCHEMA, sorted by begin time, one for each.
    """

    series: Series
    rows: pa.Table


def read_file(path: Path, told: Told) -> ReadFile:
    """Return the candles in a file.

    The time they were received is when the file was last changed, so that
    importing it again changes nothing.

    Raises:
        LakewriterError: if it cannot be read, or holds a row that cannot be a candle.
        OSError: if the disk does not give it.
    """
    series = series_of(path, told)
    recv_us = path.stat().st_mtime_ns // 1000
    file = read_table(path)
    otherwise: Source = "archive" if file.layout == "archive" else "rest"
    candles = _candles(file, path, Stamp(series, told.source or otherwise, recv_us))
    if file.layout == "partition" and told.source is None:
        # A partition of another lake knows itself who said what, and when.
        return ReadFile(series, settle(conform(file.table, str(path))))
    return ReadFile(series, candles)


def _candles(file: FileTable, path: Path, stamp: Stamp) -> pa.Table:
    try:
        return candles_in(file.table, stamp)
    except RowError as error:
        raise LakewriterError(f"{path}: row {error.row + file.first_row}: {error.what}") from None
    except LakewriterError as error:
        raise LakewriterError(f"{path}: {error.what}", error.hint) from None
