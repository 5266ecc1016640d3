"""The rows that SQL sees of a lake."""

import math
import tempfile
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from lakewriter.candle import UNKNOWN, Candle, precedence, to_table
from lakewriter.errors import LakeError, UsageError
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.listing import PartitionFiles
from lakewriter.lake.partition_filter import ALL, PartitionFilter
from lakewriter.partition import FILE_NAME
from lakewriter.query.errors import QueryError
from lakewriter.query.retry import TRIES_MAX
from lakewriter.query.schema import COLUMNS
from lakewriter.query.session import run, stream
from support.lakes import BEGIN_MS, add_foreign, make_lake, rest_candle, write_parquet
from support.lengths import examples
from support.running import wait_until


def values(store: LakeStore, sql: str, **params: object) -> list[tuple[object, ...]]:
    return [tuple(row.values()) for row in run(store, sql, params or None).to_pylist()]


def test_pure_lake_answers_as_plain_duckdb_does(tmp_path: Path) -> None:
    """In a lake without foreign files the view equals a plain glob."""
    store = make_lake(
        tmp_path,
        [rest_candle(n, symbol=symbol, interval=interval)
         for n in range(5) for symbol in ("BTCUSDT", "ETHUSDT") for interval in ("1m", "1h", "1d")],
    )  # fmt: skip
    names = ", ".join(
        "candle_begin_time::DATE AS date" if name == "date" else f'"{name}"' for name in COLUMNS
    )
    engine = duckdb.connect()
    engine.execute("SET TimeZone='UTC'")
    plain = engine.sql(
        f"SELECT {names} FROM read_parquet('{tmp_path}/**/*.parquet', hive_partitioning=true) ORDER BY ALL"
    ).to_arrow_table()
    ours = run(store, "FROM candles ORDER BY ALL")
    assert ours.num_rows == 30
    assert ours.equals(plain)


def test_every_column_has_its_place_and_type_in_an_empty_lake(tmp_path: Path) -> None:
    """An empty lake has the same columns and types as a full one."""
    described = values(
        make_lake(tmp_path / "empty"), "SELECT column_name, column_type FROM (DESCRIBE candles)"
    )
    full = make_lake(tmp_path / "full", [rest_candle()])
    assert described == values(full, "SELECT column_name, column_type FROM (DESCRIBE candles)")
    assert [name for name, _ in described][:5] == [
        "market",
        "symbol",
        "interval",
        "date",
        "candle_begin_time",
    ]
    assert dict(described)["candle_begin_time"] == "TIMESTAMP WITH TIME ZONE"
    assert values(make_lake(tmp_path / "empty"), "SELECT count(*) FROM candles") == [(0,)]


def test_journalled_candles_are_seen_before_any_flush(tmp_path: Path) -> None:
    """A journaled candle is in the answer at once, even without any file."""
    store = make_lake(tmp_path, hot=[rest_candle(0), rest_candle(1)])
    assert values(store, "SELECT count(*), max(high) FROM candles") == [(2, 103.0)]
    assert values(store, 'SELECT DISTINCT market, symbol, "interval", "date"::VARCHAR FROM candles') == [
        ("spot", "BTCUSDT", "1m", "2024-06-30")
    ]


def test_candle_in_journal_and_file_is_seen_once(tmp_path: Path) -> None:
    """A segment whose rows are all flushed adds no rows."""
    rows = [rest_candle(n) for n in range(5)]
    store = make_lake(tmp_path, [*rows, rest_candle(1440)], hot=[*rows, rest_candle(5), rest_candle(2)])
    assert values(store, "SELECT count(*), count(DISTINCT candle_begin_time) FROM candles") == [(7, 7)]


def test_foreign_duplicates_are_seen_once(tmp_path: Path) -> None:
    """Foreign files beside ours repeat no candle."""
    store = make_lake(tmp_path, [rest_candle(0), rest_candle(1)])
    add_foreign(tmp_path, [rest_candle(1), rest_candle(2), rest_candle(2)])
    assert values(store, "SELECT count(*), count(DISTINCT candle_begin_time) FROM candles") == [(3, 3)]


def test_foreign_file_may_lack_columns_and_have_other_types(tmp_path: Path) -> None:
    """Missing columns are null, extra ones are ignored, and other types are cast."""
    store = make_lake(tmp_path, [rest_candle(0)])
    foreign = pa.table(
        {
            "extra": [1],
            "candle_begin_time": pa.array([(BEGIN_MS + 60_000) * 1000], pa.timestamp("us")),
            "open": pa.array([1], pa.int32()),
            "high": pa.array([2.5], pa.float32()),
            "low": [1.0],
            "close": [1.0],
            "volume": [1.0],
            "trade_num": pa.array([7], pa.int16()),
        }
    )
    write_parquet(tmp_path, "market=spot/symbol=BTCUSDT/interval=1m/date=2024-06-30", foreign)
    write_parquet(tmp_path, "market=spot/symbol=ETHUSDT/interval=1m/date=2024-06-30", foreign)
    rows = values(
        store, "SELECT candle_begin_time, open, high, trade_num, source FROM candles WHERE open = 1"
    )
    at = datetime(2024, 6, 30, 0, 1, tzinfo=UTC)
    assert rows == [(at, 1.0, 2.5, 7, None)] * 2


_DUPLICATES = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.sampled_from(["stream", "rest", "archive"]),
        st.none() | st.integers(0, 2),
        st.integers(0, 2),
        st.sampled_from([1.0, 2.0, float("nan")]),
        st.sampled_from(["own", "foreign", "journal"]),
    ).filter(lambda drawn: drawn[-1] != "journal" or (drawn[2] is not None and drawn[4] == drawn[4])),
    min_size=1,
    max_size=12,
)


@examples(6, 30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_DUPLICATES)
def test_the_winner_is_the_one_that_the_lake_would_keep(
    drawn: list[tuple[int, str, int | None, int, float, str]],
) -> None:
    """For any duplicates in files and journal, SQL returns the rows that a merge of all would keep."""
    where: dict[str, list[Candle]] = {"own": [], "foreign": [], "journal": []}
    best: dict[int, tuple[bool, int, float, int]] = {}
    for number, source, trades, received, volume, place in drawn:
        one = rest_candle(
            number, source=source, trade_num=trades, volume=volume, recv_us=BEGIN_MS * 1000 + received
        )
        where[place].append(one)
        best[one.begin_ms] = max(best.get(one.begin_ms, precedence(one)), precedence(one))
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        store = make_lake(root, where["own"], hot=where["journal"])
        if where["foreign"]:
            add_foreign(root, where["foreign"])
        rows = values(
            store,
            f"""SELECT epoch_ms(candle_begin_time), source = 'archive', coalesce(trade_num, {UNKNOWN}),
                CASE WHEN trade_num IS NOT NULL THEN 0 ELSE volume END,
                epoch_us(recv_time) FROM candles""",
        )
    # The engine folds isnan() by a file's statistics, which leave NaN out.
    found = [(*key, -math.inf if math.isnan(volume) else volume, at) for *key, volume, at in rows]
    assert sorted(found) == sorted((begin_ms, *wins) for begin_ms, wins in best.items())


@pytest.mark.parametrize(
    "name",
    [
        "it's a lake",
        'a "quoted" one',
        "数据 湖",
        "globs [ab] * ? {x}",
        "$HOME;--",
        "{start} back\\slash\nline",
        "market=x%20",
        "symbol=OTHER",
        "interval=5m",
        "date=2020-01-01/lake",
        "it's/Date=x/数据",
    ],
)
def test_root_may_have_any_name(tmp_path: Path, name: str) -> None:
    """Spaces, quotes, wildcards and partition-like names in the lake's path do not change answers."""
    symbols = ("BTCUSDT", "币USDT")
    files = [rest_candle(number, symbol=symbol) for symbol in symbols for number in (0, 1440)]
    store = make_lake(tmp_path / name, files, hot=[rest_candle(1), rest_candle(0)])
    add_foreign(store.root, [rest_candle(0, symbol=symbol) for symbol in symbols][:1])
    sql = (
        'SELECT market, symbol, "interval", "date"::VARCHAR, count(*) FROM candles GROUP BY ALL ORDER BY ALL'
    )
    assert values(store, sql) == [
        ("spot", "BTCUSDT", "1m", "2024-06-30", 2),
        ("spot", "BTCUSDT", "1m", "2024-07-01", 1),
        ("spot", "币USDT", "1m", "2024-06-30", 1),
        ("spot", "币USDT", "1m", "2024-07-01", 1),
    ]
    one = "SELECT count(*) FROM candles WHERE symbol = 'BTCUSDT' AND \"date\" = '2024-07-01'"
    assert values(store, one) == [(1,)]


def test_chinese_symbol_and_its_percent_encoded_directory(tmp_path: Path) -> None:
    """A symbol's plain and percent-encoded directories are one series."""
    symbol = "币安人生USDT"
    store = make_lake(tmp_path, [rest_candle(0, symbol=symbol)])
    encoded = "%E5%B8%81%E5%AE%89%E4%BA%BA%E7%94%9FUSDT"
    rows = to_table([rest_candle(0, symbol=symbol), rest_candle(1, symbol=symbol)])
    write_parquet(tmp_path, f"market=spot/symbol={encoded}/interval=1m/date=2024-06-30", rows)
    assert values(store, "SELECT symbol, count(*) FROM candles GROUP BY symbol") == [(symbol, 2)]


@pytest.mark.parametrize(("symbol", "interval"), [("1F", "1d"), ("1E5", "1d"), ("001", "1h")])
def test_symbols_and_intervals_are_text_whatever_they_look_like(
    tmp_path: Path, symbol: str, interval: str
) -> None:
    """An interval such as `1d`, or a symbol like a number, is read as text."""
    store = make_lake(tmp_path, [rest_candle(0, symbol=symbol, interval=interval)])
    sql = 'SELECT symbol, "interval" FROM candles WHERE "interval" = $interval AND symbol = $symbol'
    assert values(store, sql, interval=interval, symbol=symbol) == [(symbol, interval)]


def test_times_are_utc_whatever_the_machine_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Literals, days and answers are UTC in any local time zone."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    store = make_lake(tmp_path, [rest_candle(0)])
    assert values(store, "SELECT candle_begin_time, candle_begin_time::DATE::VARCHAR FROM candles") == [
        (datetime(2024, 6, 30, tzinfo=UTC), "2024-06-30")
    ]
    assert values(store, "SELECT count(*) FROM candles WHERE candle_begin_time = '2024-06-30 00:00:00'") == [
        (1,)
    ]


class Compacting(LakeStore):
    """A lake where compaction folds a foreign file between listing and reading."""

    victims: list[Path]
    listings = 0

    def files(self, wanted: PartitionFilter = ALL) -> Iterator[PartitionFiles]:
        found = list(super().files(wanted))
        self.listings += 1
        if self.victims:
            self.victims.pop().unlink()
        return iter(found)


def test_file_that_vanishes_is_no_matter(tmp_path: Path) -> None:
    """If a listed file vanishes before it is read, the query lists again."""
    make_lake(tmp_path, [rest_candle(0), rest_candle(1)])
    store = Compacting.local(tmp_path)
    store.victims = [add_foreign(tmp_path, [rest_candle(1)], f"part-{n}.parquet") for n in range(2)]
    assert values(store, "SELECT count(*), sum(open) FROM candles") == [(2, 201.0)]
    assert store.listings == 3


def test_files_that_keep_vanishing_are_told(tmp_path: Path) -> None:
    """After a bounded number of listings the error says what to do."""
    make_lake(tmp_path, [rest_candle(0)])
    store = Compacting.local(tmp_path)
    store.victims = [add_foreign(tmp_path, [rest_candle(1)], f"part-{n}.parquet") for n in range(TRIES_MAX)]
    with pytest.raises(LakeError, match="No such file") as raised:
        run(store, "SELECT count(*) FROM candles")
    assert "try again" in raised.value.hint
    assert store.listings == TRIES_MAX


def test_unreadable_file_is_named(tmp_path: Path) -> None:
    """An unreadable own file is an error with its name, never an answer without it."""
    store = make_lake(tmp_path, [rest_candle(0)])
    own = tmp_path / "market=spot/symbol=BTCUSDT/interval=1m/date=2024-06-30" / FILE_NAME
    own.write_bytes(b"this is not Parquet at all")
    with pytest.raises(LakeError, match=r"candles\.parquet: not a readable Parquet file"):
        run(store, "SELECT max(high) FROM candles")


def test_rows_come_in_batches(tmp_path: Path) -> None:
    """A large answer is never held in memory as a whole."""
    with stream(make_lake(tmp_path), "SELECT range AS n FROM range(3000000)") as answer:
        sizes = [batch.num_rows for batch in answer.batches]
    assert sum(sizes) == 3_000_000
    assert max(sizes) <= 150_000


def test_columns_of_one_name_are_told_apart(tmp_path: Path) -> None:
    """No two columns of an answer have the same name."""
    table = run(make_lake(tmp_path), "SELECT 1 AS a, 2 AS a, 3 AS a_1")
    assert table.column_names == ["a", "a_1", "a_1_1"]


def test_parameters_are_values_never_sql(tmp_path: Path) -> None:
    """A parameter's text is compared as a value, and never runs as SQL."""
    store = make_lake(tmp_path, [rest_candle(0)])
    sql = "SELECT count(*) FROM candles WHERE symbol = $s"
    assert values(store, sql, s="BTCUSDT") == [(1,)]
    assert values(store, sql, s="' OR 1=1 --") == [(0,)]


def test_missing_and_unknown_parameters_are_named(tmp_path: Path) -> None:
    """A missing or unknown parameter is a usage error with its name."""
    store = make_lake(tmp_path)
    with pytest.raises(UsageError, match=r"\$s has no value"):
        run(store, "SELECT $s")
    with pytest.raises(UsageError, match="no parameter t") as raised:
        run(store, "SELECT $s", {"s": 1, "t": 2})
    assert raised.value.hint == "parameters: s"


_TIMES_HINT = "a time is 2024-06-30, 2024-06-30 12:00, or an age such as 7d; a bucket is 15m, 1h, 1d or 1mo"


@pytest.mark.parametrize(
    ("sql", "hint"),
    [
        ("SELECT time FROM candles", "the column is called candle_begin_time here"),
        ("SELECT Timeframe FROM candles", "the column is called interval here"),
        ("FROM resample('spot', 'BTCUSDT', 1m, '15m')", "put text in single quotes: '1m'"),
        ("SELECT 1; SELECT 2", "lakewriter shell < FILE.sql runs several"),
        ("FROM candles_of('spot', 'BTCUSDT', '1m', since := '7x')", _TIMES_HINT),
        ("FROM candles_of('spot', 'BTCUSDT', '1m', since := 'yesterday')", _TIMES_HINT),
        ("FROM resample('spot', 'BTCUSDT', '1m', '1x')", _TIMES_HINT),
        (
            "FROM candles JOIN (SELECT 1719705780000 AS time) ON candle_begin_time <= time",
            "to_timestamp(t.time / 1000) is a time from milliseconds since 1970",
        ),
        (
            "FROM candles JOIN (SELECT '30/06/2024'::VARCHAR AS time) AS t ON t.time >= candle_begin_time",
            "t.time::TIMESTAMPTZ is a time; strptime(t.time, '%d/%m/%Y %H:%M') reads other forms",
        ),
    ],
)
def test_what_others_would_write_is_told_from_what_is_written_here(
    tmp_path: Path, sql: str, hint: str
) -> None:
    """The first hint for another tool's name or interval is the lake's."""
    with pytest.raises(QueryError) as raised:
        run(make_lake(tmp_path, [rest_candle(0)]), sql)
    assert raised.value.hint.splitlines()[0] == hint


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELEC 1", 'sql: syntax error at or near "SELEC"'),
        ("SELECT nope FROM candles", 'sql: Referenced column "nope" not found in FROM clause!'),
        ("SELECT nope(1)", "sql: Scalar Function with name nope does not exist!"),
        ("SELECT error('boo')", "sql: boo"),
        ("SELECT 'x'::INT FROM range(3)", "sql: Could not convert string 'x' to INT32"),
        ("", "sql: there is no statement"),
        ("-- nothing", "sql: there is no statement"),
    ],
)
def test_broken_sql_is_one_clean_line(tmp_path: Path, sql: str, message: str) -> None:
    """The message is the engine's first line, the hint the position, and the exit code 1."""
    with pytest.raises(QueryError) as raised:
        run(make_lake(tmp_path), sql)
    assert raised.value.what == message
    assert raised.value.exit_code == 1


@pytest.mark.parametrize(
    ("sql", "hint"),
    [
        ('FROM candles WHERE symbol = "BTCUSDT"', "put text in single quotes: 'BTCUSDT'"),
        ("FROM candles WHERE symbol = ETHUSDT", "put text in single quotes: 'ETHUSDT'"),
        (
            "SELECT latest() FROM candles",
            "FROM latest(since := '1970-01-01')",
        ),
        ("SELECT closee FROM candles", 'Candidate bindings: "close"'),
    ],
)
def test_common_mistake_is_answered_with_its_cure(tmp_path: Path, sql: str, hint: str) -> None:
    """The hint for a common mistake shows the correct form."""
    with pytest.raises(QueryError) as raised:
        run(make_lake(tmp_path), sql)
    assert raised.value.hint.startswith(hint)


def test_partitions_can_be_asked(tmp_path: Path) -> None:
    """`partitions` has one row per directory with files."""
    store = make_lake(tmp_path, [rest_candle(0), rest_candle(1440)], hot=[rest_candle(2880)])
    assert values(store, 'SELECT "date"::VARCHAR, files FROM partitions ORDER BY 1') == [
        ("2024-06-30", 1),
        ("2024-07-01", 1),
    ]


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A query leaves no file in the lake, nor in the temporary directory."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    store = make_lake(tmp_path / "lake", [rest_candle(n) for n in range(100)])
    before = sorted(tmp_path.rglob("*"))
    run(store, "SELECT * FROM candles, range(2000) ORDER BY hash(range)")
    assert sorted(tmp_path.rglob("*")) == before


def test_many_threads_may_ask_at_once(tmp_path: Path) -> None:
    """Concurrent statements of several threads do not affect each other."""
    store = make_lake(tmp_path, [rest_candle(n) for n in range(10)], hot=[rest_candle(10)])
    answers: list[object] = []

    def ask() -> None:
        answers.extend(values(store, "SELECT count(*) FROM candles") for _ in range(3))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [[(11,)]] * 18


def test_leaving_a_stream_early_stops_it(tmp_path: Path) -> None:
    """Leaving a stream early returns at once, and leaves no work running."""
    store = make_lake(tmp_path)
    before = set(threading.enumerate())  # an earlier test's engine may be deaf and work on
    with stream(store, "SELECT range FROM range(100000000000)") as answer:
        assert next(iter(answer.batches)).num_rows > 0
        [ours] = [each for each in set(threading.enumerate()) - before if each.name.startswith("query")]
    wait_until(lambda: not ours.is_alive())
    assert [left.name for left in tmp_path.iterdir()] == ["_lakewriter"]
