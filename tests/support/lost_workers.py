"""A Spark engine that loses a worker after its work, before the worker reports it."""

import os
import signal
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

from lakewriter.engines.engine import S, T, Task, ignore
from lakewriter.engines.spark import SparkEngine


def done_but_killed(task: Task[S, T], marks: Path, items: list[S]) -> list[T]:
    """Do a task; the first time, end with SIGKILL instead of returning its results."""
    results = task(items)
    try:
        marks.mkdir()
    except FileExistsError:
        return results
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


class LosingSpark(SparkEngine):
    """A Spark engine whose first finished task loses its worker.

    Attributes:
        marks: a directory that the killed worker makes.
    """

    marks = Path()

    def map(
        self, task: Task[S, T], items: Iterable[S], *, chunk: int, advance: Callable[[int], None] = ignore
    ) -> Iterator[T]:
        import sys

        from pyspark import cloudpickle

        # Executors cannot import the tests.
        cloudpickle.register_pickle_by_value(sys.modules[__name__])
        return super().map(partial(done_but_killed, task, self.marks), items, chunk=chunk, advance=advance)
