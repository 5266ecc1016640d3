"""Prefetch: many requests pending at once, their results in order.

Each request to an object store takes a round trip, and thirty at once take no
longer. Work that needs the processor gains nothing here.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

# Pending requests to an object store.
PENDING_MAX = 32

_NAME = "prefetch"

S = TypeVar("S")
T = TypeVar("T")


def prefetch(work: Callable[[S], T], things: Iterable[S], pending_max: int) -> Iterator[T]:
    """Yield the result of `work` for each thing, in order.

    At most `pending_max` results are pending or not consumed yet. A caller that
    stops early does not wait for pending ones.

    Raises:
        the exceptions of `work`, each at its place.
    """
    waiting: deque[Future[T]] = deque()
    pool = ThreadPoolExecutor(pending_max, thread_name_prefix=_NAME)
    try:
        for thing in things:
            waiting.append(pool.submit(work, thing))
            if len(waiting) == pending_max:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def has_pending() -> bool:
    """Return whether work may be pending. The interpreter's exit waits for it."""
    return any(thread.name.startswith(f"{_NAME}_") for thread in threading.enumerate())
