"""The options, the slices and the rows of Spark's data source, without Spark."""

import pickle
import shutil
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
import pytest

from lakewriter.errors import UsageError
from lakewriter.interval import DAY_MS
from lakewriter.query.schema import COLUMNS
from lakewriter.query.spark_source import slices
from lakewriter.query.spark_source.request import OPTIONS, TABLES, parse_options
from lakewriter.query.spark_source.rows import read_slice
from lakewriter.query.spark_source.slices import plan_slices
from support.lakes import BEGIN_MS, add_foreign, make_lake, rest_candle, rows_of_sql
from support.seaweed import Bucket

CHINESE = "币安人生USDT"
NOW_MS = BEGIN_MS + 10 * DAY_MS


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """Three symbols, one with a name like a number: a candle of 1m for six days, and six of 1d."""
    root = tmp_path / "lake"
    make_lake(
        root,
        [
            rest_candle(step * number, interval=interval, symbol=symbol)
            for symbol in ("BTCUSDT", CHINESE, "001")
            for interval, step in (("1m", 1440), ("1d", 1))
            for number in range(6)
        ],
    )
    return root


def read(path: Path | str, **options: str) -> pa.Table:
    """Return the rows as Spark gets them: each slice crosses to another process by pickle."""
    request = parse_options(options | {"path": str(path)}, NOW_MS)
    planned = [pickle.loads(pickle.dumps((request, each))) for each in plan_slices(request)]
    batches = [batch for arrived, each in planned for batch in read_slice(arrived, each)]
    return pa.Table.from_batches(batches, request.schema)


def test_all_rows_are_those_of_sql(lake: Path) -> None:
    """Without options the rows and columns equal those of `FROM candles`."""
    table = read(lake)
    assert table.schema.names == list(COLUMNS)
    store = make_lake(lake)
    mine = sorted(tuple(row.values()) for row in table.drop_columns(["recv_time", "event_time"]).to_pylist())
    theirs = rows_of_sql(store, "SELECT * EXCLUDE (recv_time, event_time) FROM candles")
    assert len(mine) == 36
    assert [[str(value) for value in row] for row in mine] == [
        [str(value) for value in row] for row in sorted(theirs)
    ]


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({"symbols": "btcusdt"}, 12),
        ({"symbols": "币安*, 00?", "intervals": "1d"}, 12),
        ({"markets": "spot", "intervals": "1m,1d"}, 36),
        ({"since": "2024-07-01", "intervals": "1m"}, 15),
        ({"until": "2024-07-01", "intervals": "1m"}, 3),
        ({"until": "2024-06-30T00:00:00.001Z"}, 6),
        ({"since": "2024-07-01", "until": "2024-07-03", "symbols": "BTCUSDT"}, 4),
        ({"since": "7d", "symbols": "001"}, 6),
        ({"since": "2030-01-01"}, 0),
        ({"since": "2030-01-01", "symbols": "001"}, 0),
    ],
)
def test_options_select_rows(lake: Path, options: dict[str, str], count: int) -> None:
    """Names, globs and times select; `since` is in and `until` is out. A day without candles has no rows."""
    assert read(lake, **options).num_rows == count


def test_columns_are_in_the_callers_order(lake: Path) -> None:
    """The schema and the DDL have the chosen columns only."""
    request = parse_options({"path": str(lake), "columns": "close, symbol,interval,close"}, NOW_MS)
    assert request.ddl == "`close` DOUBLE, `symbol` STRING, `interval` STRING"
    assert read(lake, columns="close,symbol,interval").schema.names == ["close", "symbol", "interval"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"symbol": "BTCUSDT"}, ["option symbol: unknown", *OPTIONS]),
        ({"markets": "sport"}, ["option markets: 'sport' is unknown", "spot", "coin_futures"]),
        ({"symbols": "BTC/USDT"}, ["option symbols: 'BTC/USDT'", "BTCUSDT"]),
        ({"symbols": ""}, ["option symbols: ''"]),
        ({"intervals": "1m,7m"}, ["option intervals: '7m' is unknown", "1mo"]),
        ({"since": "yesterday"}, ["option since: 'yesterday' is not a day or time", "7d"]),
        ({"since": "2024-07-01", "until": "2024-07-01"}, ["option until: 2024-07-01 is not after since 2024-07-01"]),
        ({"columns": "clsoe"}, ["option columns: 'clsoe' is unknown", *COLUMNS]),
        ({"table": "candle"}, ["option table: 'candle' is unknown", "candles, gaps"]),
        ({"table": "gaps", "columns": "close"}, ["option columns: 'close' is unknown", "reason"]),
        ({"path": ""}, ["option path: missing", "s3://bucket/prefix"]),
        ({"symbols": "BTCUSD"}, ["option symbols: no series of BTCUSD", f"001, BTCUSDT, {CHINESE}"]),
        ({"markets": "usdt_futures"}, ["option markets: no series of usdt_futures", "leave: spot"]),
        ({"intervals": "1d,5m"}, ["option intervals: no series of 5m", "leave: 1d, 1m"]),
        ({"table": "gaps", "symbols": "ETH*"}, ["option symbols: no series of ETH*", "BTCUSDT"]),
    ],
)  # fmt: skip
def test_wrong_options_are_one_line(lake: Path, options: dict[str, str], words: list[str]) -> None:
    """The error is one line with the option's name and what is allowed."""
    with pytest.raises(UsageError) as raised:
        read(options.pop("path", str(lake)), **options)
    assert "\n" not in raised.value.what
    for word in words:
        assert word in raised.value.what


def test_paths_in_the_style_of_spark(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`file:` and `s3a:` are understood; a relative path is absolute for executors."""
    assert read(f"file://{lake}", symbols="001").num_rows == 12
    assert parse_options({"path": "s3a://bucket/lake"}, NOW_MS).uri == "s3://bucket/lake"
    monkeypatch.chdir(lake.parent)
    assert parse_options({"path": "lake"}, NOW_MS).uri == str(lake)


def test_foreign_files_are_merged(lake: Path) -> None:
    """A candle that another file repeats comes once, by the rule of compaction."""
    add_foreign(lake, [rest_candle(0, close=101.5, trade_num=99), rest_candle(7)])
    table = read(lake, symbols="BTCUSDT", intervals="1m", until="2024-07-01", columns="trade_num")
    assert table["trade_num"].to_pylist() == [99, 10]


def test_files_that_move_meanwhile_are_found(lake: Path) -> None:
    """A file that compaction folded after the listing is read in its new place; a vanished partition has no rows."""
    foreign = add_foreign(lake, [rest_candle(7)])
    request = parse_options({"path": str(lake), "symbols": "BTCUSDT", "intervals": "1m"}, NOW_MS)
    [places] = plan_slices(request)
    listed = tuple(
        place._replace(names=tuple(sorted(str(each.relative_to(lake)) for each in (lake / place.directories[0]).iterdir())))
        for place in places
    )  # fmt: skip
    make_lake(lake, [rest_candle(7)])  # the merge has the foreign row, as in a compaction
    foreign.unlink()
    assert sum(batch.num_rows for batch in read_slice(request, listed)) == 7
    shutil.rmtree(lake / places[5].directories[0])
    assert sum(batch.num_rows for batch in read_slice(request, listed)) == 6


def test_the_journal_is_not_read(lake: Path) -> None:
    """Unflushed candles are not read, since executors do not have the journal."""
    make_lake(lake, hot=[rest_candle(1)])
    assert read(lake).num_rows == 36


def test_slices_are_of_few_rows(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slice has at most 50 partitions and some rows, and all of them have each partition once."""
    make_lake(lake, [rest_candle(day * 1440, symbol="LTCUSDT") for day in range(70)])
    request = parse_options({"path": str(lake), "symbols": "LTCUSDT"}, NOW_MS)
    planned = plan_slices(request)
    assert [len(each) for each in planned] == [50, 20]
    assert len({place for each in planned for place in each}) == 70
    monkeypatch.setattr(slices, "PARTITIONS_MAX", 69)
    with pytest.raises(UsageError, match=r"more than 69 such partitions; .*spark\.read\.parquet"):
        plan_slices(request)


def test_slices_of_seconds_have_few_partitions(tmp_path: Path) -> None:
    """Files of 1s candles have 86,400 rows, so a slice has five."""
    second = {"interval": "1s", "end_ms": 0}
    make_lake(
        tmp_path,
        [
            rest_candle(0, **second | {"begin_ms": begin_ms, "end_ms": begin_ms + 1000})  # type: ignore[arg-type]
            for begin_ms in range(BEGIN_MS, BEGIN_MS + 12 * DAY_MS, DAY_MS)
        ],
    )
    planned = plan_slices(parse_options({"path": str(tmp_path)}, NOW_MS))
    assert [len(each) for each in planned] == [5, 5, 2]


def test_the_ledger_is_that_of_sql(lake: Path) -> None:
    """`table = gaps` has the rows of SQL; options select among them."""
    store = make_lake(lake)
    table = read(lake, table="gaps")
    assert table.schema == TABLES["gaps"]
    [(count, candles)] = rows_of_sql(store, "SELECT count(*), sum(candles) FROM gaps")
    assert (table.num_rows, sum(table["candles"].to_pylist())) == (count, candles) and table.num_rows
    some = read(lake, table="gaps", symbols="币安*", since="2024-07-02", until="2024-07-03")
    assert set(some["symbol"].to_pylist()) == {CHINESE}
    assert sum(some["candles"].to_pylist()) == 1439


@pytest.mark.slow
def test_a_lake_on_s3(lake: Path, bucket: Bucket) -> None:
    """The rows on S3 are those on the disk, also of a percent-encoded directory."""
    directory = lake / "market=spot" / f"symbol={CHINESE}"
    directory.rename(directory.with_name(quote(directory.name, safe="=")))
    uri = bucket.upload(lake, "lake")
    here = read(lake).sort_by([(name, "ascending") for name in ("symbol", "interval", "candle_begin_time")])
    there = read(uri).sort_by([(name, "ascending") for name in ("symbol", "interval", "candle_begin_time")])
    assert there.equals(here) and there.num_rows == 36
    assert read(uri, symbols=f"{CHINESE},00*", since="2024-07-01", until="2024-07-02").num_rows == 4


def test_the_source_is_light() -> None:
    """Spark imports the package for each Python source of any name, so it imports nothing of lakewriter."""
    source = (Path(slices.__file__).parents[3] / "pyspark_lakewriter" / "__init__.py").read_text()
    top = [line for line in source.splitlines() if line.startswith(("import ", "from "))]
    assert top and not any("lakewriter" in line for line in top)
