"""Queries of a lake on an object store: the same answers as on a disk, with few requests."""

import threading
from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest

from lakewriter.candle import to_table
from lakewriter.errors import EmptyAnswerWarning, LakeError, LakewriterError, UsageError
from lakewriter.instrument import Instrument
from lakewriter.lake.coverage.days import coverage
from lakewriter.lake.forgotten import ForgetPurpose, Removed, record_finish, record_start
from lakewriter.lake.instruments import record_instruments
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.open import open_to_read
from lakewriter.lake.parquet import encode
from lakewriter.lake.partition_filter import PartitionFilter
from lakewriter.lake.prefetch import PENDING_MAX
from lakewriter.partition import partition_of
from lakewriter.query.errors import QueryError
from lakewriter.query.limits import QueryLimits
from lakewriter.query.python.reader import open_lake
from lakewriter.query.session import run, stream
from lakewriter.series import Series
from support.lakes import BEGIN_MS, add_foreign, make_lake, rest_candle, write_parquet
from support.lengths import either
from support.living_recorder import LivingRecorder, mark_gap, start_recorder
from support.object_store import Request, Store, environment, refusal
from support.running import PATIENCE_S
from support.statements import ALL_ROWS, PARAMS, PREDICATES, STATEMENTS, as_statement, in_any_order

pytestmark = pytest.mark.slow

TABLES = ("partitions", "gaps", "coverage", "instruments", "subscriptions", "forgotten")


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    started = Store()
    yield started
    started.close()


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> LakeStore:
    """Candles in own files, a third of them also in foreign files, with winners and losers."""
    root = tmp_path_factory.mktemp("local") / "lake"
    lake = make_lake(root, ALL_ROWS)
    worse = [msgspec.structs.replace(one, trade_num=0, source="rest", high=1e6) for one in ALL_ROWS[::3]]
    better = [msgspec.structs.replace(one, trade_num=10**6, source="archive") for one in ALL_ROWS[::9]]
    for name, rows in (("part-0.parquet", worse), ("part-1.parquet", better)):
        for _, of_one in groupby(rows, partition_of):
            add_foreign(root, list(of_one), name)
    recorder = LivingRecorder(root)
    mark_gap(recorder, 2, 4, "exchange_halt")
    recorder.die()
    record_instruments(lake, "spot", [Instrument("BTCUSDT", "TRADING")], BEGIN_MS)
    series, purpose = Series("spot", "BTCUSDT", "1m"), ForgetPurpose("someone on a host", "", (), BEGIN_MS)
    start_recorder(lake, series, now_ms=BEGIN_MS).close()
    went = {series: Removed([(BEGIN_MS - 60_000, BEGIN_MS)], 1, 0)}
    record_finish(lake, record_start(lake, went, purpose), went, purpose, BEGIN_MS)
    return lake


@pytest.fixture(scope="module")
def remote(store: Store, local: LakeStore) -> LakeStore:
    return open_to_read(store.upload(local.root, "a lake/copied"))


def asked(store: Store, lake: LakeStore, sql: str) -> pa.Table:
    """Return an answer; the store's list then has only its requests."""
    store.requests.clear()
    return run(lake, sql)


@pytest.mark.parametrize(
    "sql",
    [
        *map(as_statement, PREDICATES[:: either(250, 6)]),
        *STATEMENTS[:: either(150, 5)],
        *(f"FROM {name}" for name in TABLES),
    ],
)
def test_answers_are_the_local_ones(local: LakeStore, remote: LakeStore, sql: str) -> None:
    """Statements over own and foreign files give the same answer in a store as on a disk."""
    params = {name: value for name, value in PARAMS.items() if f"${name}" in sql}
    assert in_any_order(run(remote, sql, params)) == in_any_order(run(local, sql, params))


def test_ledgers_are_there(remote: LakeStore) -> None:
    """The tables of ledgers have rows, so their comparison is not empty."""
    for name in TABLES:
        assert run(remote, f"FROM {name}").num_rows


@pytest.fixture(scope="module")
def long(store: Store, tmp_path_factory: pytest.TempPathFactory) -> LakeStore:
    """Three symbols in two markets, thirty days."""
    root = tmp_path_factory.mktemp("long")
    rows = [
        rest_candle(day * 288, interval="5m", symbol=symbol, market=market)
        for market in ("spot", "usdt_futures")
        for symbol in ("BTCUSDT", "ETHUSDT", "币安USDT")
        for day in range(30)
    ]
    make_lake(root, rows)
    return open_to_read(store.upload(root, "long"))


THREE_DAYS = "\"date\" BETWEEN '2024-07-02' AND '2024-07-04'"


def test_days_of_a_series_are_asked_for_alone(store: Store, long: LakeStore) -> None:
    """For three days of one series only these days are listed, and each file takes one request."""
    where = f"market = 'spot' AND symbol = 'BTCUSDT' AND \"interval\" = '5m' AND {THREE_DAYS}"
    assert asked(store, long, f"SELECT close FROM candles WHERE {where}").num_rows == 3
    assert store.counted() == {"LIST": 3, "GET": 3}
    days = tuple(f"market=spot/symbol=BTCUSDT/interval=5m/date=2024-07-0{day}/" for day in (2, 3, 4))
    assert all(key.startswith(days) for key in store.asked("long"))


def test_other_symbols_are_not_listed(store: Store, long: LakeStore) -> None:
    """A query on a symbol lists nothing of other symbols, and no level above, for each market."""
    sql = f"SELECT close FROM candles WHERE symbol = 'BTCUSDT' AND {THREE_DAYS}"
    assert asked(store, long, sql).num_rows == 6
    assert all("/symbol=BTCUSDT/" in f"/{key}" for key in store.asked("long"))
    # For its intervals in three markets, and three days in each that has it.
    assert store.counted() == {"LIST": 3 + 2 * 3, "GET": 6}


def test_symbols_that_tools_spell_otherwise_are_looked_for(store: Store, long: LakeStore) -> None:
    """A symbol that may be percent-encoded is found by a listing, and only its series is read."""
    sql = "SELECT close FROM candles WHERE symbol = '币安USDT' AND market = 'spot'"
    assert asked(store, long, sql).num_rows == 30
    # Its symbols, its series with their days.
    assert store.counted() == {"LIST": 2, "GET": 30}


def test_series_is_listed_in_one_go(store: Store, long: LakeStore) -> None:
    """One listing returns all days of a series with their files."""
    sql = "SELECT count(*) FROM candles WHERE market = 'spot' AND symbol = 'BTCUSDT' AND \"interval\" = '5m'"
    assert asked(store, long, sql).to_pylist() == [{"count_star()": 30}]
    assert store.counted() == {"LIST": 1, "GET": 30}


def test_many_days_of_many_series(store: Store, long: LakeStore) -> None:
    """Many days of many series take one listing for each symbol, not one for each day."""
    assert asked(store, long, f"SELECT close FROM candles WHERE {THREE_DAYS}").num_rows == 18
    levels = 3 + 6  # markets' symbols, symbols' intervals
    assert store.counted()["LIST"] == levels + 6 * 3
    sql = "SELECT close FROM candles WHERE \"date\" BETWEEN '2024-07-02' AND '2024-07-11'"
    assert asked(store, long, sql).num_rows == 60
    assert store.counted() == {"LIST": levels, "GET": 60}


def test_intervals_of_a_symbol(store: Store, tmp_path: Path) -> None:
    """All intervals of a symbol take one listing. Some intervals list nothing of the others."""
    intervals = ("1s", "1m", "5m", "15m", "1h", "1d")
    candles = [rest_candle(n, interval=each) for each in intervals for n in range(3)]
    make_lake(tmp_path, candles)
    lake = open_to_read(store.upload(tmp_path, "intervals"))
    assert (
        asked(store, lake, "SELECT close FROM candles WHERE symbol = 'BTCUSDT' AND market = 'spot'").num_rows
        == 18
    )
    assert store.counted() == {"LIST": 1, "GET": 6}
    assert asked(store, lake, "FROM partitions").num_rows == 6
    assert store.counted() == {"LIST": 3 + 1}
    some = "market = 'spot' AND symbol = 'BTCUSDT' AND \"interval\" IN ('5m', '15m', '1h')"
    assert asked(store, lake, f"SELECT close FROM candles WHERE {some}").num_rows == 9
    assert store.counted() == {"LIST": 1 + 3, "GET": 3}
    assert not [key for key in store.asked("intervals") if "interval=1s" in key]


def test_each_scan_fetches_what_it_needs(store: Store, long: LakeStore) -> None:
    """A join of two symbols fetches each file once."""
    sql = (
        "SELECT count(*) FROM candles a JOIN candles b USING (market, candle_begin_time) "
        "WHERE a.symbol = 'BTCUSDT' AND b.symbol = 'ETHUSDT' AND market = 'spot'"
    )
    assert asked(store, long, sql).to_pylist() == [{"count_star()": 30}]
    assert store.counted()["GET"] == 60


def test_what_cannot_be_is_not_asked_for(store: Store, long: LakeStore) -> None:
    """Names that cannot be directories of a lake cause no request."""
    for symbol in ("../../other", "a/b", "x?y#z", "''", ".", "%2e%2e"):
        assert asked(store, long, f"FROM candles WHERE symbol = '{symbol}'").num_rows == 0
        assert store.requests == []


def test_partitions_are_measured_by_listing(store: Store, long: LakeStore) -> None:
    """The sizes of files come from listings, and no file is opened."""
    assert asked(store, long, "FROM partitions").num_rows == 180
    assert set(store.counted()) == {"LIST"}


def test_coverage_reads_many_at_once(store: Store, long: LakeStore) -> None:
    """Coverage requests many files at the same time."""
    store.requests.clear()
    together = threading.Barrier(10)  # of the 30 gets; one after another they would wait in vain

    def hook(request: Request) -> None:
        if request.verb == "GET":
            together.wait(PATIENCE_S)

    with store.misbehaving(hook):
        days = list(coverage(long, PartitionFilter(("spot",), ("BTCUSDT",))))
    assert len(days) == 30
    # Ledgers, recorders of hosts, days; each file was listed with its day.
    assert store.counted() == {"LIST": 6, "GET": 30}


def test_hostile_keys(store: Store, tmp_path: Path) -> None:
    """Keys that only resemble a lake's are skipped at each level, and so are markers of directories."""
    make_lake(tmp_path, [rest_candle(0)])
    uri = store.upload(tmp_path, "hostile")
    partition = partition_of(rest_candle(0)).path
    data = (tmp_path / partition / "candles.parquet").read_bytes()
    for key in (
        "market=spot/symbol=..%2F../interval=1m/date=2024-06-30/candles.parquet",
        "market=spot/symbol=a b/interval=1m/date=2024-06-30/candles.parquet",
        "market=nowhere/symbol=BTCUSDT/interval=1m/date=2024-06-30/candles.parquet",
        "market=spot/symbol=BTCUSDT/interval=7m/date=2024-06-30/candles.parquet",
        "market=spot/symbol=BTCUSDT/interval=1m/date=2024-06-31/candles.parquet",
        "market=spot/symbol=BTCUSDT/interval=1m/date=/candles.parquet",
        "market=spot/symbol=BTCUSDT/interval=1m/candles.parquet",
        "market=spot/candles.parquet",
        "candles.parquet",
        f"{partition}/deeper/candles.parquet",
        f"{partition}/.hidden.parquet",
        f"{partition}/_success.parquet",
        f"{partition}/notes.txt",
        f"{partition}/",
        "market=spot/",
        "_lakewriter/gaps/" + "n" * 300 + ".json",
    ):
        store.put(f"hostile/{key}", b"" if key.endswith("/") else data)
    lake = open_to_read(uri)
    assert run(lake, "SELECT count(*) AS n FROM candles").to_pylist() == [{"n": 1}]
    assert run(lake, "SELECT files FROM partitions").to_pylist() == [{"files": 1}]
    assert run(lake, "FROM gaps").num_rows == 0


def test_directory_that_somebody_spelled_with_percent_signs(store: Store, tmp_path: Path) -> None:
    """A percent-encoded directory belongs to the same partition, and each candle is there once."""
    symbol = "币USDT"
    make_lake(tmp_path, [rest_candle(0, symbol=symbol)])
    encoded = "market=spot/symbol=%E5%B8%81USDT/interval=1m/date=2024-06-30"
    write_parquet(tmp_path, encoded, to_table([rest_candle(0), rest_candle(1)]), "part.parquet")
    lake = open_to_read(store.upload(tmp_path, "encoded"))
    assert run(lake, f"SELECT count(*) AS n FROM candles WHERE symbol = '{symbol}'").to_pylist() == [{"n": 2}]


def test_file_in_our_place_with_other_types(store: Store, tmp_path: Path) -> None:
    """A foreign `candles.parquet` is read by the rules for foreign files."""
    make_lake(tmp_path)
    table = to_table([rest_candle(0), rest_candle(1)])
    odd = table.set_column(2, "open", table["open"].cast(pa.float32())).append_column("more", [[1, 2]])
    write_parquet(
        tmp_path, partition_of(rest_candle(0)).path, odd.drop_columns(["event_time"]), "candles.parquet"
    )
    lake = open_to_read(store.upload(tmp_path, "odd"))
    sql = "SELECT symbol, open, event_time FROM candles WHERE open > 100"
    assert run(lake, sql).to_pylist() == [{"symbol": "BTCUSDT", "open": 101.0, "event_time": None}]


def test_file_that_is_none(store: Store, tmp_path: Path) -> None:
    """A damaged file is an error of one line with its name."""
    make_lake(tmp_path, [rest_candle(0), rest_candle(1440)])
    lake = open_to_read(store.upload(tmp_path, "damaged"))
    name = partition_of(rest_candle(0)).file
    store.put(f"damaged/{name}", b"no such thing")
    with pytest.raises(LakeError) as raised:
        run(lake, "SELECT sum(close) FROM candles")
    assert raised.value.what.startswith(f"s3://bucket/damaged/{name}: not a readable Parquet file of candles")
    assert "\n" not in raised.value.what


def test_object_replaced_between_listing_and_reading(store: Store, tmp_path: Path) -> None:
    """If a file is replaced after the listing, the answer has the whole new file."""
    make_lake(tmp_path, [rest_candle(n) for n in range(10)])
    lake = open_to_read(store.upload(tmp_path, "replaced"))
    name = partition_of(rest_candle(0)).file
    for rows in (700, 1000):
        make_lake(tmp_path, [rest_candle(n) for n in range(rows)])
        new = (tmp_path / name).read_bytes()
        key = f"replaced/{name}"
        with store.before(Request("GET", key), lambda key=key, new=new: store.put(key, new)) as left:
            answer = run(lake, "SELECT count(*) AS n, sum(close) AS s FROM candles")
        assert left == []
        assert answer.to_pylist() == [{"n": rows, "s": sum(101.0 + n for n in range(rows))}]


def test_file_that_is_folded_while_we_look(store: Store, tmp_path: Path) -> None:
    """If a listed file vanishes, the lake is listed again."""
    make_lake(tmp_path, [rest_candle(n) for n in range(5)])
    foreign = add_foreign(tmp_path, [rest_candle(7)])
    lake = open_to_read(store.upload(tmp_path, "folded"))
    key = f"folded/{foreign.relative_to(tmp_path)}"
    own = f"folded/{partition_of(rest_candle(0)).file}"
    make_lake(tmp_path, [rest_candle(7)])
    new = (tmp_path / partition_of(rest_candle(0)).file).read_bytes()

    def fold() -> None:
        store.put(own, new)
        store.delete(key)

    with store.before(Request("GET", key), fold):
        assert run(lake, "SELECT count(*) AS n FROM candles").to_pylist() == [{"n": 6}]
    with store.before(Request("GET", own), lambda: store.delete(own)):
        assert run(lake, "SELECT count(*) AS n FROM candles").to_pylist() == [{"n": 0}]


def test_file_that_is_listed_and_never_there(store: Store, tmp_path: Path) -> None:
    """A file that is always listed and never there is an error of one line."""
    make_lake(tmp_path, [rest_candle(0)])
    lake = open_to_read(store.upload(tmp_path, "phantom"))
    name = partition_of(rest_candle(0)).file
    with (
        store.misbehaving(
            lambda request: (
                refusal("404 Not Found", "NoSuchKey", "") if request.key == f"phantom/{name}" else None
            )
        ),
        pytest.raises(
            LakeError, match=rf"^lake: s3://bucket/phantom/{name}: No such file or directory(\n|$)"
        ),
    ):
        run(lake, "FROM candles")


def test_store_that_fails_halfway(store: Store, long: LakeStore) -> None:
    """The store's error during a download is raised as such, not as the engine's error."""
    with (
        store.misbehaving(
            lambda request: refusal("403 Forbidden", "AccessDenied", "") if request.verb == "GET" else None
        ),
        pytest.raises(
            LakeError,
            match=r"^lake: s3://bucket/long/market=.*candles\.parquet: AccessDenied \(HTTP status 403\)(\n|$)",
        ),
    ):
        run(long, "SELECT sum(close) FROM candles")


def test_errors_of_sql_stay_those_of_sql(long: LakeStore) -> None:
    """An error of the statement while rows arrive is a QueryError, as on a disk."""
    with pytest.raises(QueryError, match=r"^sql: "):
        run(long, "SELECT error('no') FROM candles")
    with pytest.raises(QueryError, match="Could not convert"):
        run(long, "SELECT symbol::INT FROM candles")
    with pytest.raises(UsageError, match="there is no parameter x"):
        run(long, "FROM candles", {"x": 1})


def test_time_is_bounded(store: Store, long: LakeStore) -> None:
    """A statement that waits for the store ends at its timeout."""
    silent = threading.Event()

    def hook(_: Request) -> None:
        silent.wait(2 * PATIENCE_S)

    try:
        with store.misbehaving(hook), pytest.raises(QueryError, match=r"not done after 0\.5 s"):
            run(long, "SELECT sum(close) FROM candles", limits=QueryLimits(timeout_s=0.5))
    finally:
        silent.set()


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM read_parquet('s3://bucket/long/**')",
        "SELECT * FROM '/etc/passwd'",
        "COPY (FROM candles) TO '/tmp/x.parquet'",
        "SELECT * FROM served_settled",
        "SELECT * FROM temp.main.served_settled",
        "SET enable_external_access = true",
        "ATTACH 'x.duckdb'",
    ],
)
def test_nothing_else_can_be_read_or_written(long: LakeStore, sql: str) -> None:
    """SQL has the lake's tables only, and no file of any disk."""
    with pytest.raises(LakewriterError):
        run(long, sql)


def test_rows_come_before_all_is_fetched(store: Store, long: LakeStore) -> None:
    """The first rows arrive before the last file, and the files in flight are bounded."""
    enough = threading.Event()

    def hook(request: Request) -> None:
        if request.verb == "GET" and store.counted()["GET"] > 3 * PENDING_MAX:
            enough.wait(2 * PATIENCE_S)

    store.requests.clear()
    try:
        with store.misbehaving(hook), stream(long, "SELECT close FROM candles LIMIT 1") as answer:
            assert sum(batch.num_rows for batch in answer.batches) == 1
            assert store.counted()["GET"] <= 4 * PENDING_MAX
    finally:
        enough.set()


def test_lake_from_python(store: Store, long: LakeStore) -> None:
    """A lake in a store is opened, and a series read without SQL, as on a disk."""
    lake = open_lake(store.uri("long"))
    assert repr(lake) == "Lake('s3://bucket/long')"
    store.requests.clear()
    frame = lake.candles("spot", "BTCUSDT", "5m", start="2024-07-02", stop="2024-07-05")
    assert len(frame) == 3
    assert store.counted() == {"LIST": 3, "GET": 3}
    assert len(lake.candles("spot", "币安USDT", "5m")) == 30
    series = lake.series("spot", interval="5m")
    matrix = lake.matrix("close", "spot", "*", "5m")
    assert list(matrix) == sorted(series["symbol"]) and matrix.count().tolist() == series["candles"].tolist()
    with pytest.warns(EmptyAnswerWarning, match="spot NOUSDT 5m has none in this range"):
        assert lake.candles("spot", "NOUSDT", "5m").empty
    assert lake.query("SELECT max(close) FROM candles").rows() == [(101.0 + 29 * 288,)]


def test_gaps_of_a_copied_lake(store: Store, tmp_path: Path) -> None:
    """A copied lake's recorder is not alive here, so pending gaps have no reason."""
    make_lake(tmp_path, [rest_candle(n) for n in (0, 1, 4, 5)])
    recorder = LivingRecorder(tmp_path)
    mark_gap(recorder, 2, 4)
    lake = open_to_read(store.upload(tmp_path, "pending"))
    recorder.die()
    assert run(lake, "SELECT candles, reason, error FROM gaps").to_pylist() == [
        {"candles": 2, "reason": "pending", "error": "its recorder ended before it was healed"}
    ]


def test_hot_rows_are_those_of_the_state_directory(store: Store, tmp_path: Path) -> None:
    """The local journal's rows belong to the answer, and win over the store's for the same key."""
    make_lake(tmp_path / "lake", [rest_candle(n) for n in range(3)])
    uri = store.upload(tmp_path / "lake", "hot")
    with environment(XDG_STATE_HOME=str(tmp_path / "state")):
        lake = open_to_read(uri)
    make_lake(lake.state_dir, hot=[rest_candle(1, trade_num=11, close=1.0), rest_candle(3, close=2.0)])
    answer = run(lake, "SELECT close FROM candles ORDER BY candle_begin_time")
    assert answer["close"].to_pylist() == [101.0, 1.0, 103.0, 2.0]


def test_objects_replaced_all_the_while(store: Store, tmp_path: Path) -> None:
    """During replacements each answer has each file's old or new version, and none fails."""
    symbols = [f"S{number}USDT" for number in range(4)]
    lengths = [1 + 37 * number % 300 for number in range(40)]
    make_lake(tmp_path, [rest_candle(0, symbol=symbol) for symbol in symbols])
    lake = open_to_read(store.upload(tmp_path, "busy"))
    partitions = {partition_of(rest_candle(0, symbol=symbol)).file: Counter[str]() for symbol in symbols}
    tables = [to_table([rest_candle(n) for n in range(length)]) for length in lengths]
    files = [encode(table, partition_of(rest_candle(0))) for table in tables]

    def replace(request: Request) -> None:
        seen = partitions.get(request.key.removeprefix("busy/"))
        if seen is not None:
            seen[request.verb] += 1
            if request.verb == "GET" and seen["GET"] % 2:
                store.put(request.key, files[seen["GET"] // 2 % len(files)])

    with store.misbehaving(replace):
        for _ in range(either(8, 40)):
            answer = run(lake, "SELECT symbol, count(*) AS n, sum(close) AS s FROM candles GROUP BY symbol")
            assert sorted(answer["symbol"].to_pylist()) == symbols
            for n, total in zip(answer["n"].to_pylist(), answer["s"].to_pylist(), strict=True):
                assert n in lengths
                assert total == sum(101.0 + number for number in range(n))
    assert all(seen["GET"] >= either(8, 20) for seen in partitions.values())


def test_damaged_footers(store: Store, tmp_path: Path) -> None:
    """A file with a damaged footer is refused or read in part, and the process survives."""
    make_lake(tmp_path, [rest_candle(n) for n in range(10)])
    lake = open_to_read(store.upload(tmp_path, "footer"))
    name = partition_of(rest_candle(0)).file
    whole = (tmp_path / name).read_bytes()
    footer_bytes = int.from_bytes(whole[-8:-4], "little")
    refused = 0
    for at in range(len(whole) - 8 - footer_bytes, len(whole) - 8, footer_bytes // either(12, 60)):
        damaged = bytearray(whole)
        damaged[at] ^= 0x11
        store.put(f"footer/{name}", bytes(damaged))
        try:
            answer = run(lake, "SELECT count(*) AS n FROM candles WHERE close > 104 AND trade_num = 10")
            assert answer.to_pylist() == [{"n": 6}]
        except LakeError as error:
            refused += 1
            assert f"s3://bucket/footer/{name}" in error.what
    assert refused
