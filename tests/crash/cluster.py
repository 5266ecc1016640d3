"""`make cluster-test`: a real Spark cluster on loopback, an executor killed at work, and a Connect server.

A standalone master with two workers compacts a lake, and one executor is killed with -9 in the
middle. Then a task is so slow that Spark starts a copy of it. A Connect server compacts a copy without a kill. Both lakes must have the files and the
rows of the one that the local engine makes. Without a kill the files are the same byte for
byte. The reports after the kill and of the copy must call their sums lower bounds.
Both also verify a lake with findings, import files, and backfill from a sandbox. They must
print and leave what the local engine does.

    PYTHONPATH=tests python -m crash.cluster [--partitions N] [--only cluster|connect]
"""

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lakewriter.interval import HOUR_MS
from lakewriter.lake.lake import LakeStore
from support.held_lake import compacted, held_partition, make_foreign_lake, waiting_for
from support.spark_cluster import connect_server, executors, on_spark, spark_environment, standalone_cluster
from support.spark_session import spark_is_absent

COMMAND_S_MAX = 900.0

# Symbols of the lake to verify, and files to import: enough for several slices of a job.
SYMBOLS = 60
FILES = 80
FIRST_MS = 1_717_200_000_000  # 2024-06-01

SUMS = ("rewritten", "duplicates_removed", "files_removed", "bytes_before")
FACTS = ("partitions", "rows", "failed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--partitions", type=int, default=2000)
    parser.add_argument("--only", choices=("cluster", "connect"))
    options = parser.parse_args()
    if spark_is_absent():
        sys.exit("needs Spark: Java 17, and pip install 'lakewriter[spark]'")
    with tempfile.TemporaryDirectory(prefix="lakewriter-cluster-") as name:
        directory = Path(name)
        os.environ["TMPDIR"] = name  # commands leave Spark's log there if they fail
        make_foreign_lake(directory / "lake", options.partitions)
        for copy in ("local", "cluster", "speculation", "connect"):
            shutil.copytree(directory / "lake", directory / copy)
        expected = compact(directory / "local")
        print("local  ", json.dumps(expected), flush=True)
        make_foreign_lake(directory / "findings", SYMBOLS)
        make_files(directory / "market=spot")
        with sandbox(directory) as exchange:
            others = Others(directory, exchange)
            if options.only != "connect":
                with standalone_cluster(directory) as master:
                    with_killed_executor(directory, master, expected)
                    with_speculation(directory, master, expected)
                    others.check("cluster", master)
            if options.only != "cluster":
                with connect_server(directory) as master:
                    with_connect_server(directory, master, expected)
                    others.check("connect", master)
    print("every lake is the same")


def make_files(directory: Path) -> None:
    """Make CSVs of 24 candles each, and one that is no CSV."""
    directory.mkdir()
    for number in range(FILES):
        begins_ms = [FIRST_MS + (24 * number + hour) * HOUR_MS for hour in range(24)]
        rows = [f"{at},2.0,3.0,0.5,2.0,10.0,{at + HOUR_MS - 1},20.0,7,4.0,8.0,0\n" for at in begins_ms]
        (directory / f"BTCUSDT-1h-{number:03d}.csv").write_text("".join(rows))
    (directory / "ETHUSDT-1h-bad.csv").write_text("no candles\n")


def with_killed_executor(directory: Path, master: str, expected: dict[str, Any]) -> None:
    """Compact on a standalone cluster whose executor is killed, and check the lake and the report."""
    lake = directory / "cluster"
    command = lakewriter("compact", "--json", "--lake", str(lake), *on_spark(master))
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=spark_environment(), text=True) as process:
        wait_until(process, lambda: compacted(lake) >= expected["partitions"] // 10)
        os.kill(executors(directory)[0], signal.SIGKILL)
        output, _ = process.communicate(timeout=COMMAND_S_MAX)
    assert process.returncode == 0, process.returncode
    report = json.loads(output)
    print("killed ", json.dumps(report), flush=True)
    check_repeated(lake, report, directory / "local", expected)


def with_speculation(directory: Path, master: str, expected: dict[str, Any]) -> None:
    """Compact with a task that is slow, so that Spark starts a copy, and let both go on at once."""
    lake = directory / "speculation"
    names = {"interval": "100ms", "multiplier": "1.1", "quantile": "0.5", "minTaskRuntime": "100ms"}
    pairs = {"spark.speculation": "true", **{f"spark.speculation.{name}": names[name] for name in names}}
    options = [each for name, value in pairs.items() for each in ("--spark-conf", f"{name}={value}")]
    command = lakewriter("compact", "--json", "--lake", str(lake), *on_spark(master), *options)
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=spark_environment(), text=True) as process:
        with held_partition(lake, expected["partitions"] - 1) as lock:
            wait_until(process, lambda: waiting_for(lock) == 2)
        output, _ = process.communicate(timeout=COMMAND_S_MAX)
    assert process.returncode == 0, process.returncode
    report = json.loads(output)
    print("twice  ", json.dumps(report), flush=True)
    check_repeated(lake, report, directory / "local", expected)


def wait_until(process: "subprocess.Popen[str]", condition: Callable[[], bool]) -> None:
    """Wait for a condition while a command runs."""
    until_s = time.monotonic() + COMMAND_S_MAX
    while not condition():
        assert process.poll() is None, "the command ended too soon"
        assert time.monotonic() < until_s, "waited in vain"
        time.sleep(0.05)


def check_repeated(lake: Path, report: dict[str, Any], local: Path, expected: dict[str, Any]) -> None:
    """Check the lake and the report of a compaction of which a part ran twice."""
    # A killed task may have replaced a file and not yet removed the others: the next one folds
    # them in again, and its file has the same rows at other offsets.
    assert hashes(lake).keys() == hashes(local).keys(), "the lakes have other files"
    assert rows_of(lake) == rows_of(local), "the lakes have other rows"
    assert set(SUMS) <= set(report["at_least"])
    # Another run of the same task may write a file anew, with its rows at other offsets.
    size = sum(path.stat().st_size for path in lake.glob("market=*/*/*/*/*"))
    assert abs(report["bytes_after"] - size) < size // 50, (report["bytes_after"], size)
    for name in FACTS:
        assert report[name] == expected[name], name
    for name in SUMS:
        assert report[name] <= expected[name], name


def with_connect_server(directory: Path, master: str, expected: dict[str, Any]) -> None:
    """Compact through a Connect server, and check that the lake and the report are those of the local engine."""
    lake = directory / "connect"
    report = compact(lake, *on_spark(master))
    print("connect", json.dumps(report), flush=True)
    assert hashes(lake) == hashes(directory / "local"), "the lakes differ"
    assert without_seconds(report) == without_seconds(expected)


class Others:
    """The other commands that take an engine: verify, import and backfill.

    Args:
        directory: has the inputs, and gets the lakes.
        exchange: the URL of a sandbox.
    """

    def __init__(self, directory: Path, exchange: str) -> None:
        self._directory = directory
        self._exchange = exchange
        self._expected = self._run("alone")

    def check(self, name: str, master: str) -> None:
        """Run the commands on Spark, and check that they print and leave what the local engine does."""
        found = self._run(name, *on_spark(master))
        for command, expected in self._expected.items():
            print(f"{name} {command:8}", json.dumps(found[command]), flush=True)
            assert found[command] == expected, f"{command}: {expected}"
        for command in ("import", "backfill"):
            rows, expected_rows = (
                # Each import has its own times of receipt.
                {file: rows.drop_columns(["recv_time"]) for file, rows in rows_of(lake).items()}
                for lake in (self._directory / f"{who}-{command}" for who in (name, "alone"))
            )
            assert expected_rows and rows == expected_rows, command

    def _run(self, name: str, *engine: str) -> dict[str, Any]:
        """Return the exit code and the output of each command."""
        days = ("--since", "2026-01-20", "--until", "2026-01-31", "--files", "daily")
        commands = {
            "verify": ("--json", "--max-findings", "7", "--lake", "findings"),
            "import": ("market=spot", "--json", "--lake", f"{name}-import"),
            "backfill": (
                "spot:BTCUSDT:1h,15m", "usdt_futures:ETHUSDT:1h", *days,
                "--exchange", self._exchange, "--json", "--quiet", "--lake", f"{name}-backfill",
            ),
        }  # fmt: skip
        told = {}
        for command, arguments in commands.items():
            done = subprocess.run(
                lakewriter(command, *arguments, *engine),
                stdout=subprocess.PIPE,
                env=spark_environment(),
                cwd=self._directory,
                timeout=COMMAND_S_MAX,
                check=False,
            )
            told[command] = (
                done.returncode,
                [without_seconds(json.loads(line)) for line in done.stdout.splitlines()],
            )
        assert [code for code, _ in told.values()] == [1, 1, 0], told
        return told


def rows_of(lake: Path) -> dict[str, Any]:
    """Return the rows of each partition, a table by the name of its file."""
    store = LakeStore.open(str(lake))
    return {each.partition.file: store.read(each.partition) for each in store.files()}


def without_seconds(report: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in report.items() if name != "seconds"}


def lakewriter(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "lakewriter", *arguments]


def compact(lake: Path, *arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        lakewriter("compact", "--json", "--lake", str(lake), *arguments),
        stdout=subprocess.PIPE,
        env=spark_environment(),
        timeout=COMMAND_S_MAX,
        check=True,
    )
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def hashes(lake: Path) -> dict[str, str]:
    """Return the hash of every file of the lake's partitions, temporary ones included."""
    return {
        str(path.relative_to(lake)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in lake.glob("market=*/*/*/*/*")
    }


@contextlib.contextmanager
def sandbox(directory: Path) -> Iterator[str]:
    """Start a sandbox; yield its URL."""
    command = lakewriter(
        "sandbox", "--port", "0", "--start", "2026-02-02T02:40", "--symbols", "10", "--push-every", "0"
    )
    with (
        (directory / "sandbox.log").open("wb") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


if __name__ == "__main__":
    main()
