"""The commands that read a lake, with a lake on an object store."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from lakewriter.cli.shell.prompt import _SqlCompleter
from lakewriter.lake.open import open_to_read
from support import running
from support.lakes import make_lake, rest_candle
from support.living_recorder import LivingRecorder, mark_gap
from support.object_store import Request, Store, refusal
from support.running import PATIENCE_S

pytestmark = pytest.mark.slow

URI = "s3://bucket/candles"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Four days of daily candles of two symbols, and minutes with an explained gap."""
    root = tmp_path_factory.mktemp("lake")
    symbols = ("BTCUSDT", "币安人生USDT")
    make_lake(root, [rest_candle(n, interval="1d", symbol=symbol) for n in range(4) for symbol in symbols])
    make_lake(root, [rest_candle(n) for n in (0, 1, 4, 5)])
    recorder = LivingRecorder(root)
    mark_gap(recorder, 2, 4, "exchange_halt")
    recorder.die()
    started = Store()
    started.upload(root, "candles")
    yield started
    started.close()


def run(
    store: Store,
    *arguments: str,
    stdin: str | None = None,
    program: tuple[str, ...] = ("-m", "lakewriter"),
    **more: str,
) -> "subprocess.CompletedProcess[str]":
    """Run the command line or a program, with only AWS's own variables of AWS."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    variables |= {
        "AWS_ENDPOINT_URL": store.url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
    }
    if program == ("-m", "lakewriter"):
        return running.run(*arguments, stdin=stdin, environment=variables | more)
    return subprocess.run(
        [sys.executable, *program, *arguments],
        capture_output=True,
        text=True,
        env=variables | more,
        input=stdin,
        timeout=PATIENCE_S,
        check=False,
    )


def test_query(store: Store) -> None:
    """The environment gives the endpoint, the region and the credentials."""
    sql = "SELECT symbol, count(*) AS days FROM candles WHERE \"interval\" = '1d' GROUP BY symbol ORDER BY symbol"
    done = run(store, "query", sql, "--lake", URI, "--format", "csv")
    assert (done.stderr, done.stdout) == ("", 'symbol,days\n"BTCUSDT",4\n"币安人生USDT",4\n')


def test_pictures(store: Store) -> None:
    """Charts and heat maps of a lake on a store have its candles and its gaps."""
    done = run(store, "chart", "spot:BTCUSDT:1m", "--lake", URI)
    assert done.stderr == ""
    assert "4 candles" in done.stdout and "░ 2 missing: exchange_halt" in done.stdout
    done = run(store, "coverage", "--heatmap", "--lake", URI)
    assert done.stderr == ""
    assert " 币安人生USDT 1d" in done.stdout and "66.66" in done.stdout


def test_query_of_a_profile(store: Store, tmp_path: Path) -> None:
    """AWS's profile files have the credentials, and the URI has precedence."""
    (tmp_path / "credentials").write_text("[lake]\naws_access_key_id = test\naws_secret_access_key = test\n")
    done = run(
        store,
        "query",
        "SELECT count(*) AS n FROM candles",
        "--format",
        "csv",
        "--lake",
        f"{URI}?endpoint_override={store.url}",
        AWS_ENDPOINT_URL="http://127.0.0.1:1",
        AWS_ACCESS_KEY_ID="",
        AWS_SECRET_ACCESS_KEY="",
        AWS_PROFILE="lake",
        AWS_SHARED_CREDENTIALS_FILE=str(tmp_path / "credentials"),
    )
    assert (done.stderr, done.stdout) == ("", "n\n12\n")


def test_shell(store: Store) -> None:
    """Each statement requests from the store again."""
    done = run(
        store, "shell", "--lake", URI, stdin=".mode csv\nSELECT count(*) AS n FROM candles;\n.tables\n"
    )
    assert done.stderr == ""
    assert done.stdout.startswith("n\n12\ncandles\n")


def test_gaps_and_coverage(store: Store) -> None:
    """`gaps` and `coverage` read the ledgers in the store."""
    done = run(store, "gaps", "--json", "--lake", URI)
    assert (done.stderr, json.loads(done.stdout)["reason"]) == ("", "exchange_halt")
    done = run(store, "coverage", "--json", "--interval", "1m", "--lake", URI)
    assert done.stderr == ""
    assert json.loads(done.stdout.splitlines()[-1])["totals"] == {
        "series": 1, "expected": 6, "present": 4, "missing": 2, "explained": 2, "without_reason": 0,
        "never_came": 0,
    }  # fmt: skip


@pytest.mark.parametrize("command", ["gaps", "coverage"])
def test_a_spelling_mistake_is_no_health(store: Store, command: str) -> None:
    """A filter that matches nothing in the store gives exit 2."""
    done = run(store, command, "--symbol", "BTCUSTD", "--interval", "1m", "--lake", URI)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{command}: the lake has no series that matches *:BTCUSTD:1m" in done.stderr
    assert "it has spot:BTCUSDT:1m" in done.stderr


@pytest.mark.parametrize(
    ("uri", "what", "hint"),
    [
        ("s3://nowhere/lake", "lake: s3://nowhere/lake: there is no bucket nowhere", "aws s3 mb s3://nowhere creates one"),
        ("s3://bucket/nowhere", "lake: s3://bucket/nowhere does not exist", "--lake s3://bucket/nowhere makes one"),
        ("s3://bucket", "lake: s3://bucket does not exist", "lakewriter record spot:BTCUSDT:1m --lake s3://bucket"),
        ("s3://bucket/candles?endpoint_override=http://127.0.0.1:9", "lake: s3://bucket/candles: ", "is the network up"),
        ("s3://bucket/candles?x=1", "lake: s3://bucket/candles: there is no parameter x", "parameters: "),
    ],
)  # fmt: skip
def test_places_where_no_lake_is(store: Store, uri: str, what: str, hint: str) -> None:
    """A URI without a lake gives one line and a hint."""
    done = run(store, "query", "FROM candles", "--lake", uri)
    said = done.stderr.splitlines()
    assert done.returncode in (1, 2)
    assert said[0].startswith(f"lakewriter: {what}")
    assert len(said) == (2 if hint else 1)
    assert hint in said[-1]
    assert done.stdout == ""


def test_newer_format(store: Store) -> None:
    """A lake of a newer format is refused."""
    store.put("newer/_lakewriter/lake.json", b'{"format_version": 99}')
    done = run(store, "query", "FROM candles", "--lake", "s3://bucket/newer")
    assert done.stderr.startswith("lakewriter: lake: s3://bucket/newer has format 99, newer than 2")
    store.put("newer/_lakewriter/lake.json", b"[]")
    done = run(store, "query", "FROM candles", "--lake", "s3://bucket/newer")
    assert "s3://bucket/newer/_lakewriter/lake.json is not valid" in done.stderr


def test_wrong_credentials(store: Store) -> None:
    """The error has the store's text, and the hint names the sources of credentials."""
    with store.misbehaving(lambda _: refusal("403 Forbidden", "InvalidAccessKeyId", "No such access key.")):
        done = run(store, "query", "FROM candles", "--lake", URI)
    assert done.stderr.splitlines() == [
        f"lakewriter: lake: {URI}: No such access key",
        "  set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    ]


def views(store: Store, reader: str) -> str:
    done = run(store, "views", "--for", reader, "--lake", URI)
    assert done.stderr == ""
    return done.stdout


def expected(store: Store) -> list[list[object]]:
    sql = (
        'SELECT market, symbol, "interval", "date"::VARCHAR AS d, epoch_ms(candle_begin_time) AS b, close'
        " FROM candles ORDER BY ALL"
    )
    done = run(store, "query", sql, "--format", "ndjson", "--lake", URI)
    return [list(json.loads(line).values()) for line in done.stdout.splitlines()]


def printed(store: Store, reader: str, code: str) -> list[str]:
    """Return the output of a program appended to the statements for a reader."""
    done = run(store, f"{views(store, reader)}import json\n{code}", program=("-c",))
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_polars_reads_what_we_read(store: Store) -> None:
    """Polars reads each row, with texts as text and days as dates."""
    [rows] = printed(
        store,
        "polars",
        "rows = candles.select('market', 'symbol', 'interval', polars.col('date').cast(polars.String),"
        " polars.col('candle_begin_time').dt.epoch('ms'), 'close').collect().rows()\n"
        "print(json.dumps(sorted(rows)))",
    )
    assert json.loads(rows) == expected(store)


def test_pandas_reads_what_we_read(store: Store) -> None:
    """pandas reads each row, or the selected ones."""
    rows, count = printed(
        store,
        "pandas",
        "frame = candles()\n"
        "frame['date'] = frame['date'].astype(str)\n"
        "frame['begin'] = frame['candle_begin_time'].astype('int64')\n"
        "rows = frame[['market', 'symbol', 'interval', 'date', 'begin', 'close']].astype(object).values.tolist()\n"
        "print(json.dumps(sorted(rows)))\n"
        "print(len(candles(symbol='币安人生USDT')))",
    )
    assert json.loads(rows) == expected(store)
    assert count == "4"


def test_duckdb_and_spark_are_told_how_to_reach_the_store(store: Store) -> None:
    """The statements contain the settings for the store besides the paths."""
    host = store.url.removeprefix("http://")
    sql = views(store, "duckdb")
    assert "INSTALL httpfs; LOAD httpfs; INSTALL aws; LOAD aws;" in sql
    assert (
        "CREATE OR REPLACE SECRET lake (TYPE s3, PROVIDER credential_chain, SCOPE 's3://bucket/candles', "
        f"REGION 'us-east-1', ENDPOINT '{host}', USE_SSL false, URL_STYLE 'path');" in sql
    )
    assert "'s3://bucket/candles/market=*/symbol=*/interval=' || i || '/date=*/*.parquet'" in sql
    python = views(store, "spark")
    assert ').parquet("s3a://bucket/candles")' in python
    assert f'spark.conf.set("fs.s3a.endpoint", "{store.url}")' in python
    compile(python, "views", "exec")


# The command line, which would wait an hour for a store that says nothing.
PATIENT = """
from lakewriter.lake.remote import location
location.SILENCE_S_MAX = 3600.0
from lakewriter.cli import main
main()
"""


@pytest.mark.parametrize("verb", ["GET", "LIST"])
def test_ctrl_c_does_not_wait_for_a_silent_store(store: Store, verb: str) -> None:
    """Ctrl-C returns to the prompt, even if the store does not answer."""
    silent, done = threading.Event(), threading.Event()

    def hook(request: Request) -> None:
        if request.verb == verb and "market=" in request.key:
            silent.set()
            done.wait(2 * PATIENCE_S)

    with store.misbehaving(hook):
        asking = subprocess.Popen(
            [sys.executable, "-c", PATIENT, "query", "FROM candles", "--lake", store.uri("candles")],
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert silent.wait(PATIENCE_S)
            asking.send_signal(signal.SIGINT)
            _, said = asking.communicate(timeout=PATIENCE_S)
        finally:
            asking.kill()
            done.set()
    assert (asking.returncode, said.strip()) == (130, "stopped")


def test_completion_does_without_a_store_that_refuses(store: Store) -> None:
    """Completion uses the store's names, or only the known ones if the store refuses."""
    names = _SqlCompleter(open_to_read(store.uri("candles")), [], {}, list)

    def completed(text: str) -> list[str]:
        document = Document(text)
        return [each.text for each in names.get_completions(document, CompleteEvent())]

    assert any("BTCUSDT" in text for text in completed("SELECT * FROM candles WHERE symbol = 'BTC"))
    with store.misbehaving(lambda _: refusal("403 Forbidden", "AccessDenied", "")):
        assert completed("SELECT * FROM candles WHERE symbol = 'BTC") == []
        assert any("spot" in text for text in completed("SELECT * FROM candles WHERE market = 'sp"))


def test_the_status_of_an_object_store(store: Store) -> None:
    """`lakewriter status` has the size and the gaps; there is no recorder and no disk."""
    done = run(store, "status", "--json", "--lake", URI)
    assert (done.returncode, done.stderr) == (0, "")
    status = json.loads(done.stdout)
    assert (status["recorders"], status["disk"], status["attention"]) == ([], None, [])
    assert (status["size"]["files"], status["size"]["rows"], status["size"]["series"]) == (3, 12, 3)
    assert not status["size"]["rows_are_estimated"]
    report = run(store, "status", "--lake", URI).stdout
    assert "12 candles in 3 files of 3 series\n" in report
    assert "disk" not in report
