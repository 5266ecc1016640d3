"""The local engine: results in order, and items taken as they are needed."""

from collections.abc import Iterator

import pytest

from lakewriter.engines.local import LocalEngine
from lakewriter.errors import LakewriterError


def doubled(items: list[int]) -> list[int]:
    return [2 * item for item in items]


def killed(items: list[int]) -> list[int]:
    import os
    import signal

    os.kill(os.getpid(), signal.SIGKILL)
    return items


def has_pandas(items: list[int]) -> list[bool]:
    import sys

    import pyarrow as pa

    pa.array([1.0])
    return ["pandas" in sys.modules for _ in items]


@pytest.mark.parametrize("count", [0, 1, 399, 1000])
def test_order(count):
    """Each item has its result, in order, in this process and in others."""
    told: list[int] = []
    with LocalEngine("test", 2) as engine:
        found = list(engine.map(doubled, iter(range(count)), chunk=100, advance=told.append))
    assert found == [2 * number for number in range(count)]
    assert sum(told) == count
    assert not engine.repeated


def test_streams():
    """Items are taken as they are needed, not all at once."""
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for number in range(100_000):
            taken += 1
            yield number

    with LocalEngine("test", 2) as engine:
        results = engine.map(doubled, items(), chunk=10)
        assert next(results) == 0
        assert taken <= 200
        results.close()


def test_workers_do_not_import_pandas():
    """Arrow's first array imports pandas otherwise: 50 MB of memory in each worker."""
    with LocalEngine("test", 2) as engine:
        assert not any(engine.map(has_pandas, range(40), chunk=10))


def test_killed():
    """A killed process ends the command with one line."""
    with (
        LocalEngine("test", 2) as engine,
        pytest.raises(LakewriterError, match="a worker process was killed"),
    ):
        list(engine.map(killed, range(100), chunk=10))
