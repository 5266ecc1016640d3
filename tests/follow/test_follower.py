"""The follower: waits that are cancelled, and the place in the file of `resume`."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import lakewriter
from lakewriter.errors import LakeError
from lakewriter.follow import feed as feed_module
from lakewriter.follow.follower import Follower
from lakewriter.follow.position import parse_position
from support.candles import stream_candle
from support.lakes import BEGIN_MS, make_lake
from support.running import PATIENCE_S

COUNT = 5
SINCE = "2024-06-30"
SERIES = "spot:BTCUSDT:1m"


@pytest.fixture
def lake(tmp_path: Path) -> lakewriter.Lake:
    make_lake(tmp_path / "lake", [stream_candle(number) for number in range(COUNT)])
    return lakewriter.open_lake(str(tmp_path / "lake"))


def minute(candle: lakewriter.Candle) -> int:
    return (candle.begin_ms - BEGIN_MS) // 60_000


class SlowDisk:
    """A read of the history that begins, then waits until it may go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.has_begun, self.may_go_on = threading.Event(), threading.Event()
        self.error: Exception | None = None
        self._read: Callable[..., Iterator[Any]] = feed_module.read_history
        monkeypatch.setattr(feed_module, "read_history", self._slowly)

    def _slowly(self, *arguments: object) -> Iterator[Any]:
        self.has_begun.set()
        assert self.may_go_on.wait(PATIENCE_S)
        if self.error is not None:
            raise self.error
        yield from self._read(*arguments)

    async def cancelled_wait(self, follower: Follower) -> None:
        """Ask for a candle, and cancel that while its thread reads."""
        task = asyncio.ensure_future(anext(follower))
        assert await asyncio.to_thread(self.has_begun.wait, PATIENCE_S)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> SlowDisk:
    return SlowDisk(monkeypatch)


def test_a_cancelled_wait_loses_nothing(lake: lakewriter.Lake, disk: SlowDisk) -> None:
    """The next wait gets the candles that the cancelled one was reading, whether its thread is slow or quick."""

    async def main() -> None:
        with lake.follow(SERIES, since=SINCE) as follower:
            await disk.cancelled_wait(follower)
            asyncio.get_running_loop().call_later(0.05, disk.may_go_on.set)
            assert [minute(await anext(follower)) for _ in range(COUNT)] == [*range(COUNT)]

        disk.has_begun.clear()
        disk.may_go_on.clear()
        with lake.follow(SERIES, since=SINCE) as follower:
            await disk.cancelled_wait(follower)
            second = asyncio.ensure_future(anext(follower))
            await asyncio.sleep(0)  # it is about to read, too
            disk.may_go_on.set()
            assert minute(await second) == 0
            assert [minute(await anext(follower)) for _ in range(1, COUNT)] == [*range(1, COUNT)]

    asyncio.run(main())


def test_a_late_second_read_keeps_the_batch(lake: lakewriter.Lake, disk: SlowDisk) -> None:
    """A read that a busy executor begins after an earlier one has ended does not replace its batch."""
    disk.may_go_on.set()
    with lake.follow(SERIES, since=SINCE) as follower:
        follower._fetch()  # the thread of the cancelled wait
        follower._fetch()  # that of the next one, which was asked for before the first one's end
        assert [minute(next(follower)) for _ in range(COUNT)] == [*range(COUNT)]


def test_an_error_of_a_cancelled_wait_is_not_the_end(lake: lakewriter.Lake, disk: SlowDisk) -> None:
    """The next wait raises it: without that, the follower would seem to be at its end."""
    disk.error = LakeError("the disk is broken")

    async def main() -> None:
        with lake.follow(SERIES, since=SINCE) as follower:
            await disk.cancelled_wait(follower)
            disk.may_go_on.set()
            for _ in range(2):
                with pytest.raises(LakeError, match="the disk is broken"):
                    await anext(follower)

    asyncio.run(main())


def test_a_close_during_a_read_releases_the_watch(lake: lakewriter.Lake, disk: SlowDisk) -> None:
    """A follower that is closed after a cancelled wait awaits the read, then closes all; nothing comes after it."""

    async def main() -> None:
        follower = lake.follow(SERIES, since=SINCE)
        await disk.cancelled_wait(follower)
        asyncio.get_running_loop().run_in_executor(None, disk.may_go_on.set)
        follower.close()
        assert follower._feed.fileno() < 0
        with pytest.raises(StopAsyncIteration):
            await anext(follower)

    asyncio.run(main())


def handled(place: Path) -> list[int]:
    """Return the minutes that a position file counts as handled."""
    position = parse_position(place.read_text(), "place")
    begins = ((number, BEGIN_MS + number * 60_000) for number in range(COUNT))
    return [number for number, begin_ms in begins if position.has(("spot", "BTCUSDT", "1m"), begin_ms)]


def test_a_candle_whose_handling_raised_comes_again(lake: lakewriter.Lake, tmp_path: Path) -> None:
    """Just the candles before it are saved, however quick they came; it is the first one of the next run."""
    place = tmp_path / "place.json"
    with (
        pytest.raises(ZeroDivisionError),
        lake.follow(SERIES, since=SINCE, resume=place) as follower,
    ):
        for candle in follower:
            1 // (2 - minute(candle))
    assert handled(place) == [0, 1]
    with lake.follow(SERIES, resume=place) as follower:
        assert minute(next(follower)) == 2
        assert f'"spot:BTCUSDT:1m":[[0,{BEGIN_MS + 3 * 60_000}]]' in follower.position
    assert handled(place) == [0, 1, 2]


def test_a_cancelled_task_has_handled_its_candles(lake: lakewriter.Lake, tmp_path: Path) -> None:
    """A task that is cancelled while it waits for the next candle has handled the last one."""
    place = tmp_path / "place.json"

    async def main() -> None:
        with lake.follow(SERIES, since=SINCE, resume=place) as follower:
            async with asyncio.timeout(None) as limit:
                async for candle in follower:
                    if minute(candle) == COUNT - 1:
                        limit.reschedule(asyncio.get_running_loop().time() + 0.05)

    with pytest.raises(TimeoutError):
        asyncio.run(main())
    assert handled(place) == [*range(COUNT)]


def test_a_close_counts_the_last_candle(lake: lakewriter.Lake, tmp_path: Path) -> None:
    """A program that has enough, and closes, does not get its last candle again."""
    place = tmp_path / "place.json"
    with closing(lake.follow(SERIES, since=SINCE, resume=place)) as follower:
        assert [minute(next(follower)) for _ in range(2)] == [0, 1]
    assert handled(place) == [0, 1]
