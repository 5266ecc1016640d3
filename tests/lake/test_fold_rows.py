"""Rows of many files that are checked together are those of the files checked one by one."""

from collections.abc import Callable

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lakewriter.candle import SCHEMA, to_table
from lakewriter.errors import LakeError
from lakewriter.interval import MINUTE_MS
from lakewriter.lake.fold_rows import (
    TOGETHER_ROWS_MAX,
    NamedBytes,
    RowsToFold,
    rows_of_file,
    rows_of_files,
)
from lakewriter.lake.parquet import encode
from lakewriter.lake.storage import StoredBytes
from lakewriter.partition import Partition, partition_of
from support.candles import DAY_START_MS, stream_candle

PARTITION = partition_of(stream_candle())
NOW_MS = DAY_START_MS + 60 * MINUTE_MS
PLAIN = [to_table([stream_candle(minute), stream_candle(minute + 1)]) for minute in (0, 1, 5)]


def file_of(
    table: pa.Table | bytes, name: str = "part.parquet", modified_ms: int = NOW_MS, *, is_own: bool = False
) -> NamedBytes:
    if isinstance(table, pa.Table):
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink)
        table = sink.getvalue().to_pybytes()
    return NamedBytes(name, StoredBytes(table, "version", modified_ms), is_own)


def alone(partition: Partition, file: NamedBytes) -> RowsToFold | LakeError:
    try:
        return rows_of_file(partition, file, NOW_MS)
    except LakeError as error:
        return error


def assert_same(files: list[NamedBytes], partition: Partition = PARTITION) -> list[RowsToFold | LakeError]:
    together = rows_of_files(partition, files, NOW_MS)
    for one, other in zip(together, [alone(partition, file) for file in files], strict=True):
        if isinstance(one, LakeError):
            assert isinstance(other, LakeError)
            assert (type(one), one.what, one.hint) == (type(other), other.what, other.hint)
        else:
            assert isinstance(other, RowsToFold)
            assert one.rows.equals(other.rows)
            assert one[1:] == other[1:]
    return together


def with_column(name: str, values: list[object], dtype: pa.DataType | None = None) -> pa.Table:
    at = SCHEMA.get_field_index(name)
    return PLAIN[1].set_column(at, name, pa.array(values, dtype or SCHEMA.field(name).type))


UNUSUAL: dict[str, Callable[[], NamedBytes]] = {
    "another day": lambda: file_of(to_table([stream_candle(1440), stream_candle(1441)])),
    "off the grid": lambda: file_of(with_column("candle_begin_time", [DAY_START_MS, DAY_START_MS + 1])),
    "no price": lambda: file_of(with_column("open", [None, 60_000.5])),
    "an impossible price": lambda: file_of(with_column("low", [60_000.0, 1e9])),
    "no begin": lambda: file_of(with_column("candle_begin_time", [None, DAY_START_MS])),
    "no end": lambda: file_of(with_column("candle_end_time", [None, None])),
    "last milliseconds": lambda: file_of(
        with_column("candle_end_time", [DAY_START_MS + (minute + 2) * MINUTE_MS - 1 for minute in range(2)])
    ),
    "hours": lambda: file_of(
        with_column("candle_end_time", [DAY_START_MS + (minute + 61) * MINUTE_MS for minute in range(2)])
    ),
    "written before its candles": lambda: file_of(PLAIN[1], modified_ms=DAY_START_MS - 2 * MINUTE_MS),
    "written before their ends": lambda: file_of(PLAIN[1], modified_ms=DAY_START_MS + 2 * MINUTE_MS + 1),
    "not ended": lambda: file_of(to_table([stream_candle(58), stream_candle(60)]), modified_ms=2 * NOW_MS),
    "another schema": lambda: file_of(PLAIN[1].drop_columns(["source"])),
    "floats": lambda: file_of(with_column("trade_num", [1.5, 2.0], pa.float64())),
    "marked open": lambda: file_of(PLAIN[1].append_column("is_closed", pa.array([True, False]))),
    "of another symbol": lambda: file_of(PLAIN[1].append_column("symbol", pa.array(["ETHUSDT"] * 2))),
    "of another lake": lambda: file_of(
        encode(PLAIN[1], partition_of(stream_candle(symbol="ETHUSDT"))), "copy.parquet"
    ),
    "with our metadata": lambda: file_of(
        PLAIN[1].replace_schema_metadata({"lakewriter.version": "1", "symbol": "ETHUSDT"})
    ),
    "ours": lambda: file_of(encode(PLAIN[1], PARTITION), is_own=True),
    "of our name": lambda: file_of(PLAIN[1], is_own=True),
    "torn": lambda: file_of(b"PAR1 torn"),
    "without rows": lambda: file_of(PLAIN[1].slice(0, 0)),
}


@pytest.mark.parametrize("unusual", UNUSUAL)
def test_one_unusual_file(unusual: str) -> None:
    """One unusual file among plain ones has its own result or error, and the others have theirs."""
    files = [file_of(PLAIN[0], "a.parquet"), UNUSUAL[unusual](), file_of(PLAIN[2], "z.parquet")]
    first, _, last = assert_same(files)
    assert isinstance(first, RowsToFold)
    assert isinstance(last, RowsToFold)
    assert (first.rows.num_rows, last.rows.num_rows) == (2, 2)
    assert_same([*files, *files])


@pytest.mark.parametrize(
    "cast",
    [
        pa.schema([field.with_type(pa.timestamp("us", "UTC")) if field.name == "candle_begin_time" else field
                   for field in SCHEMA]),
        pa.schema([field.with_type(pa.dictionary(pa.int32(), pa.string())) if field.name == "source" else field
                   for field in SCHEMA]),
        pa.schema([field.with_type(pa.timestamp("ms")) if field.name == "candle_end_time" else field
                   for field in SCHEMA]),
    ],
    ids=["microseconds", "a dictionary", "no time zone"],
)  # fmt: skip
def test_files_of_other_types(cast: pa.Schema) -> None:
    """Files of other types have the rows of SCHEMA."""
    together = assert_same([file_of(table.cast(cast)) for table in PLAIN])
    assert [each.rows for each in together if isinstance(each, RowsToFold)] == PLAIN


def test_plain_files_are_checked_together() -> None:
    """The rows of plain files are parts of one table, which is checked in one pass."""
    results = rows_of_files(PARTITION, [file_of(table) for table in PLAIN], NOW_MS)
    columns = [each.rows["open"].chunk(0) for each in results if isinstance(each, RowsToFold)]
    assert len(columns) == len(PLAIN)
    assert len({column.buffers()[1].address for column in columns}) == 1


def test_a_place_that_contradicts_itself() -> None:
    """Files in a directory whose market and symbol contradict each other are refused."""
    wrong = Partition("spot", "BTCUSD_PERP", "1m", PARTITION.date)
    assert all(isinstance(each, LakeError) for each in assert_same([file_of(t) for t in PLAIN], wrong))


def test_many_rows_are_not_copied_into_one_table() -> None:
    """Files after the first `TOGETHER_ROWS_MAX` rows are checked alone: the pass over all takes more memory."""
    table = pa.concat_tables([PLAIN[0]] * (TOGETHER_ROWS_MAX // 8))
    results = assert_same([file_of(table, f"part-{number}.parquet") for number in range(6)])
    for each in results:
        assert isinstance(each, RowsToFold)
        assert each.rows.get_total_buffer_size() < 5 * each.rows.nbytes


def test_a_refused_file_keeps_no_other_file_in_memory() -> None:
    """An error has no frames, which would keep the bytes of all files of the partition."""
    broken = NamedBytes("part-1.parquet", StoredBytes(b"PAR1", "version", NOW_MS), is_own=False)
    files = [file_of(PLAIN[0]), broken, UNUSUAL["off the grid"](), file_of(PLAIN[1])]
    errors = [each for each in rows_of_files(PARTITION, files, NOW_MS) if isinstance(each, LakeError)]
    assert len(errors) == 2
    assert [(each.__traceback__, each.__context__) for each in errors] == [(None, None)] * 2
