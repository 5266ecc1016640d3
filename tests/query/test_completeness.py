"""The tables `gaps`, `coverage` and `instruments` in SQL: each candle is present or explained."""

from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import msgspec
import pytest

from lakewriter.gap import Reason
from lakewriter.instrument import Instrument
from lakewriter.interval import DAY_MS
from lakewriter.lake.coverage.absences import absent_candles
from lakewriter.lake.coverage.days import CoverageDay, coverage
from lakewriter.lake.gaps.ledgers import ORPHANED
from lakewriter.lake.instruments import record_instruments
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.partition_filter import PartitionFilter
from lakewriter.series import Series
from support.lakes import BEGIN_MS, add_foreign, make_lake, rest_candle, rows_of_sql
from support.living_recorder import LivingRecorder, confirm_series, mark_gap, start_recorder

BTC = Series("spot", "BTCUSDT", "1m")
MINUTE_MS = 60_000
JUNE_30, JULY_1, JULY_2 = date(2024, 6, 30), date(2024, 7, 1), date(2024, 7, 2)


def at(minute: int) -> datetime:
    return datetime.fromtimestamp((BEGIN_MS + minute * MINUTE_MS) / 1000, UTC)


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[LivingRecorder]:
    make_lake(tmp_path)
    found = LivingRecorder(tmp_path)
    yield found
    if found.alive:
        found.die()


@pytest.mark.parametrize("table", ["gaps", "coverage", "instruments", "subscriptions"])
def test_an_empty_lake_has_the_tables(tmp_path: Path, table: str) -> None:
    """In an empty lake the tables have typed columns and no rows; a statement creates those that it names."""
    store = make_lake(tmp_path)
    assert rows_of_sql(store, f"SELECT * FROM {table}") == []
    described = rows_of_sql(store, f"SELECT column_name, column_type FROM (DESCRIBE {table})")
    assert described == rows_of_sql(make_lake(tmp_path / "full", [rest_candle()]), f"SELECT column_name, column_type FROM (DESCRIBE {table})")  # fmt: skip
    assert [name for name, _ in described][:2] == ["market", "symbol"]
    assert (table,) in rows_of_sql(store, "SHOW TABLES")


def test_columns_are_the_promised_ones(tmp_path: Path) -> None:
    """The columns have the documented names, types and order."""
    store = make_lake(tmp_path)
    time, text, number = "TIMESTAMP WITH TIME ZONE", "VARCHAR", "BIGINT"
    assert rows_of_sql(store, "SELECT column_name, column_type FROM (DESCRIBE gaps)") == [
        ("market", text), ("symbol", text), ("interval", text), ("start", time), ("stop", time),
        ("candles", number), ("reason", text), ("detected_at", time), ("resolved_at", time), ("error", text),
    ]  # fmt: skip
    assert rows_of_sql(store, "SELECT column_name, column_type FROM (DESCRIBE coverage)") == [
        ("market", text), ("symbol", text), ("interval", text), ("date", "DATE"),
        ("expected", number), ("present", number), ("missing", number), ("explained", number),
    ]  # fmt: skip
    assert rows_of_sql(store, "SELECT column_name, column_type FROM (DESCRIBE instruments)") == [
        ("market", text), ("symbol", text), ("status", text), ("contract_type", text),
        ("onboard_at", time), ("delivery_at", time), ("first_seen", time), ("last_seen", time),
    ]  # fmt: skip
    assert rows_of_sql(store, "SELECT column_name, column_type FROM (DESCRIBE subscriptions)") == [
        ("market", text), ("symbol", text), ("interval", text), ("start", time), ("stop", time),
        ("last_seen", time), ("recorder", text),
    ]  # fmt: skip


def test_gaps_are_what_is_really_absent(recorder: LivingRecorder, tmp_path: Path) -> None:
    """Candles that are in a partition, a foreign file or a journal by now are cut out of gaps."""
    mark_gap(recorder, 2, 10, "exchange_halt")
    store = make_lake(tmp_path, [rest_candle(0), rest_candle(3)], hot=[rest_candle(5)])
    add_foreign(tmp_path, [rest_candle(8)])
    assert rows_of_sql(
        store, "SELECT start, stop, candles, reason, detected_at, resolved_at, error FROM gaps"
    ) == [
        (at(1), at(2), 1, "unexplained", None, None, ""),
        *(
            (at(low), at(high), high - low, "exchange_halt", at(99), at(99), "")
            for low, high in ((2, 3), (4, 5), (6, 8), (9, 10))
        ),
    ]
    assert rows_of_sql(store, "SELECT sum(missing), sum(explained) FROM coverage") == [(6, 5)]


def test_gaps_of_a_series_without_any_candle(recorder: LivingRecorder, tmp_path: Path) -> None:
    """A symbol without any candle is absent as a whole, with its gap's reason."""
    mark_gap(recorder, 0, 2880, "not_listed")
    mark_gap(recorder, 0, 3 * 1440, "delisted", Series("spot", "OLDUSDT", "3d"))
    store = LakeStore.local(tmp_path)
    assert rows_of_sql(store, "SELECT symbol, candles FROM gaps ORDER BY ALL") == [
        ("BTCUSDT", 2880),
        ("OLDUSDT", 1),
    ]
    assert rows_of_sql(store, "SELECT symbol, date, expected, present, missing, explained FROM coverage") == [
        ("BTCUSDT", JUNE_30, 1440, 0, 1440, 1440),
        ("BTCUSDT", JULY_1, 1440, 0, 1440, 1440),
        ("OLDUSDT", JUNE_30, 1, 0, 1, 1),
    ]


def test_coverage_spans_from_the_first_to_the_last(recorder: LivingRecorder, tmp_path: Path) -> None:
    """Days count from the first to the last candle or ledger entry, journal included."""
    mark_gap(recorder, 8, 10)
    mark_gap(recorder, 2884, 2886, "unhealable")
    store = make_lake(
        tmp_path,
        [rest_candle(n) for n in range(10, 1500)],
        hot=[rest_candle(1499), rest_candle(2881), rest_candle(2883)],
    )
    assert rows_of_sql(store, "SELECT date, expected, present, missing, explained FROM coverage") == [
        (JUNE_30, 1432, 1430, 2, 2),
        (JULY_1, 1440, 60, 1380, 0),
        (JULY_2, 6, 2, 4, 2),
    ]


def test_pending_explains_only_while_its_recorder_lives(recorder: LivingRecorder, tmp_path: Path) -> None:
    """Pending gaps of a dead recorder have no reason until another recorder adopts its journal."""
    mark_gap(recorder, 1, 3)
    store = make_lake(tmp_path, [rest_candle(0), rest_candle(3)])
    removed_by_series = "SELECT sum(missing), sum(explained) FROM coverage"
    said = "SELECT reason, error FROM gaps"
    assert rows_of_sql(store, removed_by_series) == [(2, 2)]
    assert rows_of_sql(store, said) == [("pending", "")]
    assert [each.has_reason for each in absent_candles(store)] == [True]
    recorder.die()
    assert rows_of_sql(store, removed_by_series) == [(2, 0)]
    assert rows_of_sql(store, said) == [("pending", ORPHANED)]
    assert [each.has_reason for each in absent_candles(store)] == [False]
    heir = LivingRecorder(tmp_path)
    assert rows_of_sql(store, removed_by_series) == [(2, 2)]
    assert [day.without_reason for day in coverage(store)] == [2]
    assert rows_of_sql(store, said) == [("unhealable", ORPHANED)]
    assert [each.has_reason for each in absent_candles(store)] == [False]
    heir.die()


@pytest.mark.parametrize("reason", ["delisted", "delivered", "not_listed"])
def test_what_does_not_trade_is_not_expected_until_now(
    reason: Reason, recorder: LivingRecorder, tmp_path: Path
) -> None:
    """A series that is delisted or not listed is expected up to that gap, not up to now."""
    store = LakeStore.open(str(tmp_path))
    mark_gap(recorder, 3, 5, reason)
    [day] = coverage(store, until_ms=BEGIN_MS + 60 * MINUTE_MS)
    assert (day.expected, day.without_reason) == (2, 0)
    mark_gap(recorder, 5, 6, "exchange_halt")
    assert sum(day.expected for day in coverage(store, until_ms=BEGIN_MS + 60 * MINUTE_MS)) == 57


def test_coverage_until_a_moment(tmp_path: Path) -> None:
    """Each series is expected up to a moment, without candles that are not closed by then."""
    store = make_lake(
        tmp_path, [rest_candle(0), rest_candle(0, interval="1h"), rest_candle(0, interval="1d")]
    )

    def found(until_ms: int) -> list[tuple[str, int, int]]:
        return [
            (day.series.interval, day.expected, day.missing) for day in coverage(store, until_ms=until_ms)
        ]

    assert found(BEGIN_MS + 90 * MINUTE_MS + 59_999) == [("1d", 1, 0), ("1h", 1, 0), ("1m", 90, 89)]
    assert found(0) == [("1d", 1, 0), ("1h", 1, 0), ("1m", 1, 0)]
    assert found(BEGIN_MS + 3 * DAY_MS)[:3] == [("1d", 1, 0), ("1d", 1, 1), ("1d", 1, 1)]


def test_days_without_a_grid_time_are_left_out(tmp_path: Path) -> None:
    """A month has one row, and so has a week."""
    july_ms, september_ms = 1_719_792_000_000, 1_725_148_800_000
    months = [
        msgspec.structs.replace(rest_candle(0), interval="1mo", begin_ms=begin_ms)
        for begin_ms in (july_ms, september_ms)
    ]
    store = make_lake(tmp_path, months)
    assert rows_of_sql(store, "SELECT date, expected, present FROM coverage") == [
        (date(2024, 7, 1), 1, 1),
        (date(2024, 8, 1), 1, 0),
        (date(2024, 9, 1), 1, 1),
    ]


def test_filters(recorder: LivingRecorder, tmp_path: Path) -> None:
    """A filter leaves out series and days, and does not change the other numbers."""
    mark_gap(recorder, 1430, 1450)
    eth = Series("spot", "ETHUSDT", "1m")
    mark_gap(recorder, 0, 3, "delisted", eth)
    store = make_lake(tmp_path, [rest_candle(0), rest_candle(2000), rest_candle(5, symbol="ETHUSDT")])
    everything = list(coverage(store))
    wanted = PartitionFilter(("spot",), ("BTCUSDT",), ("1m",), JULY_1, JULY_1)
    assert (
        list(coverage(store, wanted))
        == [day for day in everything if (day.series, day.date) == (BTC, JULY_1)]
        == [CoverageDay(BTC, JULY_1, 561, 1, 560, 10)]
    )
    assert [
        ((each.start_ms - BEGIN_MS) // MINUTE_MS, each.candles, each.reason)
        for each in absent_candles(store, wanted)
    ] == [(1440, 10, "pending"), (1450, 550, "unexplained")]
    assert sum(each.candles for each in absent_candles(store)) == sum(day.missing for day in everything)
    assert list(coverage(store, PartitionFilter(symbols=("NOUSDT",)))) == []


def test_instruments_are_periods(tmp_path: Path) -> None:
    """`instruments` has one row per instrument and status, with the time of the exchangeInfo answer."""
    store = make_lake(tmp_path)
    record_instruments(
        store, "usdt_futures", [Instrument("BTCUSDT", "TRADING", "PERPETUAL", BEGIN_MS, None)], BEGIN_MS
    )
    record_instruments(
        store,
        "usdt_futures",
        [Instrument("BTCUSDT", "BREAK", "PERPETUAL", BEGIN_MS, None)],
        BEGIN_MS + MINUTE_MS,
    )
    assert rows_of_sql(store, "FROM instruments") == [
        ("usdt_futures", "BTCUSDT", "TRADING", "PERPETUAL", at(0), None, at(0), at(0)),
        ("usdt_futures", "BTCUSDT", "BREAK", "PERPETUAL", at(0), None, at(1), at(1)),
    ]


def test_subscriptions_are_periods(tmp_path: Path) -> None:
    """`subscriptions` has the subscribed periods of recorders."""
    store = make_lake(tmp_path)
    eth = Series("spot", "ETHUSDT", "1m")
    journal = start_recorder(store, BTC, eth, now_ms=BEGIN_MS)
    confirm_series(store, journal, BTC, now_ms=BEGIN_MS + 7 * MINUTE_MS)
    assert rows_of_sql(store, "FROM subscriptions") == [
        (*BTC, at(0), None, at(7), "/etc/lakewriter.toml"),
        (*eth, at(0), at(7), at(7), "/etc/lakewriter.toml"),
    ]
    journal.close()


def test_tables_join(recorder: LivingRecorder, tmp_path: Path) -> None:
    """The tables can be joined with each other and with `candles`."""
    mark_gap(recorder, 1, 2, "exchange_halt")
    store = make_lake(tmp_path, [rest_candle(0), rest_candle(2)])
    assert rows_of_sql(
        store,
        """SELECT gaps.reason, candles.close FROM gaps JOIN candles
           ON gaps.stop = candle_begin_time AND gaps.symbol = candles.symbol
           WHERE (SELECT sum(missing - explained) FROM coverage) = 0""",
    ) == [("exchange_halt", 103.0)]
