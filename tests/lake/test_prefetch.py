"""Prefetch: many pending requests, with results in order."""

import threading

import pytest

from lakewriter.lake.prefetch import prefetch
from support.running import PATIENCE_S


def test_results_come_in_order() -> None:
    """Results have the order of their inputs, in any order of completion."""
    first_may_end = threading.Event()

    def work(number: int) -> int:
        if number == 0:
            assert first_may_end.wait(PATIENCE_S)
        else:
            first_may_end.set()
        return number * 10

    assert list(prefetch(work, range(5), 2)) == [0, 10, 20, 30, 40]


def test_no_more_than_so_many_are_begun() -> None:
    """Unconsumed results delay further work."""
    begun: list[int] = []
    results = prefetch(lambda number: begun.append(number), iter(range(100)), 3)
    next(results)
    assert set(begun) <= {0, 1, 2}
    results.close()
    assert len(begun) <= 3


def test_error_comes_in_its_place() -> None:
    """Results before the error are yielded, and none after it."""
    results = prefetch(lambda number: 1 // number, [1, 1, 0, 1], 4)
    assert [next(results), next(results)] == [1, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert list(results) == []


def test_of_nothing_comes_nothing() -> None:
    """No inputs give no results."""
    assert list(prefetch(str, [], 4)) == []
