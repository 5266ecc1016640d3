"""The commands of the pages on backups, moves, merges and upgrades do what the pages say."""

import asyncio
import contextlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lakewriter.interval import DAY_MS, MINUTE_MS
from lakewriter.lake.lake import LakeStore
from lakewriter.query.python.reader import open_lake
from lakewriter.sandbox import Fault, SandboxOptions, serve
from lakewriter.series import Series
from support.lengths import either
from support.living_recorder import LivingRecorder
from support.running import PATIENCE_S, REPOSITORY, Child, child, plain_rows, until
from support.truth_lakes import merge_truth
from support.warm_program import write_program

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("rsync") is None, reason="needs rsync"),
]

RECORDED = re.compile(r"^recorded (\S+) (\S+) (\S+) (\d{4}-\d\d-\d\d \d\d:\d\d) at ", re.MULTILINE)
SYMBOLS = "BTCUSDT,ETHUSDT,BNBUSDT"
KEYS = "SELECT market, symbol, interval, strftime(candle_begin_time, '%Y-%m-%d %H:%M') AS begin FROM candles"


class Place:
    """A directory that stands for the root of a machine, with `lakewriter` on its PATH.

    Attributes:
        executed: the commands of pages that were executed.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.executed: list[str] = []
        (root / "bin").mkdir()
        write_program(root / "bin/lakewriter")
        for directory in ("srv", "backup/candles", "mnt/new", "etc"):
            (root / directory).mkdir(parents=True)
        self.lake, self.config = root / "srv/candles", root / "etc/lakewriter.toml"

    def add_program(self, name: str, text: str) -> None:
        program = self.root / "bin" / name
        program.write_text(text if text.startswith("#!") else f"#!/bin/bash\n{text}\n")
        program.chmod(0o755)

    def here(self, command: str) -> str:
        """Return a command whose absolute paths lie below the root."""
        return re.sub(r"(?<![\w.])/(srv|backup|mnt|etc)/", rf"{self.root}/\1/", command)

    def bash(self, command: str) -> str:
        """Run a command of a page; it must succeed. Return its standard output."""
        self.executed.append(command)
        done = subprocess.run(
            ["bash", "-c", self.here(command)],
            cwd=self.root,
            env=os.environ | {"PATH": f"{self.root / 'bin'}:{os.environ['PATH']}"},
            capture_output=True, text=True, timeout=PATIENCE_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    def keys(self, lake: Path) -> list[tuple[str, ...]]:
        """Return the key of each candle in the partitions and journals of a lake."""
        return [tuple(map(str, row)) for row in open_lake(str(lake)).query(KEYS).rows()]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    yield Place(tmp_path)


def section(page: str, heading: str) -> str:
    text = (REPOSITORY / "docs/how-to" / page).read_text()
    return re.split(r"^## ", text.partition(f"\n## {heading}\n")[2], flags=re.MULTILINE)[0]


def commands(page: str, heading: str) -> list[str]:
    """Return the commands in the console blocks of a section."""
    blocks = re.findall(r"^```console\n(.*?)^```", section(page, heading), re.DOTALL | re.MULTILINE)
    found = [
        line.removeprefix("$ ") for block in blocks for line in block.splitlines() if line.startswith("$ ")
    ]
    assert found, f"{page}: {heading}"
    return found


def record(place: Place, name: str, *flags: str) -> contextlib.AbstractContextManager[Child]:
    return child(place.root / name, "record", "--config", str(place.config), "--log-candles", *flags)


def write_config(place: Place, exchange: str, lake: Path, subscriptions: str = f"spot:{SYMBOLS}:1m") -> None:
    place.config.write_text(
        f'lake = "{lake}"\nexchange = "{exchange}"\nsubscriptions = ["{subscriptions}"]\nflush_every = "300ms"\n'
    )


def logged(recorder: Child) -> set[tuple[str, ...]]:
    return set(RECORDED.findall(recorder.logged()))


async def grow(recorder: Child, count: int) -> None:
    """Wait until the recorder has logged so many more candles."""
    before = len(logged(recorder))
    await until(lambda: len(logged(recorder)) >= before + count or recorder.process.poll() is not None)
    assert recorder.process.poll() is None, recorder.logged()[-2000:]


def begins_of(lake: Path) -> dict[str, list[int]]:
    """Return the begin times of each recorded symbol in the partitions, sorted."""
    rows = plain_rows(lake)
    return {
        symbol: sorted(int(str(row[3])) for row in rows if row[1] == symbol) for symbol in SYMBOLS.split(",")
    }


async def goes_on(recorder: Child, lake: Path, before: dict[str, list[int]]) -> None:
    """Wait until the partitions have newer candles of each symbol than before, and lack none."""

    def is_whole() -> bool:
        return all(
            begins[-1] > before[symbol][-1] and begins == list(range(begins[0], begins[-1] + 1, MINUTE_MS))
            for symbol, begins in begins_of(lake).items()
        )

    await grow(recorder, 6)
    async with asyncio.timeout(PATIENCE_S):
        while not await asyncio.to_thread(is_whole):
            await asyncio.sleep(0.2)


async def in_thread(work: Callable[..., str], *arguments: str) -> str:
    return await asyncio.to_thread(work, *arguments)


def test_a_backup_during_a_recording_has_all_that_was_recorded_before_it(place: Place) -> None:
    """Each backup has every candle that was logged before it, once; the last one is restored and goes on."""
    [script] = re.findall(
        r"^```text\n(.*?)^```", section("backing-up.md", "A backup each night"), re.DOTALL | re.MULTILINE
    )
    # A pause before each copy gives many flushes time to move candles meanwhile.
    place.add_program("backup-lake", re.sub(r"^copy ", "sleep 0.7; copy ", script, flags=re.MULTILINE))
    [backup] = commands("backing-up.md", "A backup each night")
    backups: list[tuple[Path, set[tuple[str, ...]]]] = []

    async def main() -> None:
        # `verify` reports candles of the future, so the exchange's time is past.
        start_ms = int(time.time() * 1000) - 10 * DAY_MS
        async with serve(SandboxOptions(speed=120, start_ms=start_ms)) as sandbox:
            old_ms = sandbox.now_ms() // DAY_MS * DAY_MS - 3 * DAY_MS
            merge_truth(
                LakeStore.create(str(place.lake), "test"),
                Series("spot", "XRPUSDT", "1m"),
                1,
                old_ms,
                sandbox.truth,
            )
            write_config(place, sandbox.url, place.lake)
            with record(place, "log") as recorder:
                for _ in range(either(2, 6)):
                    await grow(recorder, 6)
                    before = logged(recorder)
                    made = await in_thread(place.bash, backup)
                    backups.append((Path(made.strip()), before))
                    await asyncio.sleep(1.0 - time.time() % 1.0)  # a name has whole seconds
                assert await asyncio.to_thread(recorder.stop) == 0
            for made, before in backups:
                await asyncio.to_thread(check_backup, place, made, before)
            await asyncio.to_thread(shutil.rmtree, place.lake)
            await restore(place, backups[-1][0])

    asyncio.run(main())
    files = [next(made.glob("market=spot/symbol=XRPUSDT/**/candles.parquet")) for made, _ in backups]
    assert len({file.stat().st_ino for file in files}) == 1  # a file that did not change takes no space


def check_backup(place: Place, made: Path, before: set[tuple[str, ...]]) -> None:
    """Check that a backup is whole, as the page does, and has the candles."""
    for command in commands("backing-up.md", "Is it a good one?"):
        place.bash(re.sub(r"/backup/candles/\S+", str(made), command))
    found = place.keys(made)
    assert len(found) == len(set(found)) and before <= set(found)
    assert not list(made.parent.glob("*.part"))


async def restore(place: Place, made: Path) -> None:
    """Restore a backup by the page's commands, and record on."""
    for command in commands("backing-up.md", "Restore"):
        if command.startswith("lakewriter record"):
            before = await asyncio.to_thread(begins_of, place.lake)
            with record(place, "log2") as recorder:
                await goes_on(recorder, place.lake, before)
                assert await asyncio.to_thread(recorder.stop) == 0
        elif command.startswith("lakewriter backfill"):
            continue  # its own tests run it; the archive of this exchange begins earlier
        else:
            command = re.sub(r"/backup/candles/[^/\s]+", str(made), command)
            await in_thread(place.bash, command.replace("--until now ", ""))  # of the exchange, now is past
    assert len(plain_rows(place.lake)) == len(set(plain_rows(place.lake)))


def test_a_moved_lake_goes_on(place: Place) -> None:
    """The commands of a move leave a whole lake at the new place, and the pause is fetched."""

    async def main(recorders: contextlib.ExitStack) -> None:
        async with serve(SandboxOptions(speed=60)) as sandbox:
            write_config(place, sandbox.url, place.lake)
            recorder = recorders.enter_context(record(place, "log"))
            await grow(recorder, 6)
            is_moved = False
            for command in commands("moving.md", "Move a lake"):
                if command == "systemctl stop lakewriter":
                    assert await asyncio.to_thread(recorder.stop) == 0
                    before = await asyncio.to_thread(plain_rows, place.lake)
                elif command == "systemctl start lakewriter":
                    moved = place.root / "mnt/new/candles"
                    begins = await asyncio.to_thread(begins_of, moved)
                    recorder = recorders.enter_context(record(place, "log2"))
                    is_moved = True
                    await goes_on(recorder, moved, begins)
                else:
                    if command.startswith("lakewriter unsubscribe"):  # of a recorder that has ended
                        assert is_moved and await asyncio.to_thread(recorder.stop) == 0
                    await in_thread(place.bash, command)
            after = await asyncio.to_thread(plain_rows, place.root / "mnt/new/candles")
            assert set(before) <= set(after) and len(before) < len(after)
            btc = [int(str(row[3])) for row in after if row[1] == "BTCUSDT"]
            assert btc == list(range(btc[0], btc[-1] + 1, MINUTE_MS))

    with contextlib.ExitStack() as recorders:
        asyncio.run(main(recorders))


def test_merged_lakes_have_the_candles_and_reasons_of_both(place: Place) -> None:
    """After a merge every candle of both lakes is there once, with its source, and the other's gap is explained."""
    start_ms = int(time.time() * 1000) // DAY_MS * DAY_MS - 10 * DAY_MS
    other = place.root / "srv/other"

    async def main() -> None:
        async with serve(SandboxOptions(speed=60, start_ms=start_ms)) as sandbox:
            halted = Fault(
                "exchange_halt",
                "spot",
                ("ETHUSDT",),
                start_ms=start_ms - DAY_MS,
                stop_ms=start_ms - DAY_MS + 5 * MINUTE_MS,
            )
            sandbox.add_fault(halted)
            here, there = (LakeStore.create(str(lake), "test") for lake in (place.lake, other))
            merge_truth(here, Series("spot", "BTCUSDT", "1m"), 1, start_ms - 2 * DAY_MS, sandbox.truth)
            for series, days in (("BTCUSDT", 2), ("ETHUSDT", 2)):
                merge_truth(there, Series("spot", series, "1m"), days, start_ms - 2 * DAY_MS, sandbox.truth)
            # The other lake lacks the candles of a halt, and knows why.
            eth = Series("spot", "ETHUSDT", "1m")
            forget_range(there, eth, start_ms - DAY_MS, start_ms - DAY_MS + 5 * MINUTE_MS)
            dead = LivingRecorder(other, "dead")
            dead.ledger.mark(
                eth, start_ms - DAY_MS, start_ms - DAY_MS + 5 * MINUTE_MS, "exchange_halt", start_ms
            )
            dead.write()
            dead.die()
            write_config(place, sandbox.url, other, "usdt_futures:BTCUSDT:1m")
            with record(place, "log") as recorder:
                await grow(recorder, 5)
                recorder.kill()  # it leaves a journal
            await asyncio.to_thread(merge, place, other)

    asyncio.run(main())


def merge(place: Place, other: Path) -> None:
    both = set(place.keys(place.lake)) | set(place.keys(other))
    for command in commands("moving.md", "Merge two lakes"):
        if "s3://" in command:
            command = command.replace("s3://bucket/candles", "/srv/other")
        place.bash(command)
    found = place.keys(place.lake)
    assert len(found) == len(set(found)) and set(found) == both
    sources = 'lakewriter query "SELECT source, count(event_time) > 0 AS sent FROM candles GROUP BY ALL ORDER BY ALL" --format csv'
    assert place.bash(f"{sources} --lake /srv/candles").splitlines()[1:] == ['"rest",false', '"stream",true']
    assert "exchange_halt" in place.bash("lakewriter gaps --lake /srv/candles")
    place.bash("lakewriter verify --lake /srv/candles")


def forget_range(store: LakeStore, series: Series, start_ms: int, stop_ms: int) -> None:
    """Remove candles without a record, as if they had never been."""
    from lakewriter.lake.forget import Selection, forget_partition, partitions_to_forget

    selection = Selection((series,), start_ms, stop_ms)
    for item in partitions_to_forget(store, selection):
        assert not forget_partition(store, item, selection).error


def test_a_file_in_its_place_is_folded_in(place: Place) -> None:
    """The commands that put a file into a partition and compact leave one file with the rows of both."""
    day_ms = 1_795_132_800_000  # 2026-11-20
    here, there = (LakeStore.create(str(lake), "test") for lake in (place.lake, place.root / "there"))
    merge_truth(here, Series("spot", "BTCUSDT", "1m"), 1, day_ms)
    merge_truth(there, Series("spot", "BTCUSDT", "1m"), 1, day_ms)
    forget_range(here, Series("spot", "BTCUSDT", "1m"), day_ms, day_ms + 3 * MINUTE_MS)
    [file] = (place.root / "there").rglob("candles.parquet")
    shutil.copy(file, place.root / "other.parquet")
    for command in commands("moving.md", "Merge by compaction"):
        place.bash(command)
    [left] = place.lake.rglob("*.parquet")
    assert left.name == "candles.parquet" and len(plain_rows(place.lake)) == 1440


def test_an_upgrade_without_a_pause_misses_nothing(place: Place) -> None:
    """A second recorder starts beside the first, which then stops; no candle is missing, and none was asked for."""
    started, stopped = commands("upgrading.md", "Without a pause")
    assert "record --config" in started and stopped == "systemctl stop lakewriter"

    async def main() -> None:
        async with serve(SandboxOptions(speed=60)) as sandbox:
            write_config(place, sandbox.url, place.lake)
            with record(place, "old", "--grace", "3m") as old:
                await grow(old, 6)
                with record(place, "new", "--grace", "3m") as new:
                    await grow(new, 6)
                    assert await asyncio.to_thread(old.stop) == 0
                    await grow(new, 6)
                    assert await asyncio.to_thread(new.stop) == 0
        assert "no gaps" in await in_thread(place.bash, "lakewriter gaps --lake /srv/candles")
        await in_thread(place.bash, "lakewriter coverage --until now --lake /srv/candles")

    asyncio.run(main())
    rows = plain_rows(place.lake)
    assert len(rows) == len(set(rows))
    begins = [int(str(row[3])) for row in rows if row[1] == "ETHUSDT"]
    assert begins == list(range(begins[0], begins[-1] + 1, MINUTE_MS))
