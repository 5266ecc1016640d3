"""Working ahead: many things under way at once, their results in order.

For what waits on others, not for the processor: each request to an object
store takes a round trip, and so do thirty of them together.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

# Requests to an object store under way at once.
AT_ONCE = 32

S = TypeVar("S")
T = TypeVar("T")


def ahead(work: Callable[[S], T], things: Iterable[S], at_once: int) -> Iterator[T]:
    """Yield what the work makes of each thing, in order.

    At most `at_once` results are under way or wait to be taken. Whoever stops
    early waits for what is under way, not for the rest.

    Raises:
        what the work raises, at its place.
    """
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(at_once, thread_name_prefix="ahead") as pool:
        try:
            for thing in things:
                waiting.append(pool.submit(work, thing))
                if len(waiting) == at_once:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for each in waiting:
                each.cancel()
