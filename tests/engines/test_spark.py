"""The Spark engine: its refusals, and that its lake is the one of the local engine."""

import hashlib
import json
import os
import shutil
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner

from lakewriter.cli import cli
from lakewriter.engines.spark import SparkEngine
from lakewriter.errors import LakewriterError, UsageError
from lakewriter.lake.compact import _compact_chunk
from lakewriter.lake.lake import LakeStore
from lakewriter.partition import partition_of
from support.candles import stream_candle
from support.lakes import add_foreign
from support.running import run
from support.spark_session import MASTER, needs_spark

PARTITIONS = 120


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """A lake of partitions with three foreign files each, one of them torn."""
    store = LakeStore.create(str(tmp_path / "lake"), "test")
    for number in range(PARTITIONS):
        symbol = f"S{number:03d}USDT"
        for part in range(3):
            candles = [stream_candle(minute, symbol=symbol) for minute in range(10 * part, 10 * part + 20)]
            add_foreign(store.root, candles, f"part-{part}.parquet")
    (store.root / partition_of(stream_candle(0, symbol="S007USDT")).path / "torn.parquet").write_bytes(
        b"torn"
    )
    return store.root


def test_wrong_use(lake):
    """Options that do not fit are wrong usage."""
    for arguments in (
        ["--engine", "spark"],
        ["--master", "local[2]"],
        ["--engine", "spark", "--master", "somewhere"],
        ["--engine", "spark", "--master", "local[2]", "--jobs", "2"],
        ["--engine", "spark", "--master", "local[2]", "--spark-conf", "memory=2g"],
    ):
        result = CliRunner().invoke(cli, ["compact", "--lake", str(lake), *arguments])
        assert isinstance(result.exception, UsageError), arguments


@needs_spark
@pytest.mark.parametrize("master", ["spark://127.0.0.1:9", "sc://127.0.0.1:9"])
def test_unreachable(lake, master):
    """A master that does not listen is told at once, in one line."""
    result = CliRunner().invoke(
        cli, ["compact", "--lake", str(lake), "--engine", "spark", "--master", master]
    )
    assert isinstance(result.exception, LakewriterError)
    assert result.exception.what == f"spark: {master} is not reachable: connection refused"


@needs_spark
def test_no_java(lake):
    """Without Java there is one line."""
    environment = {**os.environ, "JAVA_HOME": "/nowhere"}
    found = run(
        "compact", "--lake", str(lake), "--engine", "spark", "--master", "local[2]",
        cwd=lake, environment=environment,
    )  # fmt: skip
    assert found.returncode == 1
    assert found.stderr.splitlines()[0] == "lakewriter: --engine spark: there is no Java"


@needs_spark
@pytest.mark.slow
def test_same_lake(lake, tmp_path, spark):
    """Spark makes the lake of the local engine, byte for byte, and reports the same."""
    other = tmp_path / "other"
    shutil.copytree(lake, other)
    ours, theirs = (
        CliRunner().invoke(cli, ["compact", "--json", "--lake", str(root), *arguments])
        for root, arguments in ((lake, []), (other, ["--engine", "spark", "--master", MASTER]))
    )
    assert str(theirs.exception) == str(ours.exception) == "compact: files of 1 partition are unchanged"
    assert hashes(lake) == hashes(other)
    assert len(hashes(other)) == PARTITIONS + 1
    counts, same = (json.loads(result.stdout) for result in (ours, theirs))
    for each in (counts, same):
        del each["seconds"]
    assert counts == same
    assert same["at_least"] == []
    assert same["duplicates_removed"] == 20 * PARTITIONS


@needs_spark
@pytest.mark.slow
def test_same_findings(lake, spark):
    """Spark, processes and one process find the same, in the same order."""
    ours, pooled, theirs = (
        CliRunner().invoke(cli, ["verify", "--json", "--max-findings", "7", "--lake", str(lake), *arguments])
        for arguments in ([], ["--jobs", "2"], ["--engine", "spark", "--master", MASTER])
    )
    assert "findings" in str(ours.exception)
    assert str(theirs.exception) == str(pooled.exception) == str(ours.exception)
    assert theirs.stdout == pooled.stdout == ours.stdout


@needs_spark
@pytest.mark.slow
def test_lake_that_executors_do_not_see(tmp_path, spark):
    """A task's error is one line with the host, and no slice runs again."""
    with SparkEngine("test", MASTER, {}) as engine:
        task = partial(_compact_chunk, str(tmp_path / "absent"), 0.0, False)
        with pytest.raises(LakewriterError, match=r"^test: on .*: lake: .*absent does not exist\n"):
            list(engine.map(task, [1], chunk=1))


def hashes(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*.parquet"))
    }
