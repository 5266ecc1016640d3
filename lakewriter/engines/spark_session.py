"""The connection to Spark: a classic cluster, whose driver is this process, or a Connect server.

Each wait has a limit. Each failure is one line. What Spark's own process prints goes to a
log file, which is deleted if all goes well.
"""

import importlib.util
import logging
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from lakewriter.errors import LakewriterError, UsageError

# The limit of a first connection to a master or server.
PROBE_S_MAX = 5.0

# The limit of the wait for the end of a Java process that no longer answers.
DEATH_S_MAX = 2.0

# The executors are counted once their number has not changed for so long.
SETTLED_S = 2.0

# A broken connection to a Connect server is tried again so often, for some 40 s in all.
RETRIES = 6
RETRY_MS_MAX = 20_000

_DEFAULT_PORTS = {"spark": 7077, "sc": 15002}
_EXAMPLES = "spark://host:7077, local[4], local-cluster[2,1,1024], yarn, k8s://… or sc://host:15002"
_SCHEMES = ("spark://", "sc://", "k8s://")
_NAMES = ("local", "yarn")


class Session(Protocol):
    """A connection to Spark.

    Attributes:
        spark: the pyspark session.
        log: the file with the messages of Spark's own process; None for another host's process.
    """

    spark: Any
    log: Path | None

    def cores(self, limit_s: float) -> int:
        """Return the number of cores of all executors; wait for the first executor.

        Raises:
            LakewriterError: if there is no executor within the limit.
        """

    def tasks_done(self) -> int:
        """Return the number of finished tasks of the running job, as far as Spark has told."""

    def has_executors(self) -> bool:
        """Return whether an executor lives, as far as this process can tell."""

    def end_of_driver(self) -> str:
        """Return how Spark's driver has ended; "" while it lives, or as far as this process can tell."""

    def cancel(self) -> None:
        """Cancel all jobs."""

    def close(self, *, keep_log: bool) -> None:
        """End the connection and all processes that it started."""


def check_master(master: str) -> None:
    """Check a master's spelling, the packages and programs that it needs, and that it listens.

    Raises:
        UsageError: if it is no master.
        LakewriterError: if something is absent, or nothing listens within PROBE_S_MAX.
    """
    if not master.startswith(_SCHEMES) and master.split("[")[0].removesuffix("-cluster") not in _NAMES:
        raise UsageError(f"--master: {master!r} is no Spark master", _EXAMPLES)
    if importlib.util.find_spec("pyspark") is None:
        raise LakewriterError("--engine spark: needs pyspark", "pip install 'lakewriter[spark]'")
    if is_connect(master):
        if importlib.util.find_spec("grpc") is None:
            raise LakewriterError(f"{master}: needs Spark Connect", "pip install 'lakewriter[spark]'")
    elif _java() is None:
        raise LakewriterError(
            "--engine spark: there is no Java", "install Java 17 or newer, or set JAVA_HOME"
        )
    scheme = master.partition("://")[0]
    if scheme in _DEFAULT_PORTS:
        _probe(master, _DEFAULT_PORTS[scheme])


def is_connect(master: str) -> bool:
    """Return whether a master is a Spark Connect server."""
    return master.startswith("sc://")


def _java() -> str | None:
    home = os.environ.get("JAVA_HOME")
    return shutil.which(f"{home}/bin/java" if home else "java")


def _probe(master: str, default_port: int) -> None:
    """Connect to one of the hosts of a master, to tell at once that none is there."""
    hosts = master.partition("://")[2].partition("/")[0].split(",")
    reason = ""
    for each in hosts:
        host, _, port = each.rpartition(":") if ":" in each.rpartition("]")[2] else (each, "", "")
        if port and not port.isdigit():
            raise UsageError(f"--master: {master!r} is no Spark master", _EXAMPLES)
        try:
            with socket.create_connection((host.strip("[]"), int(port or default_port)), PROBE_S_MAX):
                return
        except (OSError, OverflowError) as error:
            reason = str(getattr(error, "strerror", None) or error)
    raise LakewriterError(f"spark: {master} is not reachable: {reason.lower()}", "is it running?")


def open_session(master: str, options: Mapping[str, str]) -> Session:
    """Connect to Spark. This takes seconds; the caller limits them.

    Args:
        options: Spark's configuration, which overrides the defaults.

    Raises:
        LakewriterError: if Spark refuses.
    """
    for name in ("py4j", "pyspark"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    logging.getLogger().addFilter(_is_not_of_py4j)
    # On the version of pandas, which is not used here; and on retries, whose end is an error.
    warnings.filterwarnings("ignore", message="PySpark does not yet", category=FutureWarning)
    warnings.filterwarnings("ignore", message=r"\[RETRIES_EXCEEDED\]", category=UserWarning)
    return _ConnectSession(master, options) if is_connect(master) else _ClassicSession(master, options)


def _is_not_of_py4j(record: logging.LogRecord) -> bool:
    """Return whether a record of the root logger has another origin: py4j logs lost connections there."""
    return "/py4j/" not in record.pathname


class _ConnectSession:
    """A session on a Connect server."""

    def __init__(self, master: str, options: Mapping[str, str]) -> None:
        from pyspark.sql.connect.session import SparkSession  # noqa: PLC0415 - of an extra

        builder = SparkSession.builder.remote(master)
        for name, value in options.items():
            builder = builder.config(name, value)
        self.log: Path | None = None
        self.spark = builder.create()
        self._retry(RETRIES)
        self._done = 0
        self.spark.registerProgressHandler(self._count)

    def _retry(self, times: int) -> None:
        from pyspark.sql.connect.client.retries import DefaultPolicy  # noqa: PLC0415 - of an extra

        policy = DefaultPolicy(max_retries=times, max_backoff=RETRY_MS_MAX)
        self.spark.client.set_retry_policies([policy])

    def _count(self, stages: Any, inflight_tasks: int, operation_id: str | None, done: bool) -> None:  # noqa: ARG002
        self._done = sum(stage.num_completed_tasks for stage in stages or ())

    def cores(self, limit_s: float) -> int:  # noqa: ARG002 - the caller limits the call
        """Return the default parallelism. No call returns it, so ask for a table without a number."""
        # `pyspark.sql.functions` are those of a classic session, unless the environment says otherwise.
        from pyspark.sql.connect import functions  # noqa: PLC0415 - of an extra

        table = self.spark.range(1 << 20).select(functions.spark_partition_id().alias("number"))
        ((last,),) = table.agg(functions.max("number")).collect()
        return int(last) + 1

    def tasks_done(self) -> int:
        return self._done

    def has_executors(self) -> bool:
        return True

    def end_of_driver(self) -> str:
        return ""

    def cancel(self) -> None:
        self._retry(0)
        self.spark.interruptAll()

    def close(self, *, keep_log: bool) -> None:  # noqa: ARG002 - the server has its own log
        self._retry(0)
        self.spark.stop()


class _ClassicSession:
    """A driver in a Java process of its own, a child of this process.

    If this process has a Spark context already, that one is used and stays.
    """

    def __init__(self, master: str, options: Mapping[str, str]) -> None:
        from pyspark import SparkContext  # noqa: PLC0415 - of an extra
        from pyspark.sql import SparkSession  # noqa: PLC0415 - of an extra

        self._is_local = master.split("[")[0] == "local"
        self._directory: Path | None = None
        self.log: Path | None = None
        self._context = SparkContext._active_spark_context
        if self._context is None:
            self._start(master, options)
        self.spark = SparkSession.getActiveSession() or SparkSession(self._context)

    def _start(self, master: str, options: Mapping[str, str]) -> None:
        from pyspark import SparkConf, SparkContext  # noqa: PLC0415 - of an extra
        from pyspark.java_gateway import launch_gateway  # noqa: PLC0415 - of an extra

        self._directory = Path(tempfile.mkdtemp(prefix="lakewriter-spark-"))
        self.log = log_path = self._directory / "spark.log"
        conf = SparkConf(loadDefaults=False).setMaster(master).setAppName("lakewriter")
        for name, value in {**_defaults(self._directory), **options}.items():
            conf.set(name, value)
        if master.startswith("local"):
            os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
            os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        if "spark.pyspark.python" in options:
            # Only `spark-submit` reads the option.
            os.environ["PYSPARK_PYTHON"] = options["spark.pyspark.python"]
        try:
            with log_path.open("wb") as log:
                self._gateway = launch_gateway(conf, {"stdout": log, "stderr": log})
            self._context = SparkContext(conf=conf, gateway=self._gateway)
            # It would print a traceback when the Java process dies.
            self._context._accumulatorServer.handle_error = lambda *_: None
        except Exception as error:  # noqa: BLE001 - of Java, py4j or pyspark
            _forget_gateway()
            raise LakewriterError(
                f"spark: {master}: cannot start: {first_line(error)}", f"Spark's log: {log_path}"
            ) from None

    def cores(self, limit_s: float) -> int:
        if not self._is_local:
            self._wait_for_executors(limit_s)
        return int(self._context.defaultParallelism)

    def _wait_for_executors(self, limit_s: float) -> None:
        until_s = time.monotonic() + limit_s
        count, since_s = 0, time.monotonic()
        while not count or time.monotonic() - since_s < SETTLED_S:
            now = self._executors()
            if now != count:
                count, since_s = now, time.monotonic()
            if not count and time.monotonic() > until_s:
                raise LakewriterError(
                    f"spark: no executor within {limit_s:.0f} s",
                    "are there workers with free cores and memory? see the master's page",
                )
            time.sleep(0.1)

    def tasks_done(self) -> int:
        tracker = self._context.statusTracker()
        infos = [tracker.getStageInfo(stage) for stage in tracker.getActiveStageIds()]
        return sum(info.numCompletedTasks for info in infos if info is not None)

    def _executors(self) -> int:
        # The driver is one of them.
        return int(self._context._jsc.sc().getExecutorMemoryStatus().size()) - 1

    def has_executors(self) -> bool:
        return self._is_local or self._executors() > 0

    def end_of_driver(self) -> str:
        if self._directory is None:
            return ""
        try:
            code = self._gateway.proc.wait(DEATH_S_MAX)
        except subprocess.TimeoutExpired:
            return ""
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        return f"the Java process of the driver {how}"

    def cancel(self) -> None:
        self._context.cancelAllJobs()

    def close(self, *, keep_log: bool) -> None:
        if self._directory is None:
            return
        process = self._gateway.proc
        if process.poll() is not None:
            self._context._jsc = None  # nothing answers, and pyspark would warn of that
        try:
            self._context.stop()
            self._gateway.shutdown()
            process.stdin.close()  # the Java process ends with it
            process.wait(PROBE_S_MAX)
        finally:
            _forget_gateway()
            if not keep_log:
                shutil.rmtree(self._directory, ignore_errors=True)


def _defaults(directory: Path) -> dict[str, str]:
    """Return the configuration of a classic session.

    Args:
        directory: a directory for its files.
    """
    return {
        # It would listen on all addresses.
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.warehouse.dir": str(directory / "warehouse"),
    }


def _forget_gateway() -> None:
    """Let pyspark start a new Java process the next time."""
    from pyspark import SparkContext  # noqa: PLC0415 - of an extra

    SparkContext._gateway = SparkContext._jvm = None


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text that says something, shortened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]
