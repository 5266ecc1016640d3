"""The commands that write a lake, with a lake on an object store."""

import json
import os
import subprocess
from pathlib import Path

import pyarrow as pa
import pytest

from lakewriter.lake.lake import LakeStore
from lakewriter.lake.open import open_to_read
from support import running
from support.lakes import add_foreign, make_lake, rest_candle
from support.object_store import environment
from support.seaweed import Bucket

pytestmark = pytest.mark.slow


def run(bucket: Bucket, *arguments: str, state: Path) -> "subprocess.CompletedProcess[str]":
    """Run a command with `--lake`, without any other variables of AWS."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    variables |= bucket.variables | {"XDG_STATE_HOME": str(state)}
    return running.run(*arguments, "--lake", f"s3://{bucket.name}/lake", environment=variables)


def rows(lake: LakeStore) -> dict[str, pa.Table | None]:
    """Return the rows of each partition, by its path."""
    return {found.partition.path: lake.read(found.partition) for found in lake.files()}


def test_compact(bucket: Bucket, tmp_path: Path) -> None:
    """Foreign files are folded as on a disk, and the next run opens no partition in order."""
    root = tmp_path / "lake"
    make_lake(
        root, [rest_candle(n, symbol=symbol) for n in range(5) for symbol in ("BTCUSDT", "币安人生USDT")]
    )
    add_foreign(root, [rest_candle(n) for n in (3, 4, 5, 6)])
    add_foreign(root, [rest_candle(1440)], "more.parquet")
    bucket.upload(root, "lake")
    done = run(bucket, "compact", "--json", state=tmp_path)
    assert done.stderr == ""
    summary = json.loads(done.stdout)
    local = json.loads(running.run("compact", "--json", "--lake", str(root)).stdout)
    for of_time in ("seconds", "bytes_after"):
        summary.pop(of_time), local.pop(of_time)
    assert summary == local
    assert (summary["rewritten"], summary["files_removed"], summary["duplicates_removed"]) == (2, 2, 2)
    assert rows(open_to_read(bucket.uri("lake"))) == rows(LakeStore.open(str(root)))
    assert sum(key.endswith(".parquet") for key in bucket.keys("lake")) == 3
    again = json.loads(run(bucket, "compact", "--json", state=tmp_path).stdout)
    assert (again["rewritten"], again["partitions"], again["rows"]) == (0, 3, 13)


def test_import_into_a_new_lake(bucket: Bucket, tmp_path: Path) -> None:
    """An import creates the lake; a second one changes nothing; every reader sees the candles."""
    make_lake(tmp_path / "other", [rest_candle(n, interval="1d") for n in range(400)])
    files = [str(path) for path in (tmp_path / "other").rglob("*.parquet")]
    arguments = ("import", *files, "--market", "spot", "--symbol", "BTCUSDT", "--interval", "1d")
    done = run(bucket, *arguments, state=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "400 added" in done.stdout
    assert "0 added" in run(bucket, *arguments, state=tmp_path).stdout
    lake_json = bytes(bucket.store.get("lake/_lakewriter/lake.json").bytes())
    assert json.loads(lake_json)["format_version"] == 2
    assert run(bucket, "verify", state=tmp_path).returncode == 0
    bucket.download("lake", tmp_path / "copy")
    assert rows(LakeStore.open(str(tmp_path / "copy"))) == rows(open_to_read(bucket.uri("lake")))


def test_flush(bucket: Bucket, tmp_path: Path) -> None:
    """The journal of a dead recorder in the state directory is merged into the store."""
    make_lake(tmp_path / "lake", [rest_candle(n) for n in range(3)])
    uri = bucket.upload(tmp_path / "lake", "lake")
    with environment(XDG_STATE_HOME=str(tmp_path)):
        state_dir = open_to_read(uri).state_dir
    make_lake(state_dir, hot=[rest_candle(n) for n in range(2, 6)])
    done = run(bucket, "flush", state=tmp_path)
    assert (done.stderr, done.stdout) == ("", "4 candles of 1 segments flushed\n")
    assert sum(table.num_rows for table in rows(open_to_read(uri)).values() if table) == 6
    assert "nothing to flush" in run(bucket, "flush", state=tmp_path).stdout


def test_missing_bucket(bucket: Bucket, tmp_path: Path) -> None:
    """A missing bucket is one line, and no bucket is created."""
    file = tmp_path / "x.csv"
    file.write_text("open_time,open,high,low,close,volume\n1719705600000,1,1,1,1,1\n")
    done = running.run(
        "import", str(file), "--market", "spot", "--symbol", "BTCUSDT", "--interval", "1m",
        "--lake", "s3://nowhere/lake",
        environment={**os.environ, **bucket.variables, "XDG_STATE_HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 1
    assert (
        done.stderr
        == "lakewriter: lake: s3://nowhere/lake: there is no bucket nowhere\n  aws s3 mb s3://nowhere creates one\n"
    )
