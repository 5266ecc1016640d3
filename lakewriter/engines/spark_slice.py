"""The part of the Spark engine that runs on an executor: one slice of the items.

Only this module is imported by executors. A task's error is returned, not raised: Spark
would run the slice three times more, and print the traceback each time.
"""

import pickle
import socket
import traceback
from collections.abc import Iterator
from typing import Any, NamedTuple

import pyarrow as pa

from lakewriter import __version__
from lakewriter.engines.engine import Task
from lakewriter.errors import LakewriterError

# The columns of a slice's result, as Spark writes types.
COLUMNS = "slice long, attempt long, results binary, error string, hint string"


class SparkJob(NamedTuple):
    """A task and the items of one job of Spark.

    Args:
        task: the task.
        slices: for each slice its items, pickled. A slice unpickles only its own.
        version: the version of lakewriter that made the job.
    """

    task: Task[Any, Any]
    slices: list[bytes]
    version: str

    def run(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Run the task on the slices whose numbers are in the batches; the function of `mapInArrow`."""
        from pyspark import TaskContext  # noqa: PLC0415 - only an executor has the context

        context = TaskContext.get()
        attempt = context.attemptNumber() if context is not None else 0
        for batch in batches:
            for number in batch.column(0).to_pylist():
                results, error, hint = self._run_slice(number)
                row = {
                    "slice": pa.array([number], pa.int64()),
                    "attempt": pa.array([attempt], pa.int64()),
                    "results": pa.array([results], pa.binary()),
                    "error": pa.array([error]),
                    "hint": pa.array([hint]),
                }
                yield pa.RecordBatch.from_pydict(row)

    def _run_slice(self, number: int) -> tuple[bytes, str, str]:
        """Return the pickled results of a slice, or an error and its hint."""
        if self.version != __version__:
            what = f"{socket.gethostname()} has lakewriter {__version__}, and this host {self.version}"
            return b"", what, "install the same version on all of them"
        try:
            items = pickle.loads(self.slices[number])  # noqa: S301 - of our driver, whose code runs here
            return pickle.dumps(self.task(items)), "", ""
        except LakewriterError as error:
            return b"", f"on {socket.gethostname()}: {error.what}", error.hint
        except Exception as error:  # noqa: BLE001 - the driver raises it
            (last,) = traceback.extract_tb(error.__traceback__)[-1:]
            where = f"{last.filename.rpartition('/')[2]}:{last.lineno}"
            return b"", f"on {socket.gethostname()}: {type(error).__name__}: {error} ({where})", ""
