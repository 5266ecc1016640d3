"""The Spark engine on a lake in an object store: executors read and write it by themselves."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from lakewriter.cli import cli
from lakewriter.lake.open import open_to_change
from support.held_lake import make_foreign_lake
from support.seaweed import Bucket
from support.spark_session import MASTER, needs_spark

PARTITIONS = 120
SPARK = ("--engine", "spark", "--master", MASTER)


@needs_spark
@pytest.mark.slow
@pytest.mark.long
@pytest.mark.usefixtures("spark")
def test_compact_and_verify(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Executors find in a store what processes find in a copy on disk, and leave the same candles."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    make_foreign_lake(tmp_path / "lake", PARTITIONS)
    uri = bucket.upload(tmp_path / "lake", "lake")

    def told(command: str, lake: str, *arguments: str) -> list[dict[str, object]]:
        done = CliRunner().invoke(cli, [command, "--json", "--lake", lake, *arguments])
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        assert lines, done.stderr + str(done.exception)
        return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]

    disk = str(tmp_path / "lake")
    findings = told("verify", uri, *SPARK)
    assert findings == told("verify", uri)
    assert findings[-1]["totals"] == told("verify", disk)[-1]["totals"]
    report = told("compact", uri, *SPARK)
    assert report == told("compact", disk)
    assert report[0]["files_removed"] == 3 * PARTITIONS
    assert told("verify", uri, *SPARK) == told("verify", disk)
    stores = open_to_change(uri), open_to_change(disk)
    ours, theirs = (
        {each.partition: store.read(each.partition) for each in store.files()} for store in stores
    )
    assert len(ours) == PARTITIONS
    assert ours == theirs
