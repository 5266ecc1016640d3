"""The system's clocks."""

import time

from lakewriter.clock import Clock


def test_wall_clock():
    """The wall clock counts microseconds since the epoch."""
    before_us = time.time_ns() // 1000
    assert before_us <= Clock().wall_us() <= time.time_ns() // 1000


def test_monotonic_clock():
    """The monotonic clock never goes back."""
    clock = Clock()
    seen = [clock.monotonic_s() for _ in range(1000)]
    assert seen == sorted(seen)
