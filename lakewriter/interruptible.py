"""Waits for another thread that Ctrl-C always ends.

Python runs a signal's handler between two steps of the main thread. A signal that
arrives after such a step, but before the thread sleeps, does not wake it. On a busy
machine the moment between the two is long, so one long sleep loses a Ctrl-C.
"""

import math
import time
from concurrent.futures import Future, wait
from typing import Any, TypeVar

T = TypeVar("T")

# A lost Ctrl-C is noticed after this time.
CHECK_EVERY_S = 0.25


def wait_for(future: Future[Any], timeout_s: float = math.inf) -> bool:
    """Wait for a future in short sleeps; return whether it is done."""
    until_s = time.monotonic() + timeout_s
    while not future.done() and (left_s := until_s - time.monotonic()) > 0:
        wait([future], min(left_s, CHECK_EVERY_S))
    return future.done()


def result_of(future: Future[T]) -> T:
    """Wait for a future, and return its result or raise its error."""
    wait_for(future)
    return future.result()
