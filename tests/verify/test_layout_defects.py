"""The same defects in files of periods and in directories of days: verify finds what was planted, and nothing else."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lakewriter.candle import int_column
from lakewriter.errors import LakeError
from lakewriter.interval import DAY_MS, HOUR_MS, INTERVALS
from lakewriter.lake.coverage.absences import absent_candles
from lakewriter.lake.coverage.days import coverage
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.parquet import decode, encode
from lakewriter.lake.partition_filter import PartitionFilter
from lakewriter.partition import Partition, day_of, partition_at
from lakewriter.sandbox.truth.candles import Truth
from lakewriter.series import Series
from lakewriter.verify.run import VerifyOptions
from support.day_layout import to_day_layout
from support.lakes import rows_of_sql
from support.lengths import LONG
from support.truth_lakes import Reported, edited, merge_truth, truth_table, verify_lake

pytestmark = pytest.mark.slow

# Some candles before a new year, at which a period of each interval ends.
NEW_YEAR_MS = 1_704_067_200_000
CANDLES = {"1d": 5, "3d": 4, "1w": 4, "1mo": 4}
CHOSEN = tuple(INTERVALS) if LONG else ("1m", "1h", "8h", "1mo")

LAYOUTS = ("periods", "days")


class Place(NamedTuple):
    """Where a candle lies, and around which candles something is planted.

    Args:
        file: of our own, with the date of its directory.
        at: the candle's row in that file.
        begin_ms, end_ms: of the candle.
    """

    store: LakeStore
    file: Partition
    at: int
    begin_ms: int
    end_ms: int

    def rewrite(self, change: Callable[[pa.Table], pa.Table], said: Partition | None = None) -> None:
        """Change the rows of the file, or what its metadata say."""
        path = self.store.root / self.file.file
        path.write_bytes(encode(change(decode(path.read_bytes(), "")), said or self.file))

    def row(self) -> pa.Table:
        """Return the candle's row."""
        return decode((self.store.root / self.file.file).read_bytes(), "").slice(self.at, 1)

    def add(self, rows: pa.Table) -> None:
        """Put a file of another tool beside the file."""
        pq.write_table(rows.replace_schema_metadata(), self.store.root / self.file.path / "part-0.parquet")


# Plants a defect and returns each check and kind that finds it, and the begin time that is named: 0 is the file's.
Plant = Callable[[Place], list[tuple[str, str, int]]]


def impossible(place: Place) -> list[tuple[str, str, int]]:
    place.rewrite(lambda rows: edited(rows, place.at, low=-1.0))
    return [("candle", "price", place.begin_ms)]


def off_the_grid(place: Place) -> list[tuple[str, str, int]]:
    place.rewrite(lambda rows: edited(rows, place.at, candle_begin_time=place.begin_ms + 1))
    return [("partition", "grid", place.begin_ms + 1)]


def of_another_length(place: Place) -> list[tuple[str, str, int]]:
    place.rewrite(lambda rows: edited(rows, place.at, candle_end_time=place.end_ms - 1))
    return [("partition", "end", place.begin_ms)]


def of_another_period(place: Place) -> list[tuple[str, str, int]]:
    stop_ms = INTERVALS[place.file.interval].period_stop(place.begin_ms)
    times = {"candle_begin_time": stop_ms, "candle_end_time": INTERVALS[place.file.interval].end(stop_ms)}
    place.rewrite(lambda rows: pa.concat_tables([rows, edited(place.row(), 0, **times)]))
    return [("partition", "day", stop_ms)]


def twice(place: Place) -> list[tuple[str, str, int]]:
    place.rewrite(lambda rows: pa.concat_tables([rows.slice(0, place.at + 1), rows.slice(place.at)]))
    return [("partition", "duplicate", place.begin_ms)]


def unsorted(place: Place) -> list[tuple[str, str, int]]:
    """Put the candle behind the next one of its day; a day of one candle has none."""
    place.rewrite(
        lambda rows: rows.take(
            pa.array([*range(place.at), place.at + 1, place.at, *range(place.at + 2, rows.num_rows)])
        )
    )
    return [("partition", "unsorted", place.begin_ms)]


def of_another_schema(place: Place) -> list[tuple[str, str, int]]:
    path = place.store.root / place.file.file
    data = path.read_bytes()
    sink = pa.BufferOutputStream()
    rows = decode(data, "").drop_columns(["event_time"])
    with pq.ParquetWriter(sink, rows.schema, store_schema=False) as writer:
        writer.write_table(rows)
        writer.add_key_value_metadata(pq.read_metadata(pa.BufferReader(data)).metadata)
    path.write_bytes(sink.getvalue().to_pybytes())
    return [("partition", "schema", 0)]


def moved(place: Place) -> list[tuple[str, str, int]]:
    place.rewrite(lambda rows: rows, msgspec.structs.replace(place.file, symbol="ETHUSDT"))
    return [("partition", "metadata", 0)]


def torn(place: Place) -> list[tuple[str, str, int]]:
    path = place.store.root / place.file.file
    path.write_bytes(path.read_bytes()[:-100])
    return [("partition", "unreadable", 0)]


def foreign(place: Place) -> list[tuple[str, str, int]]:
    """Add rows of the file that are not sorted, and twice; equal ones are one candle."""
    rows = decode((place.store.root / place.file.file).read_bytes(), "")
    place.add(pa.concat_tables([place.row(), rows.slice(0, place.at), place.row()]))
    return [("partition", "foreign", 0)]


def foreign_and_impossible(place: Place) -> list[tuple[str, str, int]]:
    place.add(edited(place.row(), 0, low=-1.0, trade_num=10**9))
    return [("partition", "foreign", 0), ("candle", "price", place.begin_ms)]


def foreign_of_another_series(place: Place) -> list[tuple[str, str, int]]:
    place.add(place.row().append_column("symbol", pa.array(["ETHUSDT"])))
    return [("partition", "unreadable", 0)]


def foreign_and_torn(place: Place) -> list[tuple[str, str, int]]:
    (place.store.root / place.file.path / "part-0.parquet").write_bytes(b"torn")
    return [("partition", "unreadable", 0)]


def right(place: Place) -> list[tuple[str, str, int]]:
    return []


PLANTS: dict[str, Plant] = {
    f"A{number:02}USDT": plant
    for number, plant in enumerate(
        (
            right, impossible, of_another_length, of_another_period, twice, unsorted, of_another_schema,
            foreign, foreign_and_impossible, foreign_of_another_series, foreign_and_torn,
            off_the_grid, moved, torn,
        )
    )
}  # fmt: skip

# Coverage does not count these as the rest: the footer of a period's file is believed, the metadata of our
# own file are looked at only in directories of days, and an own file that cannot be read is an error.
BELIEVED = {symbol for symbol, plant in PLANTS.items() if plant in (off_the_grid, moved, torn)}

CHECKS = VerifyOptions(frozenset(("partition", "candle", "jumps")))


class Planted(NamedTuple):
    """A lake with defects.

    Args:
        findings: what verify is to find.
        subjects: the same, with the begin of the period in place of a file's.
        candles: the number of candles of each series.
    """

    store: LakeStore
    findings: list[Reported]
    subjects: list[Reported]
    candles: dict[Series, int]


def plant_all(root: Path, layout: str) -> Planted:
    """Make a lake in which each symbol has one defect in each interval."""
    store, begins = LakeStore.create(str(root), "test"), {}
    for interval in CHOSEN:
        series = Series("spot", "BTCUSDT", interval)
        span_ms = (CANDLES.get(interval, 30) + 1) * (series.grid.length_ms or 31 * DAY_MS)
        rows = truth_table(Truth(), series, NEW_YEAR_MS - span_ms, NEW_YEAR_MS)
        begins[interval] = int_column(rows, "candle_begin_time").tolist()
        for symbol in PLANTS:
            store.merge(partition_at(("spot", symbol, interval), begins[interval][0]), rows)
    if layout == "days":
        to_day_layout(root)
    planted = Planted(store, [], [], {})
    for interval in CHOSEN:
        for symbol, plant in PLANTS.items():
            planted.candles[Series("spot", symbol, interval)] = len(begins[interval])
            if plant is not unsorted or interval not in CANDLES:
                _plant(planted, Series("spot", symbol, interval), plant, begins[interval], layout)
    return planted


def _plant(planted: Planted, series: Series, plant: Plant, begins: list[int], layout: str) -> None:
    """Plant one defect at the first candle of a day, or in the middle."""
    middle = len(begins) // 2
    target = next((at for at in range(1, len(begins) - 1) if begins[at] % DAY_MS == 0), middle)
    partition = partition_at(series, begins[target])
    first, file = 0, partition
    if layout == "days" and partition.period != "day":
        file = msgspec.structs.replace(partition, date=day_of(begins[target]))
        first = next(at for at, begin in enumerate(begins) if day_of(begin) == file.date)
    begin_ms = begins[target]
    found = plant(Place(planted.store, file, target - first, begin_ms, series.grid.end(begin_ms)))
    planted.findings.extend((check, kind, series, at or file.start_ms) for check, kind, at in found)
    planted.subjects.extend((check, kind, series, at or partition.start_ms) for check, kind, at in found)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Planted]:
    """Return the same defects in each layout."""
    return {layout: plant_all(tmp_path_factory.mktemp("lake") / layout, layout) for layout in LAYOUTS}


def test_verify_finds_exactly_what_was_planted(planted: dict[str, Planted]) -> None:
    """Each defect is found in each layout, of the same candle or of the file that holds it."""
    for layout in LAYOUTS:
        found = verify_lake(planted[layout].store, options=CHECKS, most=10_000)
        assert sorted(found) == sorted(planted[layout].findings), layout
    assert planted["days"].subjects == planted["periods"].subjects
    assert len(planted["days"].subjects) > 10 * len(CHOSEN)


def test_coverage_counts_the_same_candles(planted: dict[str, Planted]) -> None:
    """A defect of a row, and what is beside the file, take away no candle in either layout."""
    counted = PartitionFilter(symbols=tuple(symbol for symbol in PLANTS if symbol not in BELIEVED))
    for layout in LAYOUTS:
        present = dict.fromkeys(planted[layout].candles, 0)
        for day in coverage(planted[layout].store, counted):
            present[day.series] += day.present
            assert day.missing == 0, day
        assert present == {
            series: 0 if series.symbol in BELIEVED else count
            for series, count in planted[layout].candles.items()
        }
        assert list(absent_candles(planted[layout].store, counted)) == []


@pytest.mark.parametrize(("plant", "layouts"), [(torn, LAYOUTS), (moved, ("days",))])
def test_an_own_file_that_cannot_be_read_is_an_error(
    planted: dict[str, Planted], plant: Plant, layouts: tuple[str, ...]
) -> None:
    """It is never left out: not the file of a period, and not that of a day, nor one of another series."""
    [symbol] = [each for each in PLANTS if PLANTS[each] is plant]
    for layout in layouts:
        for interval in (name for name in CHOSEN if INTERVALS[name].file_period != "day"):
            only = PartitionFilter(symbols=(symbol,), intervals=(interval,))
            with pytest.raises(LakeError, match=f"symbol={symbol}/interval={interval}/"):
                list(coverage(planted[layout].store, only))
            with pytest.raises(LakeError, match=symbol):
                rows_of_sql(
                    planted[layout].store,
                    f"SELECT sum(open) FROM candles WHERE symbol = '{symbol}' AND interval = '{interval}'",
                )


def test_a_row_of_another_day_in_the_file_of_a_day(tmp_path: Path) -> None:
    """In a directory of a day it is a finding: a reader that filters by the path would miss it."""
    series = Series("spot", "BTCUSDT", "1h")
    store = LakeStore.create(str(tmp_path), "test")
    merge_truth(store, series, 4, NEW_YEAR_MS - 10 * DAY_MS)
    to_day_layout(store.root)
    file = msgspec.structs.replace(
        partition_at(series, NEW_YEAR_MS - 1), date=day_of(NEW_YEAR_MS - 9 * DAY_MS)
    )
    late = {
        "candle_begin_time": NEW_YEAR_MS - 5 * DAY_MS,
        "candle_end_time": NEW_YEAR_MS - 5 * DAY_MS + HOUR_MS,
    }
    path = store.root / file.file
    rows = decode(path.read_bytes(), "")
    path.write_bytes(encode(pa.concat_tables([rows, edited(rows.slice(0, 1), 0, **late)]), file))
    assert verify_lake(store) == [("partition", "day", series, late["candle_begin_time"])]


def test_sums_of_shorter_candles_are_compared_in_both(tmp_path: Path) -> None:
    """A longer candle that is not the sum of the shorter ones is found, across files of days, months and years."""
    lengths = {"1m": 1, "15m": 1, "1h": 1, "4h": 1, "1d": 35, "3d": 35, "1w": 35, "1mo": 31}
    start_ms = NEW_YEAR_MS - 31 * DAY_MS
    store = LakeStore.create(str(tmp_path), "test")
    for interval, days in lengths.items():
        merge_truth(store, Series("spot", "BTCUSDT", interval), days, start_ms)
    expected = []
    for interval in ("15m", "1h", "4h", "3d", "1w", "1mo"):
        series = Series("spot", "BTCUSDT", interval)
        [partition] = {partition_at(series, start_ms), partition_at(series, start_ms + DAY_MS)}
        rows = store.read(partition)
        assert rows is not None
        at = rows.num_rows // 2
        wrong = edited(rows, at, trade_num=rows["trade_num"][at].as_py() + 1)
        (store.root / partition.file).write_bytes(encode(wrong, partition))
        begin_ms = int(int_column(rows, "candle_begin_time")[at])
        expected.append(("intervals", "differs", series, begin_ms))
    assert sorted(verify_lake(store)) == sorted(expected)
    to_day_layout(store.root)
    assert sorted(verify_lake(store)) == sorted(expected)
