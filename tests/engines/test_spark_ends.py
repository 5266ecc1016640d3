"""A job on Spark that is stopped or fails ends soon, with one line, and leaves a whole lake."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lakewriter.engines.spark import END_S_MAX
from lakewriter.lake.lake import LakeStore
from support.held_lake import compacted, held_partition, make_foreign_lake, waiting_for
from support.running import PATIENCE_S, run, wait_until
from support.spark_cluster import (
    connect_server,
    executors,
    on_spark,
    processes,
    spark_environment,
    standalone_cluster,
)
from support.spark_session import needs_spark

pytestmark = [needs_spark, pytest.mark.slow, pytest.mark.long]

PARTITIONS = 120

# The start of Spark takes as long on a busy machine.
LIMIT_S = 90

# Runs the engine with shorter limits than the command has.
IMPATIENT = """
import os, sys, time
from lakewriter.engines.spark import SparkEngine
from lakewriter.errors import LakewriterError
from lakewriter.lake.compact import compact_partitions, planned_compactions
from lakewriter.lake.lake import LakeStore

lake, master, limit_s = sys.argv[1:]
store = LakeStore.open(lake)
options = {"spark.driver.host": "127.0.0.1", "spark.task.maxFailures": "9"}
try:
    with SparkEngine("test", master, options, start_s_max=float(limit_s)) as engine:
        work = planned_compactions(store)
        print(len(list(compact_partitions(store, work, time.time(), engine=engine))), flush=True)
except LakewriterError as error:
    print(error, flush=True)
os._exit(0)
"""


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    root = tmp_path / "lake"
    make_foreign_lake(root, PARTITIONS)
    return root


@contextlib.contextmanager
def started(arguments: list[str], directory: Path) -> Iterator["subprocess.Popen[str]"]:
    """Start a command as the leader of a session; kill all its processes at the end."""
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**spark_environment(), "TMPDIR": str(directory)},
        start_new_session=True,
        text=True,
    )
    try:
        yield process
    finally:
        for pid in (process.pid, *session_of(process.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.communicate()


def session_of(leader: int) -> list[int]:
    """Return the living processes of a session, without its leader."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, _, session = entry.read_text().rpartition(")")[2].split()[:4]
            if int(session) == leader and state != "Z" and entry.parent.name != str(leader):
                found.append(int(entry.parent.name))
    return found


def java_of(leader: int) -> int:
    """Return the Java process of a session's driver."""
    (pid,) = [
        each for each in session_of(leader) if b"SparkSubmit" in Path(f"/proc/{each}/cmdline").read_bytes()
    ]
    return pid


def compaction(lake: Path, master: str) -> list[str]:
    return ["-m", "lakewriter", "compact", "--lake", str(lake), *on_spark(master)]


def check_lake(lake: Path) -> None:
    """Check that each file is whole, and that the next compaction leaves each candle once."""
    for path in lake.rglob("*.parquet"):
        pq.read_table(path)
    done = run("compact", "--lake", str(lake))
    assert done.returncode == 0, done.stderr
    store = LakeStore.open(str(lake))
    rows = [store.read(found.partition) for found in store.files()]
    assert len(rows) == len(list(lake.rglob("*.parquet"))) == PARTITIONS
    assert all(isinstance(table, pa.Table) and table.num_rows == 40 for table in rows)


def test_interrupted(lake: Path, tmp_path: Path) -> None:
    """Ctrl-C ends the command within seconds with code 130, and all its processes with it."""
    with (
        held_partition(lake, PARTITIONS - 1) as lock,
        started(compaction(lake, "local[2]"), tmp_path) as process,
    ):
        wait_until(lambda: waiting_for(lock) > 0 or process.poll() is not None)
        began_s = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        assert process.communicate(timeout=PATIENCE_S) == ("", "\nstopped\n")
        assert process.returncode == 130
        assert time.monotonic() - began_s < 2 * END_S_MAX + 5
        wait_until(lambda: not session_of(process.pid))
    assert 0 < compacted(lake) < PARTITIONS
    check_lake(lake)


def test_interrupted_on_connect(lake: Path, tmp_path: Path) -> None:
    """Ctrl-C also ends a job on a Connect server, whose workers stop."""
    with connect_server(tmp_path) as master, held_partition(lake, PARTITIONS - 1) as lock:
        with started(compaction(lake, master), tmp_path) as process:
            wait_until(lambda: waiting_for(lock) > 0 or process.poll() is not None)
            began_s = time.monotonic()
            os.killpg(process.pid, signal.SIGINT)
            assert process.communicate(timeout=PATIENCE_S) == ("", "\nstopped\n")
            assert process.returncode == 130
            assert time.monotonic() - began_s < 2 * END_S_MAX + 5
        wait_until(lambda: waiting_for(lock) == 0)
    check_lake(lake)


def test_driver_killed(lake: Path, tmp_path: Path) -> None:
    """A Java process that is killed at work ends the command with one line and the way to the log."""
    with (
        held_partition(lake, PARTITIONS - 1) as lock,
        started(compaction(lake, "local[2]"), tmp_path) as process,
    ):
        wait_until(lambda: waiting_for(lock) > 0 or process.poll() is not None)
        os.kill(java_of(process.pid), signal.SIGKILL)
        output, errors = process.communicate(timeout=PATIENCE_S)
        assert (process.returncode, output) == (1, "")
        what, hint = errors.splitlines()
        assert what == (
            "lakewriter: compact: spark: the Java process of the driver was killed by signal 9; "
            "no partition is half changed"
        )
        assert hint.startswith("  run it again; Spark's log: ")
        assert Path(hint.rpartition(": ")[2]).is_file()
        wait_until(lambda: not session_of(process.pid))
    check_lake(lake)


def test_connect_server_killed(lake: Path, tmp_path: Path) -> None:
    """A Connect server that is killed at work ends the command with one line."""
    with connect_server(tmp_path) as master, held_partition(lake, PARTITIONS - 1) as lock:
        with started(compaction(lake, master), tmp_path) as process:
            wait_until(lambda: waiting_for(lock) > 0 or process.poll() is not None)
            for pid in processes("SparkConnectServer", tmp_path):
                os.kill(pid, signal.SIGKILL)
            output, errors = process.communicate(timeout=PATIENCE_S)
        assert (process.returncode, output) == (1, "")
        assert errors.splitlines() == [
            "lakewriter: compact: spark: the Connect server no longer answers; no partition is half changed",
            "  is it running? see its log, and run it again",
        ]
    check_lake(lake)


def test_no_executor(lake: Path, tmp_path: Path) -> None:
    """A master without workers ends the command after a limited time."""
    with (
        standalone_cluster(tmp_path, hosts=()) as master,
        started(["-c", IMPATIENT, str(lake), master, str(LIMIT_S)], tmp_path) as process,
    ):
        output, _ = process.communicate(timeout=PATIENCE_S)
    assert output.splitlines()[0] == f"spark: no executor within {LIMIT_S} s"


def test_all_executors_lost(lake: Path, tmp_path: Path) -> None:
    """A cluster whose last worker dies at work ends the command after a limited time."""
    with (
        standalone_cluster(tmp_path, hosts=("127.0.0.1",)) as master,
        held_partition(lake, PARTITIONS - 1) as lock,
        started(["-c", IMPATIENT, str(lake), master, str(LIMIT_S)], tmp_path) as process,
    ):
        wait_until(lambda: waiting_for(lock) > 0 or process.poll() is not None)
        for pid in (*processes("deploy.worker.Worker", tmp_path), *executors(tmp_path)):
            os.kill(pid, signal.SIGKILL)
        output, _ = process.communicate(timeout=PATIENCE_S)
        assert output.splitlines()[0].startswith("test: spark: all executors are lost, and none came back")
    check_lake(lake)
