"""A wait for another thread that Ctrl-C always ends.

Python runs a signal's handler between two steps of the main thread. A signal that
arrives after such a step, but before the thread sleeps, does not wake it. On a busy
machine the moment between the two is long, so a wait without a limit loses a Ctrl-C.
"""

from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")

# A lost Ctrl-C is noticed after this time.
CHECK_EVERY_S = 0.25


def result_of(future: Future[T]) -> T:
    """Wait for a future, and return its result or raise its error. The main thread notices signals meanwhile."""
    while True:
        try:
            return future.result(CHECK_EVERY_S)
        except TimeoutError:
            # The work itself may have raised a TimeoutError, for example of a network disk.
            if future.done():
                return future.result()
