"""`backfill` and `import` by workers make the same lake and report as one process, also on Spark."""

import contextlib
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from click.testing import CliRunner

from lakewriter.backfill.planner import BackfillOptions
from lakewriter.cli import cli
from lakewriter.engines.spark import SparkEngine
from lakewriter.evidence.claims import ImportOptions
from lakewriter.importer.import_files import ImportJob, ImportPlace, find_files, import_in_worker
from lakewriter.interval import DAY_MS, HOUR_MS
from lakewriter.lake.lake import LakeStore
from lakewriter.sandbox.server import Sandbox
from support.backfilling import START_MS, against_sandbox, run_backfill
from support.lengths import LONG, either
from support.lost_workers import LosingSpark
from support.running import run, run_here
from support.spark_session import MASTER, needs_spark

pytestmark = pytest.mark.slow

FILES = 80
TODAY_MS = START_MS // DAY_MS * DAY_MS


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Return a directory of CSVs, each of a day of a series, in a directory that names the market."""
    directory = tmp_path / "market=spot"
    directory.mkdir()
    for number in range(FILES):
        begin_ms = 1_717_200_000_000 + number * DAY_MS
        hours = [begin_ms + hour * HOUR_MS for hour in range(24)]
        rows = [f"{at},2.0,3.0,0.5,2.0,10.0,{at + HOUR_MS - 1},20.0,7,4.0,8.0,0\n" for at in hours]
        (directory / f"BTCUSDT-1h-{number:03d}.csv").write_text("".join(rows))
    (directory / "ETHUSDT-1h-bad.csv").write_text("no candles\n")
    return tmp_path


def rows_of(lake: Path) -> dict[str, pa.Table]:
    """Return the rows of each partition, without the times of their receipt."""
    store = LakeStore.open(str(lake))
    found = {each.partition.file: store.read(each.partition) for each in store.files()}
    return {file: rows.drop_columns(["recv_time"]) for file, rows in found.items() if rows is not None}


def told_by(cwd: Path, *arguments: str) -> tuple[str, str, str]:
    """Run a command in this process; return what it prints on both streams, and its error."""
    with contextlib.chdir(cwd):
        done = CliRunner().invoke(cli, list(arguments))
    return done.stdout, done.stderr, str(done.exception)


def counts_of(printed: str) -> dict[str, Any]:
    counts: dict[str, Any] = json.loads(printed)
    counts.pop("seconds")
    return counts


@pytest.mark.parametrize("engine", ["processes", pytest.param("spark", marks=needs_spark)])
def test_an_import_by_workers_is_the_same(engine: str, files: Path, request: pytest.FixtureRequest) -> None:
    """Workers import the files as one process does: the rows, the counts, the errors, the exit code."""
    if engine == "spark":
        request.getfixturevalue("spark")
        options = ("--engine", "spark", "--master", MASTER)
    else:
        options = ("--jobs", "2")
    told = {}
    for lake, more in (("alone", ()), ("workers", options)):
        printed, errors, error = told_by(files, "import", "--lake", lake, "market=spot", "--json", *more)
        told[lake] = (counts_of(printed), errors, error)
    assert told["workers"] == told["alone"]
    counts, errors, error = told["workers"]
    assert (counts["files"], counts["failed"], counts["added"]) == (FILES + 1, 1, FILES * 24)
    assert "ETHUSDT-1h-bad.csv" in errors
    assert error == "import: 1 file was not imported"
    assert rows_of(files / "workers") == rows_of(files / "alone")
    printed, _, _ = told_by(files, "import", "--lake", "workers", "market=spot", "--json", *options)
    assert counts_of(printed)["added"] == 0


@needs_spark
@pytest.mark.long
def test_an_import_on_spark_in_a_new_process(files: Path) -> None:
    """A command that has not imported pandas starts Spark, which needs it."""
    (files / "market=spot/ETHUSDT-1h-bad.csv").unlink()
    options = ("--engine", "spark", "--master", "local[2]")
    done = run("import", "--lake", "lake", "market=spot", "--json", *options, cwd=files, fresh=True)
    assert done.returncode == 0, done.stderr
    assert counts_of(done.stdout)["added"] == FILES * 24


def test_workers_that_import_the_same_files_at_once_repeat_nothing(files: Path) -> None:
    """Two workers with the same files at the same time leave each candle once."""
    store = LakeStore.create(str(files / "lake"), "test")
    paths = [path for path in find_files([files / "market=spot"]) if "bad" not in path.name]
    job = ImportJob(ImportOptions(), TODAY_MS)
    both = threading.Barrier(2)

    def work(_: int) -> int:
        both.wait()
        return sum(each.added for each in import_in_worker(ImportPlace(store.uri, "/"), job, paths))

    with ThreadPoolExecutor(2) as threads:
        added = list(threads.map(work, range(2)))
    assert sum(added) == FILES * 24
    assert sum(rows.num_rows for rows in rows_of(files / "lake").values()) == FILES * 24


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--master", "local[2]"), "--master: needs --engine spark"),
        (("--engine", "spark"), "--engine spark: needs --master"),
        (("--engine", "spark", "--master", "nowhere"), "--master: 'nowhere' is no Spark master"),
    ],
)
@pytest.mark.parametrize("command", [("import", "market=spot"), ("backfill", "spot:BTCUSDT:1m")])
def test_wrong_engine_options_are_refused(
    command: tuple[str, str], arguments: tuple[str, ...], line: str, files: Path
) -> None:
    """Options that do not fit together are refused in one line, before a lake is made."""
    told = run_here(*command, "--lake", "lake", *arguments, cwd=files)
    assert told.returncode == 2
    assert line in told.stderr
    assert not (files / "lake").exists()


@needs_spark
@pytest.mark.usefixtures("spark")
def test_a_backfill_on_spark_is_the_same(tmp_path: Path) -> None:
    """Executors leave the rows and the counts of one process. In a long run one of them is killed.

    Only executors are replaced; a short run has threads of one process.
    """
    options = BackfillOptions(since_ms=TODAY_MS - either(4, 20) * DAY_MS, files="daily")
    wanted = ("spot:BTCUSDT:1h", "usdt_futures:ETHUSDT:1h,15m")

    async def scenario(sandbox: Sandbox) -> None:
        fill = partial(run_backfill, sandbox, options=options)
        alone = await fill(tmp_path / "alone", *wanted)
        with (LosingSpark if LONG else SparkEngine)("backfill", MASTER, {}) as engine:
            LosingSpark.marks = tmp_path / "killed"
            spread = await fill(tmp_path / "spread", *wanted, engine=engine)
            assert engine.repeated is LosingSpark.marks.is_dir() is LONG
        assert rows_of(tmp_path / "spread") == rows_of(tmp_path / "alone")
        for name in ("series", "files", "from_archive", "from_rest", "pages"):
            assert getattr(spread.done, name) == getattr(alone.done, name), name
        assert spread.done.files >= 3 * either(3, 19)

    against_sandbox(scenario)
