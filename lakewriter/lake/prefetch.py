"""Prefetch: many requests are pending at once, and their results are returned in order.

Each request to an object store takes a round trip. Thirty concurrent requests take no
longer than one. Prefetching does not speed up work that needs the processor.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from lakewriter.interruptible import result_of

# The maximum number of pending requests to an object store.
PENDING_MAX = 32

_NAME = "prefetch"

S = TypeVar("S")
T = TypeVar("T")


def prefetch(work: Callable[[S], T], things: Iterable[S], pending_max: int) -> Iterator[T]:
    """Yield the result of `work` for each thing, in order.

    At most `pending_max` results are pending or not consumed yet. A caller that
    stops early does not wait for pending results.

    Raises:
        Exception: an exception of `work`, at the place of its result.
    """
    waiting: deque[Future[T]] = deque()
    pool = ThreadPoolExecutor(pending_max, thread_name_prefix=_NAME)
    try:
        for thing in things:
            waiting.append(pool.submit(work, thing))
            if len(waiting) == pending_max:
                yield result_of(waiting.popleft())
        while waiting:
            yield result_of(waiting.popleft())
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def run_apart(work: Callable[[], T]) -> T:
    """Return the result of `work`. In the main thread it runs in another one, so that Ctrl-C ends the wait.

    Raises:
        Exception: an exception of `work`.
    """
    if threading.current_thread() is not threading.main_thread():
        return work()
    (result,) = prefetch(lambda _: work(), [None], 1)
    return result


def has_pending() -> bool:
    """Return whether any work may be pending. The interpreter's exit waits for pending work."""
    return any(thread.name.startswith(f"{_NAME}_") for thread in threading.enumerate())
