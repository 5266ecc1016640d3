"""A value that is made again only after some time, however often it is asked for."""

from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Kept(Generic[T]):
    """The last value of a function.

    Args:
        make: returns a new value.
        seconds: the time for which a value is used.
        clock_s: returns a monotonic time in seconds.
    """

    def __init__(self, make: Callable[[], T], seconds: float, clock_s: Callable[[], float]) -> None:
        self._make = make
        self._seconds = seconds
        self._clock_s = clock_s
        self._value: T | None = None
        self._made_s = float("-inf")

    def __call__(self) -> T:
        """Return the last value, or a new one if the last one is too old."""
        now_s = self._clock_s()
        if self._value is None or now_s >= self._made_s + self._seconds:
            self._value, self._made_s = self._make(), now_s
        return self._value
