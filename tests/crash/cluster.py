"""`make cluster-test`: a real Spark cluster on loopback, an executor killed at work, and a Connect server.

A standalone master with two workers compacts a lake, and one executor is killed with -9 in the
middle. A Connect server compacts a copy without a kill. Both lakes must be the one that the
local engine makes, byte for byte. The report after the kill must call its sums lower bounds.

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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lakewriter.lake.lake import LakeStore
from lakewriter.partition import partition_of
from support.candles import stream_candle
from support.ports import free_ports
from support.spark_session import spark_is_absent

LOOPBACK = "127.0.0.1"

# A loaded machine takes minutes to start four Java processes.
START_S_MAX = 300.0
COMPACT_S_MAX = 900.0

SUMS = ("rewritten", "duplicates_removed", "files_removed", "bytes_before")
FACTS = ("partitions", "rows", "bytes_after", "failed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--partitions", type=int, default=2000)
    parser.add_argument("--only", choices=("cluster", "connect"))
    options = parser.parse_args()
    if spark_is_absent():
        sys.exit("needs Spark: Java 17, and pip install 'lakewriter[spark]'")
    with tempfile.TemporaryDirectory(prefix="lakewriter-cluster-") as name:
        directory = Path(name)
        make_lake(directory / "lake", options.partitions)
        for copy in ("local", "cluster", "connect"):
            shutil.copytree(directory / "lake", directory / copy)
        expected = compact(directory / "local")
        print("local  ", json.dumps(expected), flush=True)
        if options.only != "connect":
            with_killed_executor(directory, expected)
        if options.only != "cluster":
            with_connect_server(directory, expected)
    print("every lake is the same")


def make_lake(root: Path, partitions: int) -> None:
    """Make a lake of partitions with three foreign files each; 40 candles in 60 rows."""
    import pyarrow.parquet as pq

    from lakewriter.candle import to_table

    store = LakeStore.create(str(root), "test")
    parts = [
        to_table([stream_candle(minute) for minute in range(10 * part, 10 * part + 20)]) for part in range(3)
    ]
    for number in range(partitions):
        directory = root / partition_of(stream_candle(0, symbol=f"S{number:05d}USDT")).path
        directory.mkdir(parents=True)
        for part, rows in enumerate(parts):
            pq.write_table(rows, directory / f"part-{part}.parquet")
    assert store.root == root.resolve()


def with_killed_executor(directory: Path, expected: dict[str, Any]) -> None:
    """Compact on a standalone cluster whose executor is killed, and check the lake and the report."""
    lake = directory / "cluster"
    with standalone_cluster(directory) as master:
        command = compaction(
            lake, "--engine", "spark", "--master", master,
            "--spark-conf", f"spark.driver.host={LOOPBACK}",
        )  # fmt: skip
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment(), text=True) as process:
            until_s = time.monotonic() + COMPACT_S_MAX
            while sum(1 for _ in lake.glob("market=*/*/*/*/candles.parquet")) < expected["partitions"] // 10:
                assert process.poll() is None, "the compaction ended before an executor could be killed"
                assert time.monotonic() < until_s, "no partition was compacted"
                time.sleep(0.05)
            os.kill(executors(directory)[0], signal.SIGKILL)
            output, _ = process.communicate(timeout=COMPACT_S_MAX)
        assert process.returncode == 0, process.returncode
    report = json.loads(output)
    print("killed ", json.dumps(report), flush=True)
    assert hashes(lake) == hashes(directory / "local"), "the lakes differ"
    assert set(SUMS) <= set(report["at_least"])
    for name in FACTS:
        assert report[name] == expected[name], name
    for name in SUMS:
        assert report[name] <= expected[name], name


def with_connect_server(directory: Path, expected: dict[str, Any]) -> None:
    """Compact through a Connect server, and check that the lake and the report are those of the local engine."""
    lake = directory / "connect"
    with connect_server(directory) as master:
        report = compact(lake, "--engine", "spark", "--master", master)
    print("connect", json.dumps(report), flush=True)
    assert hashes(lake) == hashes(directory / "local"), "the lakes differ"
    for each in (report, expected):
        each.pop("seconds")
    assert report == expected


def compaction(lake: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "lakewriter", "compact", "--json", "--lake", str(lake), *arguments]


def compact(lake: Path, *arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        compaction(lake, *arguments),
        stdout=subprocess.PIPE,
        env=environment(),
        timeout=COMPACT_S_MAX,
        check=True,
    )
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def environment() -> dict[str, str]:
    return {**os.environ, "SPARK_LOCAL_IP": LOOPBACK, "PYSPARK_PYTHON": sys.executable}


def hashes(lake: Path) -> dict[str, str]:
    """Return the hash of every file of the lake's partitions, temporary ones included."""
    return {
        str(path.relative_to(lake)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in lake.glob("market=*/*/*/*/*")
    }


@contextlib.contextmanager
def standalone_cluster(directory: Path) -> Iterator[str]:
    """Start a master and two workers of one core; yield the master's URL."""
    port, *pages = free_ports(4)
    master = f"spark://{LOOPBACK}:{port}"
    home = spark_home()
    common = ["--host", LOOPBACK]
    with contextlib.ExitStack() as stack:
        stack.enter_context(
            java(
                directory / "master.log",
                [
                    f"{home}/bin/spark-class",
                    "org.apache.spark.deploy.master.Master",
                    *common,
                    "--port",
                    str(port),
                    "--webui-port",
                    str(pages[0]),
                ],
            )
        )
        wait_for_text(directory / "master.log", "New state: ALIVE")
        for number, page in enumerate(pages[1:]):
            log = directory / f"worker{number}.log"
            stack.enter_context(
                java(
                    log,
                    [
                        f"{home}/bin/spark-class",
                        "org.apache.spark.deploy.worker.Worker",
                        *common,
                        "--cores",
                        "1",
                        "--memory",
                        "1g",
                        "--webui-port",
                        str(page),
                        "--work-dir",
                        str(directory / f"work{number}"),
                        master,
                    ],
                )
            )
            wait_for_text(log, "Successfully registered with master")
        yield master


@contextlib.contextmanager
def connect_server(directory: Path) -> Iterator[str]:
    """Start a Spark Connect server of two threads; yield its URL."""
    (port,) = free_ports(1)
    log = directory / "connect.log"
    command = [
        f"{spark_home()}/bin/spark-submit", "--class", "org.apache.spark.sql.connect.service.SparkConnectServer",
        "--master", "local[2]", "--conf", f"spark.connect.grpc.binding.address={LOOPBACK}",
        "--conf", f"spark.connect.grpc.binding.port={port}", "--conf", "spark.ui.enabled=false", "spark-internal",
    ]  # fmt: skip
    with java(log, command):
        wait_for_text(log, "Spark Connect server started")
        yield f"sc://{LOOPBACK}:{port}"


@contextlib.contextmanager
def java(log: Path, command: list[str]) -> Iterator[None]:
    """Run a script that starts Java, in a process group of its own, and end the whole group."""
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command, stdout=output, stderr=output, env=environment(), cwd=log.parent, start_new_session=True
        ) as process,
    ):
        try:
            yield
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def wait_for_text(log: Path, text: str) -> None:
    until_s = time.monotonic() + START_S_MAX
    while text not in log.read_text(errors="replace"):
        assert time.monotonic() < until_s, (
            f"{text!r} is not in {log}: {log.read_text(errors='replace')[-2000:]}"
        )
        time.sleep(0.2)


def executors(directory: Path) -> list[int]:
    """Return the processes of the executors whose workers have their files below a directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            is_executor = b"CoarseGrainedExecutorBackend" in (entry / "cmdline").read_bytes()
            if is_executor and (entry / "cwd").readlink().is_relative_to(directory):
                found.append(int(entry.name))
    return sorted(found)


def spark_home() -> Path:
    import pyspark

    return Path(pyspark.__file__).parent


if __name__ == "__main__":
    main()
