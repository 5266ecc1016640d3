"""The engine of this host: a pool of processes. Few items are done in this process."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice
from multiprocessing import get_context
from types import TracebackType
from typing import Self

from lakewriter.engines.child_process import die_with_parent
from lakewriter.engines.engine import S, T, Task, ignore
from lakewriter.errors import LakewriterError
from lakewriter.interruptible import result_of
from lakewriter.without_pandas import hide_pandas

# Fewer chunks are done in this process; the start of others takes longer.
_CHUNKS_MIN = 4

# A task in this process gets at most so many items: progress is shown after each task.
_CHUNK_HERE_MAX = 12

# So many chunks for each process are given out at once. Results wait for earlier ones.
_AHEAD = 4


def _start_worker() -> None:
    die_with_parent()
    hide_pandas()


class LocalEngine:
    """Runs tasks in processes of this host.

    Args:
        command: the command's name, for errors.
        processes: the number of processes; None for one on each core.
    """

    is_distributed = False
    repeated = False

    def __init__(self, command: str, processes: int | None = None) -> None:
        self._command = command
        self._processes = processes or os.cpu_count() or 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Do nothing: `map` ends its processes itself."""

    def map(
        self,
        task: Task[S, T],
        items: Iterable[S],
        *,
        chunk: int,
        advance: Callable[[int], None] = ignore,
    ) -> Iterator[T]:
        """Yield the result of each item, in order; see `Engine`.

        Raises:
            LakewriterError: if a process is killed.
        """
        items = iter(items)
        first = list(islice(items, chunk * _CHUNKS_MIN)) if self._processes > 1 else []
        if len(first) < chunk * _CHUNKS_MIN:
            few = min(chunk, _CHUNK_HERE_MAX)
            for each in _chunks(chain(first, items), few):
                yield from task(each)
                advance(len(each))
            return
        # A forked child of a process with threads may deadlock; a spawned one does not.
        pool = ProcessPoolExecutor(
            self._processes, mp_context=get_context("spawn"), initializer=_start_worker
        )
        chunks = _chunks(chain(first, items), chunk)
        waiting: deque[Future[list[T]]] = deque()
        with pool:
            try:
                waiting.extend(pool.submit(task, each) for each in islice(chunks, _AHEAD * self._processes))
                while waiting:
                    results = result_of(waiting.popleft())
                    waiting.extend(pool.submit(task, each) for each in islice(chunks, 1))
                    advance(len(results))
                    yield from results
            except BrokenProcessPool:
                raise LakewriterError(
                    f"{self._command}: a worker process was killed; no partition is half changed",
                    "run it again",
                ) from None
            finally:
                for future in waiting:
                    future.cancel()


def _chunks(items: Iterable[S], size: int) -> Iterator[list[S]]:
    left = iter(items)
    return iter(lambda: list(islice(left, size)), [])
