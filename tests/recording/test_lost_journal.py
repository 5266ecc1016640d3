"""A recorder whose journal, ledger or lake is deleted: memory is the last copy, and no candle is lost."""

import asyncio
import contextlib
import os
import re
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from lakewriter.candle import Candle
from lakewriter.lake.journal_directories import JOURNAL_DIRECTORY
from lakewriter.lake.unflushed import read_unflushed
from lakewriter.recording.recorder import Recorder
from lakewriter.sandbox import SandboxOptions, serve
from support.candles import stream_candle
from support.lengths import examples
from support.recording import OfflineRecorder
from support.refusing_lake import RefusingStore, begins, refusing
from support.running import child, plain_rows, until

MINUTES = 20
LOGGED = re.compile(r"^recorded (\S+) (\S+) (\S+) (\d{4}-\d\d-\d\d \d\d:\d\d) at ", re.MULTILINE)


async def with_recorder(
    store: RefusingStore,
    scenario: Callable[[Recorder, "asyncio.Queue[Candle]"], Awaitable[None]],
    flush_every_s: float = 3600,
) -> Recorder:
    """Record twenty minutes, half of them before the scenario; stop, and return the recorder."""
    recorder = OfflineRecorder(store, flush_every_s=flush_every_s)
    queue = recorder.queue
    stop = asyncio.Event()
    running = asyncio.create_task(recorder.run(stop))
    for minute in range(MINUTES // 2):
        await queue.put(stream_candle(minute))
    await until(lambda: recorder.stats.recorded == MINUTES // 2)
    await scenario(recorder, queue)
    for minute in range(MINUTES // 2, MINUTES):
        await queue.put(stream_candle(minute))
    await until(lambda: recorder.stats.recorded == MINUTES)
    stop.set()
    await running
    return recorder


def all_minutes() -> list[int]:
    return [stream_candle(minute).begin_ms for minute in range(MINUTES)]


def removed(path: Path) -> None:
    """Remove a directory at once, even if a recorder creates it again while its files are deleted."""
    with tempfile.TemporaryDirectory(dir=path.parent.parent) as elsewhere:
        path.rename(Path(elsewhere, path.name))


def journal_removed(root: Path) -> None:
    removed(root / JOURNAL_DIRECTORY)


def state_removed(root: Path) -> None:
    removed(root / "_lakewriter")


def journal_moved(root: Path) -> None:
    (root / JOURNAL_DIRECTORY).rename(root.parent / "elsewhere")


def segments_removed(root: Path) -> None:
    for path in root.glob(f"{JOURNAL_DIRECTORY}/*/*"):
        path.unlink(missing_ok=True)


TAKEN_AWAY = pytest.mark.parametrize(
    "take_away", [journal_removed, state_removed, journal_moved, segments_removed]
)


@TAKEN_AWAY
def test_the_journal_is_taken_away(tmp_path: Path, take_away: Callable[[Path], None]) -> None:
    """If the journal is removed, the buffer is merged at once, and recording continues."""
    store = refusing(tmp_path)

    async def scenario(recorder: Recorder, _queue: "asyncio.Queue[Candle]") -> None:
        take_away(store.root)
        await until(lambda: recorder.stats.flushed == MINUTES // 2)
        assert begins(store) == all_minutes()[: MINUTES // 2]

    asyncio.run(with_recorder(store, scenario))
    assert begins(store) == all_minutes()
    assert read_unflushed(store.root) == []


@TAKEN_AWAY
def test_the_journal_is_taken_away_just_before_the_stop(
    tmp_path: Path, take_away: Callable[[Path], None]
) -> None:
    """The last flush merges the buffer without its journal."""
    store = refusing(tmp_path)

    async def main() -> None:
        recorder = OfflineRecorder(store)
        queue = recorder.queue
        stop = asyncio.Event()
        running = asyncio.create_task(recorder.run(stop))
        for minute in range(MINUTES):
            await queue.put(stream_candle(minute))
        await until(lambda: recorder.stats.recorded == MINUTES)
        take_away(store.root)
        stop.set()
        await running

    asyncio.run(main())
    assert begins(store) == all_minutes()


def test_a_partition_refuses_while_the_journal_is_lost(tmp_path: Path) -> None:
    """Candles that cannot be merged are written to the new journal, and survive a kill."""
    store = refusing(tmp_path)
    store.refused = "BTCUSDT"

    async def scenario(recorder: Recorder, _queue: "asyncio.Queue[Candle]") -> None:
        journal_removed(store.root)
        await until(
            lambda: len(read_unflushed(store.root)) == MINUTES // 2 and not recorder.journaled.journal.lost
        )
        store.refused = ""

    asyncio.run(with_recorder(store, scenario))
    assert begins(store) == all_minutes()
    assert read_unflushed(store.root) == []


def test_the_lake_is_moved_away_and_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """While the lake is away no file is created and none lost; when it is back recording continues."""
    store = refusing(tmp_path)

    async def scenario(recorder: Recorder, queue: "asyncio.Queue[Candle]") -> None:
        store.root.rename(tmp_path / "away")
        await queue.put(stream_candle(MINUTES // 2))
        await until(lambda: recorder.stats.refusals >= 2)
        await until(lambda: "candles are kept in memory" in caplog.text)
        assert not store.root.exists()
        (tmp_path / "away").rename(store.root)
        await until(lambda: recorder.stats.recorded > MINUTES // 2)
        recorder.stats.recorded -= 1  # of the candle that comes once more

    asyncio.run(with_recorder(store, scenario))
    assert begins(store) == all_minutes()
    assert read_unflushed(store.root) == []


def test_a_file_lies_where_the_journal_was(tmp_path: Path) -> None:
    """With a file in the journal's place, buffered rows are merged; recording waits for its removal."""
    store = refusing(tmp_path)

    async def scenario(recorder: Recorder, queue: "asyncio.Queue[Candle]") -> None:
        (tmp_path / "file").write_text("?")
        while (store.root / JOURNAL_DIRECTORY).is_dir():
            journal_removed(store.root)
            with contextlib.suppress(IsADirectoryError):  # it was made anew in between
                (tmp_path / "file").rename(store.root / JOURNAL_DIRECTORY)
        await until(lambda: recorder.stats.flushed == MINUTES // 2)
        refusals = recorder.stats.refusals
        await queue.put(stream_candle(MINUTES // 2))
        await until(lambda: recorder.stats.refusals > refusals + 1)
        (store.root / JOURNAL_DIRECTORY).unlink()
        await until(lambda: recorder.stats.recorded > MINUTES // 2)
        recorder.stats.recorded -= 1  # of the candle that comes once more

    asyncio.run(with_recorder(store, scenario))
    assert begins(store) == all_minutes()


@pytest.mark.parametrize("spoil", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_no_file_lies_where_a_partitions_file_should(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    """With a non-file in the place of a partition's file, its candles stay in the journal until it is gone."""
    store = refusing(tmp_path)
    path = store.root / "market=spot/symbol=BTCUSDT/interval=1m/date=2024-06-30/candles.parquet"
    path.parent.mkdir(parents=True)
    spoil(path)

    async def scenario(recorder: Recorder, queue: "asyncio.Queue[Candle]") -> None:
        await queue.put(stream_candle(0, "ETHUSDT"))
        await until(lambda: begins(store, "ETHUSDT") == all_minutes()[:1])
        recorder.stats.recorded -= 1
        assert len(read_unflushed(store.root)) >= MINUTES // 2
        path.rename(tmp_path / "gone")

    asyncio.run(with_recorder(store, scenario, flush_every_s=0.1))
    assert begins(store) == all_minutes()


@pytest.mark.slow
def test_sql_finds_every_logged_candle(tmp_path: Path) -> None:
    """A recorder's state is deleted repeatedly, then it is killed: the lake has all logged candles."""
    lake, log = tmp_path / "lake", tmp_path / "log"

    async def main() -> None:
        async with serve(SandboxOptions(speed=120, symbols=5)) as sandbox:
            arguments = [
                "record",
                "--log-candles",
                "spot:*:1m",
                "usdt_futures:*:1m",
                "--exchange",
                sandbox.url,
            ]
            with child(log, *arguments, "--lake", str(lake)) as recorder:
                for victim in (JOURNAL_DIRECTORY, "_lakewriter"):
                    begun = len(recorder.logged())
                    await until(lambda begun=begun: len(LOGGED.findall(recorder.logged()[begun:])) > 8)
                    removed(lake / victim)
                    await until(lambda begun=begun: "flushed" in recorder.logged()[begun:])
                assert await asyncio.to_thread(recorder.stop) == 0
            logged = set(LOGGED.findall(recorder.logged()))
            assert len(logged) > 15
            rows = plain_rows(lake, "market, symbol, interval, strftime(candle_begin_time, '%Y-%m-%d %H:%M')")
            assert logged <= set(rows), f"lost: {sorted(logged - set(rows))[:5]}"
            assert len(rows) == len(set(rows))

    asyncio.run(main())


def whole_lake_away(root: Path) -> None:
    root.rename(root.parent / "away")


def whole_lake_back(root: Path) -> None:
    if (root.parent / "away").exists() and not root.exists():
        (root.parent / "away").rename(root)


def locks_removed(root: Path) -> None:
    for path in (root / "_lakewriter").rglob("*"):
        if path.is_file() and path.suffix != ".ndjson":
            path.unlink()


STEPS = {
    step.__name__: step
    for step in (journal_removed, state_removed, segments_removed, locks_removed, whole_lake_away)
}


@pytest.mark.slow
@examples(4, 100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(["record", "record", "flush", "refuse", *STEPS]), min_size=3, max_size=8))
def test_any_order_loses_nothing(tmp_path_factory: pytest.TempPathFactory, steps: list[str]) -> None:
    """Deletions in any order between commits and flushes: the stop leaves all recorded candles in the lake."""
    tmp_path = tmp_path_factory.mktemp("order")
    store = refusing(tmp_path)

    async def main() -> None:
        recorder = OfflineRecorder(store)
        queue = recorder.queue
        stop = asyncio.Event()
        running = asyncio.create_task(recorder.run(stop))
        sent = 0
        for step in ("record", *steps, "record"):
            store.refused = "BTCUSDT" if step == "refuse" else ""
            if step == "record":
                whole_lake_back(store.root)
                sent += 2
                await queue.put(stream_candle(sent))
                await queue.put(stream_candle(sent, "ETHUSDT"))
                await until(lambda sent=sent: recorder.stats.recorded == sent)
            elif step in STEPS:
                with contextlib.suppress(FileNotFoundError):
                    STEPS[step](store.root)
            else:
                await recorder.flush()
        whole_lake_back(store.root)
        stop.set()
        await running
        wanted = [stream_candle(minute).begin_ms for minute in range(2, sent + 1, 2)]
        assert begins(store) == begins(store, "ETHUSDT") == wanted
        assert read_unflushed(store.root) == []

    asyncio.run(main())
