"""The readers of the page: they run its reads beside the event loop, a few at a time.

Strategy: any number of browsers cost as much as one. Equal requests share one read, and
its answer is kept for a moment that grows with the time it took. A recorder reads in
child processes of low priority, so that it neither waits for a read nor imports DuckDB.
They end after `IDLE_S` without a read.
"""

import asyncio
import contextlib
import logging
import os
import signal
import time
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import NamedTuple

import msgspec

from lakewriter.engines.child_process import die_with_parent
from lakewriter.errors import LakewriterError, UsageError
from lakewriter.web.page.questions import ReadName
from lakewriter.without_pandas import without_pandas

# Maximum number of different reads that wait or run. Further ones are refused.
WAITING_MAX = 16

# Maximum number of kept answers.
KEPT_MAX = 64

# An answer is kept at least this long, and for so many times the processor's time that it
# took. So one question takes at most a twentieth of a processor, however often it is asked.
# A read that waits for an object store is kept for as long as it took.
KEPT_S_MIN = 0.5
KEPT_TIMES = 19

# Reads at once. So the candles need not wait for the gaps of a large lake. A second child
# process starts only if the first one is busy.
RUNNING_MAX = 2

# The child processes of a recorder end after this time without a read.
IDLE_S = 300.0

_NICENESS = 10


class Answer(NamedTuple):
    """The answer to one read.

    Args:
        status: the HTTP status.
        body: JSON; {"error", "hint"} unless the status is 200.
    """

    status: int
    body: bytes


class _Done(NamedTuple):
    """An answer, and for how many seconds it is kept."""

    answer: Answer
    kept_s: float


# Reads that run. Python would wait for them at exit.
_RUNNING: set[Future[_Done]] = set()


def has_pending() -> bool:
    """Return whether a read still runs, also after its readers were closed."""
    return bool(_RUNNING)


class BusyError(LakewriterError):
    """Too many reads are waiting."""


class _CannotStartError(Exception):
    """The system refuses a process, a thread or a file."""


class LakeReaders:
    """The readers of one lake. Only the event loop's thread uses them.

    Args:
        uri: the lake, absolute.
        apart: whether child processes read.
    """

    def __init__(self, uri: str, *, apart: bool) -> None:
        self.uri = uri
        self._apart = apart
        self._executor: Executor | None = None
        self._reads: dict[object, asyncio.Task[Answer]] = {}
        self._kept_until_s: dict[object, float] = {}
        self._idle: asyncio.TimerHandle | None = None

    async def ask(self, read: ReadName, *arguments: object, key: object = None) -> Answer:
        """Return the answer of the read `read(uri, *arguments)`, which may be some moments old.

        Args:
            key: what tells the reads of one function apart; None is its arguments.

        Raises:
            BusyError: if too many reads wait.
        """
        loop = asyncio.get_running_loop()
        self._drop_old(loop.time())
        name = (read, arguments if key is None else key)
        task = self._reads.get(name)
        if task is None:
            if sum(not each.done() for each in self._reads.values()) >= WAITING_MAX:
                raise BusyError("page: too many reads wait", "try again in a moment")
            task = self._reads[name] = loop.create_task(self._read(name, read, arguments))
        # A browser that goes away does not end the read of the others.
        return await asyncio.shield(task)

    async def close(self) -> None:
        """End the readers. A running read is not awaited."""
        if self._idle is not None:
            self._idle.cancel()
        for task in self._reads.values():
            task.cancel()
        await asyncio.gather(*self._reads.values(), return_exceptions=True)
        self._reads.clear()
        self._end_executor()

    def _drop_old(self, now_s: float) -> None:
        for name, until_s in list(self._kept_until_s.items()):
            if until_s <= now_s or len(self._kept_until_s) > KEPT_MAX:
                del self._kept_until_s[name]
                del self._reads[name]

    async def _read(self, name: object, read: ReadName, arguments: tuple[object, ...]) -> Answer:
        loop = asyncio.get_running_loop()
        done = _Done(failure(503, "page: the reading process was killed", "try again"), KEPT_S_MIN)
        executor = self._executor
        try:
            running = self._submit(read, arguments)
            executor = self._executor
            done = await asyncio.wrap_future(running)
        except BrokenProcessPool:
            if self._executor is executor:
                self._end_executor()
        except _CannotStartError as error:
            done = _Done(failure(503, f"page: no read can start: {error}", "try again"), KEPT_S_MIN)
        finally:
            self._kept_until_s[name] = loop.time() + done.kept_s
        return done.answer

    def _submit(self, read: ReadName, arguments: tuple[object, ...]) -> "Future[_Done]":
        try:
            running = self._started().submit(_answer, read, self.uri, arguments)
        except BrokenProcessPool:
            raise
        except (OSError, RuntimeError) as error:  # too many files, processes or threads
            # A half-started executor may never answer. The reads that it runs go on.
            if self._executor is not None:
                self._executor.shutdown(wait=False)
                self._executor = None
            raise _CannotStartError(getattr(error, "strerror", None) or error) from None
        _RUNNING.add(running)
        running.add_done_callback(_RUNNING.discard)
        return running

    def _started(self) -> Executor:
        loop = asyncio.get_running_loop()
        if self._executor is None:
            self._executor = (
                # A forked child of a process with threads may deadlock; a spawned one does not.
                ProcessPoolExecutor(RUNNING_MAX, mp_context=get_context("spawn"), initializer=_become_reader)
                if self._apart
                else ThreadPoolExecutor(RUNNING_MAX, thread_name_prefix="page")
            )
        if self._apart:
            if self._idle is not None:
                self._idle.cancel()
            self._idle = loop.call_later(IDLE_S, self._end_executor)
        return self._executor

    def _end_executor(self) -> None:
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
            self._executor = None


def _become_reader() -> None:
    """Prepare a child process of a recorder."""
    die_with_parent()
    # A Ctrl-C is for the recorder, which ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        os.nice(_NICENESS)
    # The recorder logs the same warnings.
    logging.getLogger("lakewriter").addHandler(logging.NullHandler())
    logging.getLogger("lakewriter").propagate = False


def _answer(read: ReadName, uri: str, arguments: tuple[object, ...]) -> _Done:
    # The wait for this thread is no part of the read's cost.
    began_s, began_cpu_s = time.monotonic(), time.thread_time()
    answer = _read(read, uri, arguments)
    cpu_s, seconds = time.thread_time() - began_cpu_s, time.monotonic() - began_s
    return _Done(answer, max(KEPT_S_MIN, KEPT_TIMES * cpu_s, seconds))


def _read(read: ReadName, uri: str, arguments: tuple[object, ...]) -> Answer:
    try:
        with without_pandas():
            # A recorder's own process never imports the engine.
            from lakewriter.web.page import lake_reads  # noqa: PLC0415

            return Answer(200, getattr(lake_reads, read)(uri, *arguments))
    except UsageError as error:
        return failure(400, error.what, error.hint)
    except LakewriterError as error:
        return failure(500, error.what, error.hint)
    except (OSError, MemoryError) as error:
        return failure(500, f"page: {error}", "")


def failure(status: int, what: str, hint: str) -> Answer:
    """Return the answer to a read or a request that failed."""
    return Answer(status, msgspec.json.encode({"error": what, "hint": hint}))
