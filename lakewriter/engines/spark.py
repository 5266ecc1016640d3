"""The engine of a Spark cluster: each slice of the items is one task of Spark.

An executor imports the lakewriter that is installed there, and calls the same function as a
process of the local engine (`spark_slice`). The items travel with the function, and
`mapInArrow` brings back the results. So a classic cluster and a Connect server both do, and
no shuffle is needed.

Strategy: a Python task of Spark costs 40 to 140 ms, so slices follow the cores. Items are
taken in waves, each one job. While a wave runs, the items of the next one are listed. So
memory does not grow with the number of items. Results are collected at the end of a wave:
Spark's other way would run slice after slice.

A slice whose executor dies runs again. Its result then lacks what the dead run did. The
number of a slice's attempt tells. Without a shuffle no other number is needed, and with
speculation a killed copy may have done anything.
"""

import pickle
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice, pairwise
from types import TracebackType
from typing import Any, Self

from lakewriter import __version__
from lakewriter.engines.engine import S, T, Task, ignore
from lakewriter.engines.spark_session import Session, check_master, first_line, open_session
from lakewriter.engines.spark_slice import COLUMNS, SparkJob
from lakewriter.errors import LakewriterError
from lakewriter.interruptible import CHECK_EVERY_S, wait_for
from lakewriter.without_pandas import show_pandas

# The limit of the start of a session, and of a wait without any executor.
START_S_MAX = 180.0

# The limit of the end of a session.
END_S_MAX = 10.0

# Slices for each core: the slowest one is then not much longer than the others.
SLICES_PER_CORE = 4

# The items of a wave: so many, or so many chunks for each slice of a large cluster.
WAVE_ITEMS_MIN = 10_000
WAVE_CHUNKS = 2

_NAME = "spark-session"


class SparkEngine:
    """Runs tasks on the executors of a Spark cluster. The cluster is asked with the first item.

    Args:
        command: the command's name, for errors.
        master: Spark's master, or the URL of a Connect server.
        options: Spark's configuration.
        start_s_max: the limit of the start, and of a wait without any executor, in seconds.

    Raises:
        UsageError: if it is no master.
        LakewriterError: if pyspark or Java is absent, or nothing listens there.
    """

    is_distributed = True

    def __init__(
        self, command: str, master: str, options: Mapping[str, str], start_s_max: float = START_S_MAX
    ) -> None:
        show_pandas()  # pyspark imports it
        check_master(master)
        self.repeated = False
        self._command = command
        self._master = master
        self._options = options
        self._start_s_max = start_s_max
        self._session: Session | None = None
        self._keep_log = False
        self._cores = 0
        # Spark binds a job to the thread that starts it. The main thread waits, so that Ctrl-C ends it.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=_NAME)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Cancel the running job, and end the session and its Java process."""
        session = self._session
        if session is not None:
            ending = ThreadPoolExecutor(1, thread_name_prefix=_NAME)
            if error is not None:
                wait_for(ending.submit(session.cancel), END_S_MAX)
            wait_for(ending.submit(session.close, keep_log=self._keep_log), END_S_MAX)
            ending.shutdown(wait=False)
        self._thread.shutdown(wait=False, cancel_futures=True)

    def map(
        self,
        task: Task[S, T],
        items: Iterable[S],
        *,
        chunk: int,
        advance: Callable[[int], None] = ignore,
    ) -> Iterator[T]:
        """Yield the result of each item, in order; see `Engine`.

        Raises:
            LakewriterError: if Spark, the cluster or a task fails.
        """
        items = iter(items)
        wave = list(islice(items, WAVE_ITEMS_MIN))
        if not wave:
            return
        session = self._started()
        size = max(WAVE_ITEMS_MIN, self._cores * SLICES_PER_CORE * WAVE_CHUNKS * chunk)
        wave += islice(items, size - len(wave))
        while wave:
            running = self._thread.submit(self._collect, session, task, wave, self._slices(len(wave), chunk))
            following = list(islice(items, size))
            self._watch(session, running, len(wave), self._slices(len(wave), chunk), advance)
            yield from self._results(running.result(), len(wave))
            wave = following

    def _started(self) -> Session:
        if self._session is None:
            starting = self._thread.submit(self._start)
            if not wait_for(starting, 2 * self._start_s_max):
                raise LakewriterError(
                    f"spark: {self._master} gave no answer within {2 * self._start_s_max:.0f} s",
                    "is it a Spark master, and has it free cores?",
                )
            self._cores = starting.result()
        assert self._session is not None
        return self._session

    def _start(self) -> int:
        """Open the session, and return the number of cores."""
        try:
            self._session = open_session(self._master, self._options)
            if self._session.spark.conf.get("spark.speculation", "false") == "true":
                self.repeated = True
            return self._session.cores(self._start_s_max)
        except LakewriterError:
            raise
        except Exception as error:
            raise self._error(error) from error

    def _slices(self, count: int, chunk: int) -> int:
        return max(1, min(SLICES_PER_CORE * self._cores, -(-count // chunk)))

    def _collect(self, session: Session, task: Task[Any, Any], wave: list[Any], slices: int) -> list[Any]:
        """Run one job, and return a row for each slice; in the thread of the session."""
        cuts = [number * len(wave) // slices for number in range(slices + 1)]
        data = [pickle.dumps(wave[start:stop]) for start, stop in pairwise(cuts)]
        job = SparkJob(task, data, __version__)
        try:
            table = session.spark.range(0, slices, 1, slices)
            rows: list[Any] = table.mapInArrow(job.run, COLUMNS).collect()
        except Exception as error:
            raise self._error(error) from error
        return rows

    def _watch(
        self,
        session: Session,
        running: Future[Any],
        count: int,
        slices: int,
        advance: Callable[[int], None],
    ) -> None:
        """Wait for a job, and report its finished tasks as items.

        Raises:
            LakewriterError: if there is no executor for too long.
        """
        told = 0
        alive_s = time.monotonic()
        while not wait_for(running, CHECK_EVERY_S):
            done, has_executors = self._progress(session)
            done = min(count, done * count // slices)
            if done > told:
                advance(done - told)
                told = done
            now_s = time.monotonic()
            alive_s = now_s if has_executors else alive_s
            if now_s - alive_s > self._start_s_max:
                raise LakewriterError(
                    f"{self._command}: spark: all executors are lost, and none came back "
                    f"within {self._start_s_max:.0f} s; no partition is half changed",
                    "see why on the workers (memory?), and run it again",
                )
        if running.exception() is None:
            advance(count - told)

    def _progress(self, session: Session) -> tuple[int, bool]:
        """Return the number of finished tasks, and whether an executor lives."""
        try:
            return session.tasks_done(), session.has_executors()
        except Exception:  # noqa: BLE001 - of py4j or the socket: the job fails with a better one
            return 0, True

    def _results(self, rows: list[Any], count: int) -> Iterator[Any]:
        rows.sort(key=lambda row: row["slice"])
        found = 0
        for row in rows:
            if row["error"]:
                raise LakewriterError(f"{self._command}: {row['error']}", row["hint"])
            self.repeated = self.repeated or row["attempt"] > 0
            results = pickle.loads(row["results"])  # noqa: S301 - of our own executors
            found += len(results)
            yield from results
        if found != count:
            raise LakewriterError(f"{self._command}: Spark returned {found} results for {count} items")

    def _error(self, error: Exception) -> LakewriterError:
        """Return an error of Spark in one line."""
        text = str(error)
        for sign, what, hint in _KNOWN:
            if sign in text:
                return LakewriterError(f"{self._command}: spark: {what}", hint)
        what, hint = first_line(error), ""
        if (session := self._session) is not None:
            if end := session.end_of_driver():
                what, hint = f"{end}; no partition is half changed", "run it again; "
            if session.log is not None:
                self._keep_log = True
                hint += f"Spark's log: {session.log}"
        return LakewriterError(f"{self._command}: spark: {what}", hint)


# Texts in errors of Spark, and what to say instead.
_KNOWN = (
    (
        "No module named 'lakewriter",
        "executors cannot import lakewriter",
        "install this version on every worker; PYSPARK_PYTHON names the Python there",
    ),
    (
        "PYTHON_VERSION_MISMATCH",
        "executors have another version of Python than this host",
        "set PYSPARK_PYTHON to the same version on every worker",
    ),
    (
        "ExecutorLostFailure",
        "executors were lost again and again; no partition is half changed",
        "see why on the workers (memory?), and run it again",
    ),
    (
        "StatusCode.UNAVAILABLE",
        "the Connect server no longer answers; no partition is half changed",
        "is it running? see its log, and run it again",
    ),
)


def has_pending() -> bool:
    """Return whether a call of Spark may still run. The interpreter's exit waits for it."""
    return any(thread.name.startswith(_NAME) for thread in threading.enumerate())
