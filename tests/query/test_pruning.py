"""The partitions that a filter keeps, and the directories that a query lists."""

import time
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pytest
from hypothesis import HealthCheck, given

from lakewriter.candle import to_table
from lakewriter.errors import LakeError
from lakewriter.interval import DAY_MS, INTERVALS
from lakewriter.partition import LEVELS, Partition, day_of, partition_on, period_date
from lakewriter.query.engine import Engine, EngineKey
from lakewriter.query.errors import QueryError
from lakewriter.query.python.reader import Lake
from lakewriter.query.scan.pruning import CANDLES_SCHEMA, FilterPruner, _day
from lakewriter.query.scan.pushdown import EVERYTHING, PushedFilters, pushed_filters
from lakewriter.query.session import run
from support.lakes import BEGIN_MS, add_foreign, make_lake, rest_candle, write_parquet
from support.lengths import either, examples
from support.running import wait_until
from support.statements import ALL_ROWS, FILTERS
from support.watched_lake import WatchedLake, watched

__all__ = ["watched"]  # the fixture

SYMBOLS = [f"S{number:03}USDT" for number in range(300)]
FIRST = date(2024, 1, 1)
DAYS = [(FIRST + timedelta(days=number)).isoformat() for number in range(400)]


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(EngineKey(Path("/nowhere"), readable=False))


def pruned(engine: Engine, predicate: str) -> FilterPruner:
    found: list[PushedFilters] = []

    def told() -> bool:
        # On a busy machine the time in which filters are found may be over before they are.
        found[:] = [asked(engine, predicate)]
        return bool(found[0].filters)

    wait_until(told)
    [pushed] = found[0].filters
    return FilterPruner(pushed)


def asked(engine: Engine, predicate: str) -> PushedFilters:
    with engine.cursor() as cursor:
        return pushed_filters(engine, cursor, CANDLES_SCHEMA, f"FROM candles WHERE {predicate}", {})


@pytest.mark.parametrize(
    ("predicate", "expected"),
    [
        ("symbol = 'S007USDT'", SYMBOLS[7:8]),
        ("symbol = 'NONE'", []),
        ("symbol IN ('S007USDT', 'S100USDT', 'S299USDT', 'NONE')", [SYMBOLS[7], SYMBOLS[100], SYMBOLS[299]]),
        (f"symbol IN {tuple(SYMBOLS[3:200:7])}", SYMBOLS[3:200:7]),
        ("symbol BETWEEN 'S007USDT' AND 'S01'", SYMBOLS[7:10]),
        ("symbol >= 'S298'", SYMBOLS[298:]),
        ("symbol <> 'S007USDT'", SYMBOLS[:7] + SYMBOLS[8:]),
        ("symbol = 'S007USDT' OR (symbol = 'S100USDT' AND high > 5)", [SYMBOLS[7], SYMBOLS[100]]),
        ("market = 'spot' AND high > 5", SYMBOLS),
        ("symbol IS NULL", []),
    ],
)
def test_names(engine: Engine, predicate: str, expected: list[str]) -> None:
    """A filter keeps exactly the names in which it can hold."""
    assert pruned(engine, predicate).keep("symbol", SYMBOLS) == expected


@pytest.mark.parametrize(
    ("predicate", "expected"),
    [
        ("symbol = 'S007USDT'", ["S007USDT"]),
        ("symbol = 'S007USDT' AND high > 5 AND market = 'spot'", ["S007USDT"]),
        ("symbol IN ('S100USDT', 'NONE', 'S007USDT')", ["NONE", "S007USDT", "S100USDT"]),
        ("symbol = 'A' OR (symbol = 'B' AND high > 5)", ["A", "B"]),
        ("symbol = '../x' AND market = 'A'", ["../x"]),
        ("symbol IN ('A', 'B') AND symbol <> 'B'", ["A"]),
        ("symbol = 'A' OR high > 5", None),
        ("symbol <> 'A'", None),
        ("symbol > 'A'", None),
        ("symbol BETWEEN 'A' AND 'B'", None),
        ("symbol LIKE 'A%'", None),
        ("market = 'A'", None),
        ("high > 5", None),
        (f"symbol IN {tuple(SYMBOLS[:100])}", None),
    ],
)
def test_names_that_are_told_unseen(engine: Engine, predicate: str, expected: list[str] | None) -> None:
    """If a filter can hold for a few names only, they are known without a listing."""
    asks = asked(engine, predicate)
    [pushed] = [pc.scalar(True)] if asks == EVERYTHING else asks.filters
    assert FilterPruner(pushed).names("symbol") == expected


def any_filter(short: int, long: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that draws this many values for the argument `predicate`."""
    some = examples(short, long, suppress_health_check=list(HealthCheck))
    return lambda test: some(given(predicate=FILTERS)(test))


@any_filter(20, 200)
def test_no_name_is_missing_of_those_told_unseen(engine: Engine, predicate: str) -> None:
    """The names from a filter alone are those that the filter keeps of a listing."""
    for pushed in asked(engine, predicate).filters:
        each = FilterPruner(pushed)
        for level in LEVELS[:-1]:
            names = each.names(level)
            there = sorted({getattr(one, level) for one in ALL_ROWS} | {"0", "A", "~"})
            assert names is None or each.keep(level, there) == [name for name in there if name in names]


def days(first: int, last: int) -> list[str]:
    return DAYS[first : last + 1]


@pytest.mark.parametrize(
    ("predicate", "expected"),
    [
        ("\"date\" = '2024-01-08'", days(7, 7)),
        ("\"date\" BETWEEN '2024-01-08' AND '2024-01-10'", days(7, 9)),
        ("\"date\" IN ('2024-01-08', '2024-03-01', '2024-12-31')", [DAYS[7], DAYS[60], DAYS[365]]),
        ("\"date\" < '2024-01-03' OR \"date\" > '2025-02-01'", [*days(0, 1), *days(398, 399)]),
        ("\"date\" <> '2024-01-01'", days(1, 399)),
        ('year("date") = 2025', days(366, 399)),
        ("\"date\" >= '2025-02-01'", days(397, 399)),
        ("candle_begin_time >= '2024-01-08' AND candle_begin_time < '2024-01-10'", days(7, 8)),
        ("candle_begin_time BETWEEN '2024-01-08 23:59' AND '2024-01-10'", days(7, 9)),
        ("candle_begin_time = '2024-01-08 12:00'", days(7, 7)),
        ("candle_begin_time > '2025-02-01' AND \"date\" < '2025-02-03'", days(397, 398)),
        ("date_trunc('month', candle_begin_time) = '2024-02-01'", days(31, 59)),
        ("candle_begin_time IN ('2024-01-08', '2024-03-01')", [DAYS[7], DAYS[60]]),
        ("high > 5 AND symbol = 'A'", DAYS),
        ("candle_end_time IS NULL", DAYS),
    ],
)
def test_days(engine: Engine, predicate: str, expected: list[str]) -> None:
    """A filter keeps exactly the days in which it can hold, listed or computed."""
    found = pruned(engine, predicate)
    assert found.keep_days("1m", DAYS) == expected
    few = found.few_days("1m")
    assert few is None or few == expected


@pytest.mark.parametrize(
    ("interval", "first"),
    [("1m", "2024-03-09"), ("1d", "2024-03-09"), ("1w", "2024-03-03"), ("1mo", "2024-02-08")],
)
def test_days_by_their_end(engine: Engine, interval: str, first: str) -> None:
    """A candle may end one interval after its day; a month may have 31 days."""
    found = pruned(engine, "candle_end_time > '2024-03-10' AND candle_end_time <= '2024-03-11'")
    low, high = found._spans(interval)[0][0], found._spans(interval)[-1][1]
    assert (_day(low).isoformat(), _day(high).isoformat()) == (first, "2024-03-11")
    kept = found.keep_days(interval, names_of(interval))
    assert kept == [name for name in names_of(interval) if name in periods(interval, first, "2024-03-11")]
    assert found.few_days(interval) in (None, kept)


def names_of(interval: str) -> list[str]:
    """Return the directories' names for an interval's partitions."""
    return sorted({period_date(interval, date.fromisoformat(day)).isoformat() for day in DAYS})


def periods(interval: str, first: str, last: str) -> list[str]:
    """Return the first days of the periods of these days."""
    days = DAYS[DAYS.index(first) : DAYS.index(last) + 1]
    return sorted({period_date(interval, date.fromisoformat(day)).isoformat() for day in days})


@pytest.mark.parametrize("interval", ["1h", "1d"])
@pytest.mark.parametrize(
    ("predicate", "first", "last"),
    [
        ("\"date\" = '2024-01-08'", "2024-01-08", "2024-01-08"),
        ("\"date\" BETWEEN '2024-01-08' AND '2024-03-10'", "2024-01-08", "2024-03-10"),
        (
            "candle_begin_time >= '2024-02-29' AND candle_begin_time < '2024-03-01'",
            "2024-02-29",
            "2024-02-29",
        ),
        ("candle_begin_time > '2024-12-31 12:00'", "2024-12-31", DAYS[-1]),
        ('year("date") = 2025', "2025-01-01", DAYS[-1]),
    ],
)
def test_periods_of_the_days_are_left(
    engine: Engine, interval: str, predicate: str, first: str, last: str
) -> None:
    """Only files of months and years with a wanted day are kept, and none is found without a listing."""
    found = pruned(engine, predicate)
    assert found.keep_days(interval, names_of(interval)) == periods(interval, first, last)
    assert found.few_days(interval) is None


@pytest.mark.parametrize("interval", INTERVALS)
def test_no_candle_ends_where_it_is_not_looked_for(engine: Engine, interval: str) -> None:
    """A filter on the end time keeps the day of the candle, for each interval."""
    grid = INTERVALS[interval]
    for begin_ms in grid.grid(BEGIN_MS - 40 * DAY_MS, BEGIN_MS + 40 * DAY_MS)[
        :: either(5, 1) * (1 + DAY_MS // (grid.length_ms or DAY_MS))
    ]:
        end = f"make_timestamptz({grid.end(begin_ms)}000)"
        name = period_date(interval, day_of(begin_ms)).isoformat()
        assert pruned(engine, f"candle_end_time = {end}").keep_days(interval, [name])


def test_the_future_and_the_past_are_days(engine: Engine) -> None:
    """Days beyond the range that is tested one by one are kept together, and never enumerated."""
    found = pruned(engine, "\"date\" > '2024-01-01'")
    assert found.keep_days("1m", ["1970-01-01", "2024-01-02", "2149-06-06", "2200-01-01", "9999-12-31"]) == [
        "2024-01-02", "2149-06-06", "2200-01-01", "9999-12-31",
    ]  # fmt: skip
    late = pruned(engine, "\"date\" = '9999-12-31'")
    assert late.few_days("1m") is None
    assert "9999-12-31" in late.keep_days("1m", ["2024-01-01", "9999-12-31"])
    assert pruned(engine, "\"date\" < '1960-01-01'").few_days("1m") == []


def test_names_that_are_no_text(engine: Engine) -> None:
    """A directory whose name is not UTF-8 is no partition."""
    assert pruned(engine, "symbol > 'A'").keep("symbol", ["B", "\udcff"]) == ["B"]


def row_table() -> pa.Table:
    table = to_table(ALL_ROWS)
    for level in LEVELS:
        values = [day_of(one.begin_ms) if level == "date" else getattr(one, level) for one in ALL_ROWS]
        table = table.append_column(level, pa.array(values, CANDLES_SCHEMA.field(level).type))
    return table.select(CANDLES_SCHEMA.names)


TABLE = row_table()


def keeps(found: FilterPruner, partition: Partition) -> bool:
    day = partition.date.isoformat()
    few = found.few_days(partition.interval)
    assert few is None or (day in few) == (found.keep_days(partition.interval, [day]) == [day])
    return bool(found.keep_days(partition.interval, [day])) and all(
        found.keep(level, names) != [] and getattr(partition, level) in found.keep(level, names)
        for level, names in NAMES.items()
    )


NAMES = {level: sorted({getattr(one, level) for one in ALL_ROWS}) for level in LEVELS[:-1]}


@any_filter(40, 400)
def test_no_partition_of_a_row_that_passes_is_dropped(engine: Engine, predicate: str) -> None:
    """Each filter keeps the partitions of all rows that pass it in Arrow."""
    for pushed in asked(engine, predicate).filters:
        found = FilterPruner(pushed)
        passed = ds.dataset(TABLE).to_table(filter=pushed, columns=list(LEVELS))
        for row in passed.group_by(list(LEVELS)).aggregate([]).to_pylist():
            assert keeps(found, partition_on((row["market"], row["symbol"], row["interval"]), row["date"]))


def test_tests_have_an_end(engine: Engine) -> None:
    """For a long IN list some unneeded names are kept, so that the number of tests stays bounded."""
    many = [f"S{number:05}" for number in range(20_000)]
    odd = many[1:6000:2]
    found = pruned(engine, f"symbol IN {tuple(odd)}")
    started_s = time.thread_time()
    kept = found.keep("symbol", many)
    assert time.thread_time() - started_s < 5
    assert set(odd) <= set(kept)


@pytest.mark.parametrize(
    ("sql", "partitions"),
    [
        ("SELECT count(*) FROM candles", 36),
        ("SELECT count(*) FROM candles WHERE symbol LIKE 'A%'", 12),
        # The engine pushes nothing of an expression.
        ("SELECT count(*) FROM candles WHERE lower(symbol) LIKE 'a%'", 36),
        ("SELECT count(*) FROM candles WHERE symbol = 'AUSDT'", 12),
        ("SELECT count(*) FROM candles WHERE symbol = '币USDT' AND market = 'spot'", 6),
        ("SELECT count(*) FROM candles WHERE market = 'spot' AND symbol = 'AUSDT' AND \"interval\" = '1m' AND \"date\" = '2024-07-01'", 1),
        ("SELECT count(*) FROM candles WHERE candle_begin_time >= '2024-07-01'", 24),
        ("SELECT count(*) FROM candles WHERE candle_end_time <= '2024-06-30 01:00'", 12),
        ("SELECT count(*) FROM candles WHERE \"date\" = current_date", 0),
        ("SELECT count(*) FROM candles WHERE false", 0),
        ("SELECT count(*) FROM candles a JOIN candles b USING (candle_begin_time) WHERE a.symbol = 'AUSDT' AND b.symbol = 'BUSDT'", 24),
        ("SELECT count(*) FROM candles a JOIN candles b USING (symbol, candle_begin_time) WHERE a.\"date\" = '2024-07-01'", 36),
        ("WITH x AS MATERIALIZED (FROM candles) SELECT count(*) FROM x WHERE symbol = 'AUSDT'", 12),
        ("EXPLAIN SELECT count(*) FROM candles WHERE symbol = 'AUSDT'", 12),
        ("EXPLAIN ANALYZE SELECT count(*) FROM candles WHERE symbol = 'AUSDT'", 12),
        ("DESCRIBE candles", 0),
        ("FROM (SHOW TABLES)", 0),
        ("SELECT 1", 0),
        ("SELECT count(*) FROM gaps", 0),
    ],
)  # fmt: skip
def test_only_these_partitions_are_listed(watched: WatchedLake, sql: str, partitions: int) -> None:
    """Directories without a possible row of any scan are not listed."""
    run(watched, sql)
    assert len(set(watched.listed)) == partitions


@pytest.mark.parametrize(
    "sql", ["SELECT nope FROM candles", "SELEC 1", "FROM candles; DROP TABLE gaps", "WITH x AS (DELETE FROM gaps RETURNING *) FROM x, candles"]
)  # fmt: skip
def test_wrong_statement_lists_nothing(watched: WatchedLake, sql: str) -> None:
    """A wrong or forbidden statement fails before the lake is listed."""
    with pytest.raises(QueryError):
        run(watched, sql)
    assert watched.listings == 0


def test_wrong_statement_is_shown_as_it_was_written(watched: WatchedLake) -> None:
    """The error of a wrong statement does not show the EXPLAIN that finds its filters."""
    with pytest.raises(QueryError) as raised:
        run(watched, "SELECT nope FROM candles")
    assert "Candidate bindings" in raised.value.hint
    assert "EXPLAIN" not in str(raised.value) + raised.value.hint


def test_statement_that_fails_on_no_rows_is_told_as_it_fails_on_all(watched: WatchedLake) -> None:
    """Errors of the first pass, over empty tables, are not raised; the run over all rows decides."""
    sql = "SELECT CASE WHEN count(*) = 0 THEN error('empty')::INT ELSE count(*) END AS n FROM candles, (SELECT count(*) FROM gaps)"
    assert run(watched, sql).to_pylist() == [{"n": 36}]
    with pytest.raises(QueryError, match="sql: boo"):
        run(watched, "SELECT error('boo') FROM candles")


def test_parameter_chooses_partitions(watched: WatchedLake) -> None:
    """A value of $name prunes as a literal does."""
    [row] = run(watched, "SELECT count(*) AS n FROM candles WHERE symbol = $s", {"s": "AUSDT"}).to_pylist()
    assert row == {"n": 12}
    assert {partition.symbol for partition in watched.listed} == {"AUSDT"}


def test_hot_candles_are_seen_where_there_is_no_directory_yet(tmp_path: Path) -> None:
    """A day or symbol that only the journal has is found by its name."""
    store = make_lake(
        tmp_path, [rest_candle(0)], hot=[rest_candle(1440), rest_candle(0, symbol="ETHUSDT"), rest_candle(1)]
    )
    for predicate, rows in (
        ("\"date\" = '2024-07-01'", 1),
        ("symbol = 'ETHUSDT'", 1),
        ("symbol = 'BTCUSDT' AND \"date\" = '2024-06-30'", 2),
        ("candle_begin_time >= '2024-07-01'", 1),
        ("symbol = 'NONE'", 0),
    ):
        assert run(store, f"SELECT count(*) AS n FROM candles WHERE {predicate}").to_pylist() == [{"n": rows}]


@pytest.mark.parametrize(
    ("predicate", "rows"),
    [
        ("candle_begin_time < TIMESTAMPTZ '2024-07-01 00:00:00.0005'", 3),
        ("candle_begin_time <= TIMESTAMPTZ '2024-06-30 23:59:59.9995'", 2),
        ("candle_begin_time > TIMESTAMPTZ '2024-06-30 23:59:59.9995'", 1),
        ("candle_begin_time >= TIMESTAMPTZ '2024-07-01 00:00:00.0005'", 0),
        ("candle_begin_time <> TIMESTAMPTZ '2024-07-01 00:00:00.0005'", 3),
        ("candle_begin_time BETWEEN TIMESTAMPTZ '2024-06-30 23:59:59.9995' AND TIMESTAMPTZ '2024-07-01 00:00:00.0005'", 1),
        ("candle_end_time < TIMESTAMPTZ '2024-07-01 00:01:00.0005'", 3),
        ("candle_end_time > TIMESTAMPTZ '2024-07-01 00:00:59.9995'", 1),
    ],
)  # fmt: skip
def test_times_finer_than_a_millisecond_prune_no_day_too_many(
    tmp_path: Path, predicate: str, rows: int
) -> None:
    """A bound between two milliseconds around midnight drops no day with rows."""
    store = make_lake(tmp_path, [rest_candle(minute) for minute in (0, 1440 - 720, 1440)])
    [row] = run(store, f"SELECT count(*) AS n FROM candles WHERE {predicate}").to_pylist()
    assert row == {"n": rows}


def test_percent_encoded_directories_are_found_by_their_names(tmp_path: Path) -> None:
    """A filter on a symbol finds its percent-encoded directory and the days below it."""
    store = make_lake(tmp_path, [rest_candle(0, symbol="币USDT")])
    write_parquet(
        tmp_path, "market=spot/symbol=%E5%B8%81USDT/interval=1m/date=2024-06-30", to_table([rest_candle(1)])
    )
    sql = "SELECT count(*) AS n FROM candles WHERE symbol = '币USDT' AND \"date\" = '2024-06-30'"
    assert run(store, sql).to_pylist() == [{"n": 2}]


def test_foreign_row_of_another_day_is_told(tmp_path: Path) -> None:
    """A foreign row below the wrong day is an error: only some filters would find it."""
    store = make_lake(tmp_path, [rest_candle(0)])
    add_foreign(tmp_path, [rest_candle(1), rest_candle(1440)])
    with pytest.raises(LakeError, match="1 of its rows begin on another day"):
        run(store, "SELECT count(*) FROM candles")


def test_few_days_of_a_series_are_read_without_a_listing(tmp_path: Path) -> None:
    """From Python, a few days of a series return their rows: present, absent and foreign ones."""
    make_lake(tmp_path, [rest_candle(0), rest_candle(2880)])
    add_foreign(tmp_path, [rest_candle(1)])
    frame: Any = Lake(tmp_path).candles("spot", "BTCUSDT", "1m", "2024-06-30", "2024-07-02")
    assert len(frame) == 2
