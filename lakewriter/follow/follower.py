"""The follower: a plain and an async iterator over the candles of a lake, past and future.

    for candle in lakewriter.open_lake("data").follow("spot:BTCUSDT:1m", since="1d"):
        print(candle.symbol, candle.close)

A candle counts as handled when the next one is asked for, or the follower is closed.
`resume` keeps that place in a file. A candle whose handling raised out of the `with` block
is not handled. A program that stores its own state stores `position` with it, and gives it back as
`after`: then it handles each candle exactly once.
"""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Sequence
from os import PathLike, fspath
from pathlib import Path
from types import TracebackType
from typing import Self

from lakewriter.clock import present_ms
from lakewriter.errors import UsageError
from lakewriter.follow.feed import Feed
from lakewriter.follow.followed_candle import FollowedCandle
from lakewriter.follow.position import Position, parse_position
from lakewriter.follow.position_file import PositionFile
from lakewriter.follow.wanted_series import WantedSeries
from lakewriter.lake.lake import LakeStore
from lakewriter.subscription import parse_subscription
from lakewriter.written_time import Time, moment_ms


class Follower:
    """The candles of some series, each once. It is an iterator and an async iterator.

    One thread or one task may use it. Close it, or use it as a context manager. A wait of
    the task may be cancelled: no candle is lost by that.

    Args:
        feed: the candles.
        position: the result of the feed's `start`.
        file: keeps the position; None if the position is kept by the caller, or not at all.
    """

    def __init__(self, feed: Feed, position: Position, file: PositionFile | None) -> None:
        self._feed = feed
        self._position = position
        self._file = file
        # The handled candles. The one that is being handled is in `_position` only.
        self._handled = position.copy()
        self._handling: FollowedCandle | None = None
        self._batches = feed.batches()
        self._batch: deque[FollowedCandle] = deque()
        # A cancelled wait leaves its read, or its save, running in a thread.
        self._reading = threading.Lock()
        self._saving = threading.Lock()
        self._failure: Exception | None = None
        self._is_closed = False
        self._is_saved = file is None
        # Without it, a follower that dies at its first candle would not know where it began.
        self._save()

    @property
    def position(self) -> str:
        """The place after the last candle that was handed out, as text for `after`.

        Store it after the candle is handled, in the same transaction.
        """
        return self._position.encode()

    def __iter__(self) -> Self:
        """Return the follower."""
        return self

    def __next__(self) -> FollowedCandle:
        """Return the next candle; wait for it if necessary.

        Raises:
            StopIteration: if each series has reached `until`, or the follower is closed.
            LakeError: if a file of the lake cannot be read.
        """
        while True:
            candle = self._take()
            if candle is not None:
                return candle
            count = self._fetch()
            if count is None:
                raise StopIteration
            if not count:
                self._save()
                self._feed.wait()

    def __aiter__(self) -> Self:
        """Return the follower."""
        return self

    async def __anext__(self) -> FollowedCandle:
        """Return the next candle as `__next__`. Files are read in a thread.

        Raises:
            StopAsyncIteration: in place of StopIteration.
        """
        import asyncio  # noqa: PLC0415 - slow to import, and each query imports this module

        while True:
            candle = self._take()
            if candle is not None:
                return candle
            count = await asyncio.to_thread(self._fetch)
            if count is None:
                raise StopAsyncIteration
            if not count:
                await asyncio.to_thread(self._save)
                await _readable(self._feed.fileno(), self._feed.look_in_s())

    def close(self) -> None:
        """Stop following, and save the position to the file of `resume`. The last candle is handled.

        A read that a cancelled wait left behind is awaited.
        """
        if not self._is_closed:
            self._is_closed = True
            self._count_handled()
            with self._reading:
                self._batches.close()
                self._batch.clear()
            self._feed.close()
            self._save()

    def __enter__(self) -> Self:
        """Return the follower."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the follower. A candle whose handling raised is not handled."""
        if kind is not None:
            self._handling = None
        self.close()

    def __del__(self) -> None:
        """Release the descriptors of a follower that was not closed."""
        with contextlib.suppress(AttributeError):
            self._feed.close()

    def _take(self) -> FollowedCandle | None:
        """Return the next candle of the present batch, or None at its end."""
        self._count_handled()
        if not self._batch:
            return None
        if self._file is not None and not self._file.due_in_s(time.monotonic()):
            self._save()
        candle = self._handling = self._batch.popleft()
        if not candle.correction:
            self._position.add((candle.market, candle.symbol, candle.interval), candle.begin_ms)
        return candle

    def _count_handled(self) -> None:
        candle, self._handling = self._handling, None
        if candle is None or candle.correction or self._file is None:
            return
        with self._saving:
            self._handled.add((candle.market, candle.symbol, candle.interval), candle.begin_ms)
            self._is_saved = False

    def _fetch(self) -> int | None:
        """Read the next batch, and return its length; None at the end."""
        with self._reading:
            # The batch, or the error, may be that of a call that was cancelled.
            if self._failure is not None:
                raise self._failure
            if not self._batch:
                try:
                    batch = None if self._is_closed else next(self._batches, None)
                except Exception as error:
                    self._failure = error
                    raise
                if batch is None:
                    return None
                self._batch.extend(batch)
            return len(self._batch)

    def _save(self) -> None:
        if self._file is None:
            return
        with self._saving:
            if not self._is_saved:
                self._file.save(self._handled, time.monotonic())
                self._is_saved = True


def follow(
    store: LakeStore,
    subscriptions: str | Sequence[str],
    *,
    since: Time | None = None,
    until: Time | None = None,
    corrections: bool = False,
    resume: str | PathLike[str] | None = None,
    after: str | None = None,
) -> Follower:
    """Return a follower of a lake; see `Lake.follow`."""
    if store.is_remote:
        raise UsageError(
            f"follow: {store.name} is on an object store", "follow the lake of a recorder on this machine"
        )
    texts = [subscriptions] if isinstance(subscriptions, str) else list(subscriptions)
    if not texts:
        raise UsageError("follow: no subscription", 'lake.follow("spot:BTCUSDT:1m")')
    wanted = WantedSeries([parse_subscription(text) for text in texts])
    now_ms = present_ms()
    since_ms = None if since is None else moment_ms(since, "since", now_ms)
    until_ms = None if until is None else moment_ms(until, "until", now_ms)
    if resume is not None and after is not None:
        raise UsageError("follow: resume and after exclude each other", "give the one that has your position")
    file = None if resume is None else PositionFile(Path(fspath(resume)))
    saved = None if file is None else file.read()
    position = saved.position if saved is not None else Position()
    if after is not None:
        position = parse_position(after, "after")
    feed = Feed(store.root, wanted, position, since_ms=since_ms, until_ms=until_ms, corrections=corrections)
    try:
        return Follower(feed, feed.start(), file)
    except BaseException:
        feed.close()
        raise


async def _readable(fd: int, timeout_s: float | None) -> None:
    """Wait until a descriptor is readable, or the time is over."""
    import asyncio  # noqa: PLC0415 - see `__anext__`

    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(fd, readable.set)
    try:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(readable.wait(), timeout_s)
    finally:
        loop.remove_reader(fd)
