"""The statements that `lakewriter views` prints, run by the tools that they are for."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest
from click.testing import CliRunner

from lakewriter.cli import cli
from lakewriter.cli.commands.views import _READERS
from lakewriter.errors import LakewriterError
from lakewriter.query.reader_recipes import RECIPES
from lakewriter.query.schema import COLUMNS
from lakewriter.query.session import run
from support.lakes import make_lake, rest_candle
from support.running import PATIENCE_S

pytestmark = pytest.mark.slow

CHINESE = "币安人生USDT"

# Without escapes this path is a glob, and without quotes it ends a string.
AWKWARD = "it's [a-b] 100% {x}"


@pytest.fixture(scope="module", params=["lake", AWKWARD])
def lake(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """Four symbols, two with names like numbers: daily candles of four days, and one 5m candle of each."""
    root = tmp_path_factory.mktemp("views") / request.param
    symbols = ("BTCUSDT", CHINESE, "1F", "001")
    make_lake(
        root,
        [
            rest_candle(step * day, interval=interval, symbol=symbol)
            for interval, step in (("1d", 1), ("5m", 288))
            for day in range(4)
            for symbol in symbols
        ],
    )
    return root


def statements(lake: Path, reader: str) -> str:
    done = CliRunner().invoke(cli, ["--lake", str(lake), "views", "--for", reader], catch_exceptions=False)
    assert done.exit_code == 0
    return str(done.stdout)


def python(code: str) -> list[str]:
    """Run a program that prints rows; return its lines."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def engine(lake: Path) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute(statements(lake, "duckdb"))
    return connection


def ours(lake: Path, columns: str, where: str = "true") -> list[tuple[object, ...]]:
    from lakewriter.lake.lake import LakeStore

    table = run(LakeStore.local(lake), f"SELECT {columns} FROM candles WHERE {where} ORDER BY ALL")
    return [tuple(row.values()) for row in table.to_pylist()]


# Paths that end a string, a line or a pattern for a reader that is not told otherwise.
ODD = ["two\nlines", "tab\t\x1b[31m", "it\\'s", 'a\\n"b', "new\n'[line]'"]


@pytest.fixture(scope="module", params=ODD)
def odd(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """A lake of one candle in a directory with an odd name."""
    root = tmp_path_factory.mktemp("odd") / request.param
    make_lake(root, [rest_candle(1, interval="1d")])
    return root


def test_duckdb_is_told_an_odd_path(odd: Path) -> None:
    """DuckDB reads a lake with an odd path, or the command refuses the path."""
    if "\\" in str(odd):
        with pytest.raises(LakewriterError, match="DuckDB takes a backslash in a pattern for a slash"):
            statements(odd, "duckdb")
        return
    text = statements(odd, "duckdb")
    assert not set(map(ord, text)) & (set(range(32)) - {10}) and "\n'" not in text
    with engine(odd) as connection:
        assert connection.execute("SELECT count(*) FROM candles").fetchall() == [(1,)]


@pytest.mark.parametrize(
    ("reader", "count"), [("polars", "candles.collect().height"), ("pandas", "len(candles())")]
)
def test_python_is_told_an_odd_path(odd: Path, reader: str, count: str) -> None:
    """The Python statements read a lake with an odd path."""
    names: dict[str, object] = {}
    exec(statements(odd, reader), names)
    assert eval(count, names) == 1


def test_readers_are_those_that_are_known() -> None:
    """`--help` names exactly the tools that have statements."""
    assert tuple(RECIPES) == _READERS


def test_duckdb_reads_what_we_read(lake: Path) -> None:
    """The view has our columns, in order and with our types, and the same rows."""
    with engine(lake) as connection:
        described = connection.execute("DESCRIBE candles").fetchall()
        assert [row[0] for row in described] == list(COLUMNS)
        plain = connection.sql("FROM candles ORDER BY ALL").to_arrow_table()
    from lakewriter.lake.lake import LakeStore

    assert plain.equals(run(LakeStore.local(lake), "FROM candles ORDER BY ALL"))


@pytest.mark.parametrize(
    ("call", "where"),
    [
        ("candles('BTCUSDT')", "symbol = 'BTCUSDT'"),
        (f"candles('{CHINESE}', market := 'spot', \"interval\" := '1d')", f"symbol = '{CHINESE}' AND \"interval\" = '1d'"),
        ("candles('1F')", "symbol = '1F'"),
        ("candles('*')", "true"),
        ("candles('NONE')", "false"),
        ("candles('BTCUSDT', \"interval\" := '1m')", "false"),
        ("candles_between('BTCUSDT', '2024-07-01', '2024-07-03')",
         "symbol = 'BTCUSDT' AND \"date\" IN ('2024-07-01', '2024-07-02')"),
        ("candles_between('001', '2024-06-30 00:00', '2024-07-01 00:00:01', market := 'spot')",
         "symbol = '001' AND \"date\" IN ('2024-06-30', '2024-07-01')"),
        ("candles_between('001', DATE '2024-06-01', DATE '2030-01-01', \"interval\" := '1d')",
         "symbol = '001' AND \"interval\" = '1d'"),
        ("candles_between('BTCUSDT', '2023-06-30', '2023-07-30')", "false"),
        ("candles_between('BTCUSDT', '2024-07-01', '2024-06-01')", "false"),
        ("candles_between('NONE', '2024-06-30', '2024-07-30')", "false"),
    ],
)  # fmt: skip
def test_duckdb_macros_read_what_we_read(lake: Path, call: str, where: str) -> None:
    """Each macro returns the rows of our equal query, also none."""
    columns = 'symbol, "date"::VARCHAR, epoch_ms(candle_begin_time), close'
    with engine(lake) as connection:
        assert connection.sql(f"SELECT {columns} FROM {call} ORDER BY ALL").fetchall() == ours(
            lake, columns, where
        )


def test_duckdb_macros_open_few_files(lake: Path) -> None:
    """A macro lists only the directories of its arguments."""
    with engine(lake) as connection:

        def files(call: str) -> int:
            plan = connection.sql(f"EXPLAIN ANALYZE SELECT sum(close) FROM {call}").fetchall()[0][1]
            return sum(map(int, re.findall(r"Total Files Read: (\d+)", plan)))

        # A year of days is one file.
        assert files("candles") == 4 * (1 + 4)
        assert files("candles('BTCUSDT')") == 1 + 4
        assert files("candles_between('BTCUSDT', '2024-07-01', '2024-07-03')") == 1 + 2
        assert files("candles WHERE \"date\" = '2024-07-01'") == 4 * (1 + 1)


def test_duckdb_reads_an_empty_lake(tmp_path: Path) -> None:
    """Before the first flush the view has columns and no rows; later the same view has rows."""
    make_lake(tmp_path)
    with engine(tmp_path) as connection:
        assert connection.sql("SELECT count(*), count(symbol) FROM candles").fetchall() == [(0, 0)]
        assert [row[0] for row in connection.execute("DESCRIBE FROM candles('A')").fetchall()] == list(
            COLUMNS
        )
        make_lake(tmp_path, [rest_candle(0)])
        assert connection.sql("SELECT count(*), count(symbol) FROM candles").fetchall() == [(1, 1)]


def expected(lake: Path) -> list[list[object]]:
    return [
        list(row)
        for row in ours(
            lake, 'market, symbol, "interval", "date"::VARCHAR, epoch_ms(candle_begin_time), close'
        )
    ]


def test_polars_reads_what_we_read(lake: Path) -> None:
    """Polars reads each row, with texts as text and days as dates."""
    [said] = python(
        statements(lake, "polars") + "import json\n"
        "rows = candles.select('market', 'symbol', 'interval', polars.col('date').cast(polars.String),"
        " polars.col('candle_begin_time').dt.epoch('ms'), 'close').collect().rows()\n"
        "assert candles.collect_schema()['date'] == polars.Date\n"
        "print(json.dumps(sorted(rows)))"
    )
    assert json.loads(said) == expected(lake)


def test_pandas_reads_what_we_read(lake: Path) -> None:
    """pandas reads each row, or the selected ones."""
    said = python(
        statements(lake, "pandas") + "import json\n"
        "frame = candles()\n"
        "frame['date'] = frame['date'].astype(str)\n"
        "frame['begin'] = frame['candle_begin_time'].astype('int64')\n"
        "assert str(frame['candle_begin_time'].dtype) == 'datetime64[ms, UTC]'\n"
        "rows = frame[['market', 'symbol', 'interval', 'date', 'begin', 'close']].astype(object).values.tolist()\n"
        "print(json.dumps(sorted(rows)))\n"
        "print(len(candles(market='spot', symbol='1F', interval='1d')))"
    )
    assert json.loads(said[0]) == expected(lake)
    assert said[1] == "4"


@pytest.mark.long
@pytest.mark.skipif(
    importlib.util.find_spec("pyspark") is None or shutil.which("java") is None,
    reason="needs Java and the extra `spark`",
)
def test_spark_reads_what_we_read(lake: Path) -> None:
    """Spark reads each row, with texts as text and days as dates."""
    said = python(
        "from pyspark.sql import SparkSession\n"
        "spark = SparkSession.builder.master('local[1]').config('spark.ui.enabled', 'false').getOrCreate()\n"
        + statements(lake, "spark")
        + "import json\n"
        "assert dict(candles.dtypes)['date'] == 'date'\n"
        "rows = spark.sql('SELECT market, symbol, interval, CAST(date AS STRING), unix_millis(candle_begin_time), close"
        " FROM candles').collect()\n"
        "print(json.dumps(sorted(list(row) for row in rows)))"
    )
    assert json.loads(said[-1]) == expected(lake)


def test_absent_lake_is_told(tmp_path: Path) -> None:
    """An absent lake is an error."""
    with pytest.raises(LakewriterError, match="does not exist"):
        statements(tmp_path / "nowhere", "duckdb")
