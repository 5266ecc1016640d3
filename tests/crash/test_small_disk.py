"""A disk without free bytes or inodes: no file is half-written, and work continues when there is room."""

import asyncio
import contextlib
import os
import re
import secrets
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from crash.disks import tmpfs
from crash.remains import make_candle, plain_keys, strays, tables, temporaries
from lakewriter.candle import Candle, to_table
from lakewriter.errors import LakeError
from lakewriter.lake.journal import DiskRefusedError, create_journal
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.unflushed import read_unflushed
from lakewriter.partition import Partition, partition_of
from lakewriter.sandbox import SandboxOptions, serve
from support.running import Child, child, plain_rows, run, until
from support.side_by_side import side_by_side

pytestmark = pytest.mark.slow

RECORDED = re.compile(r"^recorded (\S+) (\S+) (\S+) (\d{4}-\d\d-\d\d \d\d:\d\d)", re.MULTILINE)

# Roomy in one respect, tiny in the other.
BYTES_MAX, FILES_MAX = 4_000_000, 1000
SMALL = {"bytes": "size=2m,nr_inodes=100000", "files": "size=64m,nr_inodes=400"}


@pytest.fixture(params=SMALL)
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A small disk in memory."""
    with tmpfs(tmp_path / "disk", SMALL[request.param]) as mount:
        yield mount


def fill(disk: Path) -> None:
    """Fill the disk with files, then with bytes of one file."""
    filler = disk / "filler"
    filler.mkdir(exist_ok=True)
    with contextlib.suppress(OSError):
        while os.statvfs(disk).f_ffree < FILES_MAX:
            (filler / secrets.token_hex(4)).touch()
    with contextlib.suppress(OSError), (filler / "bytes").open("ab", buffering=0) as file:
        while os.statvfs(disk).f_blocks * 4096 < BYTES_MAX:
            file.write(bytes(512))


def free(disk: Path) -> None:
    """Remove the files of `fill`."""
    for file in (disk / "filler").iterdir():
        file.unlink()


def assert_sound(lake: Path) -> None:
    """Assert that each `*.parquet` is whole, and that no other file is left."""
    tables(lake)
    assert strays(lake) == []
    # A living recorder replaces its status at any moment.
    assert [name for name in temporaries(lake) if not name.endswith("/.status.json.tmp-next")] == []


def test_a_journal_fills_the_disk(disk: Path) -> None:
    """Only the candles committed before the disk was full are in the lake, and a later commit succeeds."""
    lake = LakeStore.create(str(disk / "lake"), "test").root
    journal = create_journal(lake, "test")
    committed: list[Candle] = []

    def commit_until_full() -> None:
        with pytest.raises(DiskRefusedError, match=r"journal: .*No space left on device"):
            for _ in range(2000):
                group = [make_candle("BTCUSDT", len(committed) + each) for each in range(7)]
                journal.commit(group)
                committed.extend(group)
                if len(committed) % 20 == 0:
                    journal.roll()

    for _ in range(3):
        fill(disk)
        commit_until_full()
        assert read_unflushed(lake) == committed
        free(disk)
        one = make_candle("ETHUSDT", len(committed))
        journal.commit([one])
        committed.append(one)
        assert read_unflushed(lake) == committed
    assert len(journal.roll()) < len(committed)
    assert_sound(lake)


def test_a_merge_on_a_full_disk_changes_nothing(disk: Path) -> None:
    """On a full disk old partitions keep their rows and new ones get none; with room both get their rows."""
    store = LakeStore.create(str(disk / "lake"), "test")
    old, new = (partition_of(make_candle(symbol, 0)) for symbol in ("BTCUSDT", "ETHUSDT"))

    def merge(partition: Partition, minutes: range) -> None:
        store.merge(partition, to_table(make_candle(partition.symbol, minute) for minute in minutes))

    merge(old, range(100))
    before = plain_keys(store.root)
    fill(disk)
    for partition in (old, new):
        with pytest.raises(OSError, match="No space left on device"):
            merge(partition, range(1000))
        assert plain_keys(store.root) == before
        assert_sound(store.root)
    free(disk)
    for partition in (old, new):
        merge(partition, range(1000))
    assert len(plain_keys(store.root)) == 2000
    assert_sound(store.root)


def test_a_lake_cannot_be_made_on_a_full_disk(disk: Path) -> None:
    """A failed creation is one error line, and a later call completes the lake."""
    fill(disk)
    with pytest.raises(LakeError, match="No space left on device"):
        LakeStore.create(str(disk / "lake"), "test")
    free(disk)
    store = LakeStore.create(str(disk / "lake"), "test")
    assert_sound(store.root)


async def recording(disk: Path, log: Path, test: Callable[[Child], Awaitable[None]]) -> None:
    """Run a recorder of a fast sandbox on the disk during the block."""
    async with serve(SandboxOptions(speed=120, symbols=6)) as sandbox:
        arguments = [
            "record", "--log-candles", "spot:*:1m", "usdt_futures:*:1m", "--exchange", sandbox.url,
            "--lake", str(disk / "lake"), "--flush-every", "300ms",
        ]  # fmt: skip
        with child(log, *arguments) as recorder:
            begun = len(recorder.logged())  # an earlier one's; this one has hardly started
            await until(lambda: "flushed" in recorder.logged()[begun:])
            await test(recorder)


def lake_and_log(lake: Path, log: str) -> None:
    """Compare the rows of a plain glob with the log's recorded candles."""
    columns = "market, symbol, \"interval\", strftime(candle_begin_time, '%Y-%m-%d %H:%M')"
    rows = plain_rows(lake, columns)
    assert len(set(rows)) == len(rows), "a candle is there twice"
    assert set(rows) == {found.groups() for found in RECORDED.finditer(log)}
    assert_sound(lake)
    assert read_unflushed(lake) == []


@pytest.mark.parametrize("room", SMALL)
@side_by_side
async def test_a_recorder_waits_for_room_and_goes_on(room: str, tmp_path: Path) -> None:
    """On a full disk the recorder runs, warns, and loses nothing; with room it records and flushes again."""
    disk = tmp_path / "disk"
    lake = disk / "lake"

    async def main(recorder: Child) -> None:
        for _ in range(2):
            begun = len(recorder.logged())
            fill(disk)
            await until(
                lambda begun=begun: (
                    re.search(
                        r"journal: .*No space left on device; recording waits", recorder.logged()[begun:]
                    )
                    is not None
                )
            )
            fill(disk)  # what a failed merge gave back
            await asyncio.sleep(1.5)  # several tries
            assert recorder.process.poll() is None
            told = await asyncio.to_thread(run, "status", "--lake", str(lake))
            assert told.returncode == 1
            assert "lakewriter: the disk is full: " in told.stderr
            assert_sound(lake)
            begun = len(recorder.logged())
            free(disk)
            for sign in ("journal: writes succeed again after", "\nrecorded ", "flushed"):
                await until(lambda begun=begun, sign=sign: sign in recorder.logged()[begun:])
        assert await asyncio.to_thread(recorder.stop) == 0
        lake_and_log(lake, recorder.logged())

    with tmpfs(disk, SMALL[room]):
        await recording(disk, tmp_path / "log", main)


@side_by_side
async def test_a_recorder_stopped_on_a_full_disk_says_what_waits(tmp_path: Path) -> None:
    """It gives up in time with exit 1, and the next recorder merges every recorded candle."""
    log = tmp_path / "log"

    async def main(recorder: Child) -> None:
        fill(disk)
        await until(lambda: "recording waits" in recorder.logged())
        assert await asyncio.to_thread(recorder.stop) == 1
        assert re.search(r"journal: .*No space left on device; \d+ candles were read", recorder.logged())
        assert "Traceback" not in recorder.logged()
        assert_sound(disk / "lake")
        free(disk)

    async def once_more(recorder: Child) -> None:
        assert await asyncio.to_thread(recorder.stop) == 0
        lake_and_log(disk / "lake", recorder.logged())

    with tmpfs(tmp_path / "disk", SMALL["bytes"]) as disk:
        await recording(disk, log, main)
        await recording(disk, log, once_more)


@side_by_side
async def test_a_backfill_names_the_lake_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    """One line and a hint; merged candles stay, and the same command fetches the rest."""
    disk = tmp_path / "disk"
    lake = disk / "lake"
    roomy = ["mount", "-o", "remount,size=64m", str(disk)]

    with tmpfs(disk, SMALL["bytes"]):
        async with serve(SandboxOptions(symbols=3, push_every_ms=0)) as sandbox:
            arguments = ("backfill", "spot:BTCUSDT:1m", "--since", "2024-01-01", "--until", "2024-03-31")
            arguments += ("--exchange", sandbox.url, "--lake", str(lake))
            told = await asyncio.to_thread(run, *arguments)
            assert told.returncode == 1
            said = told.stderr.splitlines()[-2:]
            assert re.fullmatch(r"lakewriter: backfill: .*disk/lake.*: No space left on device", said[0])
            assert said[1] == "  run the same command again to resume"
            assert_sound(lake)
            await asyncio.to_thread(subprocess.run, roomy, check=True)
            told = await asyncio.to_thread(run, *arguments)
            assert told.returncode == 0, told.stderr
        assert len(plain_rows(lake)) == 91 * 1440
