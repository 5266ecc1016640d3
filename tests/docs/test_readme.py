"""The commands and statements of README and docs work on a real lake."""

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from lakewriter.candle import Candle, to_table
from lakewriter.cli import COMMANDS
from lakewriter.lake.lake import LakeStore
from lakewriter.partition import partition_of
from support.running import PATIENCE_S, REPOSITORY, run

pytestmark = pytest.mark.slow

PAGES = "\n".join(
    page.read_text() for page in [*sorted((REPOSITORY / "docs").rglob("*.md")), REPOSITORY / "README.md"]
)
BEGIN_MS = 1_719_705_600_000  # 2024-06-30 00:00 UTC
SYMBOLS = ("BTCUSDT", "币安人生USDT")


def block(language: str, containing: str) -> str:
    """Return the first code block of the docs, or of README, in a language and with a text."""
    blocks = re.findall(rf"```{language}\n(.*?)```", PAGES, re.DOTALL)
    return next(text for text in blocks if containing in text)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Return a working directory whose `data` is a lake of daily candles: two symbols, two days."""
    store = LakeStore.create(str(tmp_path / "data"), "test")
    for symbol in SYMBOLS:
        for day in range(2):
            begin_ms = BEGIN_MS + day * 86_400_000
            candle = Candle(
                "spot", symbol, "1d", begin_ms, begin_ms + 86_400_000, 1.0, 2.0, 0.5, 1.5, 3.0, 4.0, 7, 1.0, 2.0,
                begin_ms + 86_400_004, begin_ms * 1000, "stream",
            )  # fmt: skip
            store.merge(partition_of(candle), to_table([candle]))
    return tmp_path


def python(directory: Path, code: str) -> list[str]:
    """Run a Python program in the directory; return its lines."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_service_does_not_repeat_a_broken_config(tmp_path: Path) -> None:
    """The systemd unit does not restart a recorder that exits because of a broken config."""
    unit = (REPOSITORY / "deploy" / "systemd" / "lakewriter.service").read_text()
    command = re.search(r"ExecStart=\S+ (.*)", unit)
    assert command and "Restart=always" in unit
    broken = tmp_path / "lakewriter.toml"
    broken.write_text("subscriptions = 5")
    arguments = command[1].replace("/etc/lakewriter/lakewriter.toml", str(broken)).split()
    assert f"RestartPreventExitStatus={run(*arguments).returncode}\n" in unit


def test_duckdb_reads_the_lake(directory: Path) -> None:
    """The DuckDB statement returns the series' rows, the interval as text."""
    statement = block("sql", "-- DuckDB").replace("'data/", f"'{directory}/data/")
    with duckdb.connect() as connection:
        rows = connection.sql(
            f"SELECT symbol, interval, date::VARCHAR, close FROM ({statement.rstrip().rstrip(';')}) ORDER BY 3"
        )
        assert rows.fetchall() == [("BTCUSDT", "1d", "2024-06-30", 1.5), ("BTCUSDT", "1d", "2024-07-01", 1.5)]


def test_pandas_and_polars_read_the_lake(directory: Path) -> None:
    """The pandas and Polars statements run unchanged, and see all rows and types."""
    pandas_code, polars_code = block("python", "# pandas\n"), block("python", "# Polars\n")
    assert python(
        directory, pandas_code + "\nprint(len(frame), set(frame.interval), frame.candle_begin_time.dtype)"
    ) == ["2 {'1d'} datetime64[ms, UTC]"]
    said = python(
        directory,
        polars_code
        + "\nprint(frame.height, set(frame['interval']), frame.schema['date'], set(frame['symbol']))",
    )
    assert said[0].startswith("4 {'1d'} Date")
    assert SYMBOLS[1] in said[0]


def test_polars_and_pyarrow_read_the_lake_without_options(directory: Path) -> None:
    """The plainest whole-lake read of Polars and pyarrow sees every row."""
    said = python(
        directory,
        "import polars, pyarrow.dataset as ds\n"
        "print(polars.read_parquet('data/**/*.parquet').height)\n"
        "print(ds.dataset('data', partitioning='hive').to_table().num_rows)",
    )
    assert said == ["4", "4"]


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.skipif(
    importlib.util.find_spec("pyspark") is None or shutil.which("java") is None,
    reason="needs Java and the extra `spark`",
)
def test_spark_reads_the_lake(directory: Path) -> None:
    """The Spark statement runs as it stands: every row, text intervals, timestamps, Chinese symbols."""
    code = block("python", "# Spark\n")
    said = python(
        directory,
        "from pyspark.sql import SparkSession\n"
        "spark = SparkSession.builder.master('local[1]').config('spark.ui.enabled', 'false')"
        ".config('spark.sql.session.timeZone', 'UTC').getOrCreate()\n"
        f"{code}\n"
        "print(candles.count(), dict(candles.dtypes)['candle_begin_time'], dict(candles.dtypes)['interval'])\n"
        "print(sorted(row.symbol for row in candles.select('symbol').distinct().collect()))\n"
        "print(candles.selectExpr('min(candle_begin_time)').collect()[0][0])\n",
    )
    assert said[-3:] == ["4 timestamp string", str(sorted(SYMBOLS)), "2024-06-30 00:00:00"]


def test_the_python_api(directory: Path) -> None:
    """The lines of the Python API run, and return the documented values."""
    # The lake of this test has other series than the page.
    code = block("python", "import lakewriter").replace('"1m"', '"1d"').replace("BNBUSDT", SYMBOLS[1])
    assert python(directory, code + "\nprint(lake.query('SELECT count(*) FROM candles').rows())") == [
        "[(4,)]"
    ]
    assert python(
        directory,
        "import lakewriter\nprint(lakewriter.open_lake('data').candles('spot', 'BTCUSDT', '1d').index)",
    )[0].startswith("DatetimeIndex(['2024-07-01 00:00:00+00:00'")


def test_the_config_example_is_one(tmp_path: Path) -> None:
    """The lakewriter.toml of the docs is a valid config."""
    from lakewriter.config import load_config, parse_keep

    path = tmp_path / "lakewriter.toml"
    path.write_text(block("toml", "subscriptions"))
    config = load_config(path)
    assert len(config.parsed_subscriptions()) == 2
    assert parse_keep(config, heal_limit=config.heal_limit, since=config.since)
    assert config.market("spot").stream_url == "wss://data-stream.binance.vision"


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_every_help_has_an_example(command: str) -> None:
    """Each --help exits 0 and shows a command line to paste."""
    helped = run(*([command] if command else []), "--help")
    assert helped.returncode == 0
    assert f"  lakewriter {command}" in helped.stdout
