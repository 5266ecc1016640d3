"""`lakewriter flush` merges the journals of dead recorders, and leaves those of running ones."""

import json
import os
from pathlib import Path

import pytest

from lakewriter.lake.journal import Journal, create_journal
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.unflushed import read_unflushed
from support.candles import DAY_START_MS, stream_candle
from support.refusing_lake import begins
from support.running import run

pytestmark = pytest.mark.slow


def lake(path: Path) -> LakeStore:
    return LakeStore.create(str(path / "data"), "test")


def dead(store: LakeStore, minutes: range) -> Journal:
    """Leave a journal like a killed recorder."""
    journal = create_journal(store.root, "dead")
    journal.commit([stream_candle(minute) for minute in minutes])
    os.close(journal._lock_fd)
    return journal


def test_dead_journals_are_flushed_and_living_ones_left_alone(tmp_path: Path) -> None:
    """A dead recorder's candles are merged, and a living recorder's journal is unchanged."""
    store = lake(tmp_path)
    living_recorders = create_journal(store.root, "living")
    living_recorders.commit([stream_candle(100)])
    dead(store, range(3))
    dead(store, range(2, 6))
    flushed = run("flush", "--lake", str(store.root))
    assert (flushed.returncode, flushed.stdout) == (0, "7 candles of 2 segments flushed\n")
    assert begins(store) == [DAY_START_MS + minute * 60_000 for minute in range(6)]
    assert read_unflushed(store.root) == [stream_candle(100)]
    again = run("flush", "--lake", str(store.root), "--json")
    assert json.loads(again.stdout) == {"segments": 0, "candles": 0, "torn": 0, "damaged": 0, "waiting": 0}
    living_recorders.close()


def test_what_cannot_be_merged_stays_and_is_named(tmp_path: Path) -> None:
    """Candles of a corrupt partition stay in the journal; the line names the partition, and the exit is 1."""
    store = lake(tmp_path)
    dead(store, range(2))
    corrupt = store.root / "market=spot/symbol=BTCUSDT/interval=1m/date=2024-06-30/candles.parquet"
    corrupt.parent.mkdir(parents=True)
    corrupt.write_bytes(b"no")
    flushed = run("flush", "--lake", str(store.root))
    assert (flushed.returncode, flushed.stdout) == (1, "0 candles of 1 segments flushed\n")
    assert f"{corrupt}: not a readable Parquet file of candles" in flushed.stderr
    assert "lakewriter: flush: 2 candles stay in the journal" in flushed.stderr
    assert read_unflushed(store.root) == [stream_candle(0), stream_candle(1)]
    corrupt.unlink()
    assert run("flush", "--lake", str(store.root)).returncode == 0
    assert len(begins(store)) == 2


def test_oddities_in_the_journal_stop_nobody(tmp_path: Path) -> None:
    """A directory or pipe with a segment's name is skipped, and other journals are flushed."""
    store = lake(tmp_path)
    odd = store.root / "_lakewriter/journal/aaa"
    (odd / "1.ndjson").mkdir(parents=True)
    os.mkfifo(odd / "2.ndjson")
    (odd / "3.ndjson").touch()
    dead(store, range(3))
    flushed = run("flush", "--lake", str(store.root))
    assert (flushed.returncode, flushed.stderr) == (0, "")
    assert len(begins(store)) == 3


def test_a_lake_that_is_not_there(tmp_path: Path) -> None:
    """An absent lake is one line and exit 1."""
    flushed = run("flush", "--lake", str(tmp_path / "no"))
    assert flushed.returncode == 1
    assert flushed.stderr.startswith(f"lakewriter: lake: {tmp_path}/no does not exist\n")


def test_a_journal_that_cannot_be_taken_over_is_no_success(tmp_path: Path) -> None:
    """An unreadable journal is named with exit 1; the other journals are flushed."""
    store = lake(tmp_path)
    lost = dead(store, range(2)).directory
    (lost / "lock").unlink()
    (lost / "lock").mkdir()
    dead(store, range(3, 5))
    flushed = run("flush", "--lake", str(store.root))
    assert (flushed.returncode, flushed.stdout) == (1, "2 candles of 2 segments flushed\n")
    assert f"lakewriter: {lost.name} stays: cannot be taken over: " in flushed.stderr
    (lost / "lock").rmdir()
    assert run("flush", "--lake", str(store.root)).returncode == 0
    assert len(begins(store)) == 4
