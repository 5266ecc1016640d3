"""Working ahead: many things under way at once, their results in order.

For what waits on others, not for the processor: each request to an object
store takes a round trip, and so do thirty of them together.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

# Requests to an object store under way at once.
PENDING_MAX = 32

_NAME = "ahead"

S = TypeVar("S")
T = TypeVar("T")


def prefetch(work: Callable[[S], T], things: Iterable[S], pending_max: int) -> Iterator[T]:
    """Yield what the work makes of each thing, in order.

    At most `pending_max` results are under way or wait to be taken. Whoever stops
    early waits for none of them: what is under way ends in its own time.

    Raises:
        what the work raises, at its place.
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
    """Tell whether something is under way, or was a moment ago; the interpreter would wait for it to end."""
    return any(thread.name.startswith(f"{_NAME}_") for thread in threading.enumerate())
