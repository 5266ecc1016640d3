"""Forgetting while other processes write and read: backfill, a recorder, queries."""

import asyncio
import threading
from pathlib import Path

import pytest

from lakewriter.interval import DAY_MS, MINUTE_MS
from lakewriter.lake.forget import Selection, forget_partition, partitions_to_forget
from lakewriter.lake.lake import LakeStore
from lakewriter.partition import partition_of
from lakewriter.query.python.reader import open_lake
from lakewriter.sandbox.server import Sandbox
from support.backfilling import START_MS, against_sandbox
from support.candles import BTC, begin_of_minute, stream_candle
from support.lakes import merge_candles
from support.running import KEY_AND_VALUES, child, plain_rows, run, wait_until

DAY = START_MS // DAY_MS * DAY_MS - 2 * DAY_MS  # 2026-01-31


def begins(lake: Path) -> set[int]:
    return {int(str(row[3])) for row in plain_rows(lake)}


@pytest.mark.slow
def test_a_backfill_brings_back_what_was_forgotten(tmp_path: Path) -> None:
    """A removed range is missing with a reason, and a backfill restores equal candles."""
    lake = tmp_path / "lake"

    async def scenario(sandbox: Sandbox) -> None:
        where = ("--exchange", sandbox.url, "--lake", str(lake))
        fetch = ("backfill", "spot:BTCUSDT:1m,1h", "--since", "2026-01-30", "--until", "2026-02-01", *where)
        first = await asyncio.to_thread(run, *fetch)
        assert first.returncode == 0, first.stderr
        before = plain_rows(lake, KEY_AND_VALUES)
        went = await asyncio.to_thread(
            run, "forget", "spot:BTCUSDT:1m,1h", "--since", "2026-01-30T20:00", "--until", "2026-01-31",
            "--yes", "--lake", str(lake),
        )  # fmt: skip
        assert went.returncode == 0, went.stderr
        assert len(plain_rows(lake)) == len(before) - 28 * 60 - 28
        covered = await asyncio.to_thread(run, "coverage", "--lake", str(lake))
        assert covered.returncode == 0, covered.stderr
        assert "1680  " in covered.stdout
        again = await asyncio.to_thread(run, *fetch)
        assert again.returncode == 0, again.stderr
        assert plain_rows(lake, KEY_AND_VALUES) == before
        gaps = await asyncio.to_thread(run, "gaps", "--lake", str(lake))
        assert "no gaps" in gaps.stdout

    against_sandbox(scenario)


@pytest.mark.slow
def test_beside_a_recorder(tmp_path: Path) -> None:
    """A removal during a recording loses none of its candles, and no removed candle comes back."""
    lake = tmp_path / "lake"

    async def scenario(sandbox: Sandbox) -> None:
        where = ("--exchange", sandbox.url, "--lake", str(lake))
        fetch = ("backfill", "spot:BTCUSDT:1m", "--since", "2026-01-31", *where)
        assert (await asyncio.to_thread(run, *fetch)).returncode == 0
        before = begins(lake)
        flags = ("--flush-every", "1s", "--heal-limit", "2h", *where)
        with child(tmp_path / "log", "record", "--log-candles", "spot:BTCUSDT:1m", *flags) as recorder:
            await asyncio.to_thread(wait_until, lambda: len(begins(lake)) > len(before) + 3)
            went = await asyncio.to_thread(
                run, "forget", "spot:BTCUSDT:1m", "--until", "2026-02-02T00:30", "--yes", "--lake", str(lake)
            )
            assert went.returncode == 0, went.stderr
            count = len(begins(lake))
            await asyncio.to_thread(wait_until, lambda: len(begins(lake)) > count + 3)
            assert await asyncio.to_thread(recorder.stop) == 0
        after = begins(lake)
        first = DAY + 2 * DAY_MS + 30 * MINUTE_MS
        assert after == set(range(first, max(after) + 1, MINUTE_MS))
        covered = await asyncio.to_thread(run, "coverage", "--lake", str(lake))
        assert covered.returncode == 0, covered.stderr

    against_sandbox(scenario, speed=60)


def test_beside_merges(tmp_path: Path) -> None:
    """Rows merged during a forget of the same partition are all there afterwards."""
    store = LakeStore.create(str(tmp_path), "test")
    selection = Selection((BTC,), stop_ms=begin_of_minute(100))
    merge_candles(store, [stream_candle(number) for number in range(100)])
    errors: list[str] = []

    def forget() -> None:
        for _ in range(30):
            errors.extend(
                outcome.error
                for item in partitions_to_forget(store, selection)
                if (outcome := forget_partition(store, item, selection)).error
            )

    thread = threading.Thread(target=forget)
    thread.start()
    for number in range(30):
        merge_candles(
            LakeStore.local(tmp_path),
            [stream_candle(number), stream_candle(100 + number), stream_candle(1440 + number)],
        )
    thread.join()
    assert errors == []
    for item in partitions_to_forget(store, selection):
        forget_partition(store, item, selection)
    found = sorted((begin - begin_of_minute(0)) // MINUTE_MS for begin in begins(tmp_path))
    assert found == [*range(100, 130), *range(1440, 1470)]


def test_beside_queries(tmp_path: Path) -> None:
    """During the removal of days each answer has whole days, and none fails."""
    store = LakeStore.create(str(tmp_path), "test")
    for day in range(30):
        merge_candles(store, [stream_candle(day * 1440 + number) for number in range(7)])
    counts: list[int] = []
    done = threading.Event()

    def ask() -> None:
        lake = open_lake(str(tmp_path))
        while not done.is_set():
            counts.append(lake.query("SELECT count(*) FROM candles").rows()[0][0])

    thread = threading.Thread(target=ask)
    thread.start()
    wait_until(lambda: bool(counts))
    for day in range(29):
        selection = Selection((BTC,), stop_ms=begin_of_minute((day + 1) * 1440))
        for item in partitions_to_forget(store, selection):
            assert forget_partition(store, item, selection).error == ""
    seen = len(counts)
    wait_until(lambda: len(counts) > seen + 1 or not thread.is_alive())
    done.set()
    thread.join()
    assert counts[0] == 210
    assert counts[-1] == 7
    assert counts == sorted(counts, reverse=True)
    assert {count % 7 for count in counts} == {0}
    assert (store.root / partition_of(stream_candle(29 * 1440)).file).exists()
