"""Servers of Spark on loopback: a standalone master with workers, and a Connect server."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from support.ports import free_ports

LOOPBACK = "127.0.0.1"

# Spark never runs the copy of a slow task on the same host: to it these are two.
HOSTS = (LOOPBACK, "127.0.0.2")

# A loaded machine takes minutes to start four Java processes.
START_S_MAX = 300.0


def spark_environment() -> dict[str, str]:
    """Return the environment of Spark's processes and of the commands that use them."""
    return {**os.environ, "SPARK_LOCAL_IP": LOOPBACK, "PYSPARK_PYTHON": sys.executable}


def on_spark(master: str) -> list[str]:
    """Return the options of a command for a master on loopback."""
    own = [] if master.startswith("sc://") else ["--spark-conf", f"spark.driver.host={LOOPBACK}"]
    return ["--engine", "spark", "--master", master, *own]


@contextlib.contextmanager
def standalone_cluster(directory: Path, hosts: Sequence[str] = HOSTS) -> Iterator[str]:
    """Start a master, and a worker of one core for each host; yield the master's URL."""
    port, page, *pages = free_ports(2 + len(hosts))
    master = f"spark://{LOOPBACK}:{port}"
    script = f"{spark_home()}/bin/spark-class"
    with contextlib.ExitStack() as stack:
        log = directory / "master.log"
        command = [script, "org.apache.spark.deploy.master.Master", "--host", LOOPBACK]
        stack.enter_context(java(log, [*command, "--port", str(port), "--webui-port", str(page)]))
        wait_for_text(log, "New state: ALIVE")
        for number, (host, its_page) in enumerate(zip(hosts, pages, strict=True)):
            log = directory / f"worker{number}.log"
            command = [
                script, "org.apache.spark.deploy.worker.Worker", "--host", host, "--cores", "1",
                "--memory", "1g", "--webui-port", str(its_page),
                "--work-dir", str(directory / f"work{number}"), master,
            ]  # fmt: skip
            stack.enter_context(java(log, command))
            wait_for_text(log, "Successfully registered with master")
        yield master


@contextlib.contextmanager
def connect_server(directory: Path) -> Iterator[str]:
    """Start a Spark Connect server of two threads; yield its URL."""
    (port,) = free_ports(1)
    log = directory / "connect.log"
    command = [
        f"{spark_home()}/bin/spark-submit", "--class", "org.apache.spark.sql.connect.service.SparkConnectServer",
        "--master", "local[2]", "--conf", f"spark.connect.grpc.binding.address={LOOPBACK}",
        "--conf", f"spark.connect.grpc.binding.port={port}", "--conf", "spark.ui.enabled=false", "spark-internal",
    ]  # fmt: skip
    with java(log, command):
        wait_for_text(log, "Spark Connect server started")
        yield f"sc://{LOOPBACK}:{port}"


@contextlib.contextmanager
def java(log: Path, command: list[str]) -> Iterator[None]:
    """Run a script that starts Java, in a process group of its own, and end the whole group."""
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            env=spark_environment(),
            cwd=log.parent,
            start_new_session=True,
        ) as process,
    ):
        try:
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def wait_for_text(log: Path, text: str) -> None:
    until_s = time.monotonic() + START_S_MAX
    while text not in log.read_text(errors="replace"):
        assert time.monotonic() < until_s, (
            f"{text!r} is not in {log}: {log.read_text(errors='replace')[-2000:]}"
        )
        time.sleep(0.2)


def processes(word: str, directory: Path) -> list[int]:
    """Return the processes with a word in their command line that work in or below a directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            has_word = word.encode() in (entry / "cmdline").read_bytes()
            if has_word and (entry / "cwd").readlink().is_relative_to(directory):
                found.append(int(entry.name))
    return sorted(found)


def executors(directory: Path) -> list[int]:
    """Return the processes of the executors whose workers have their files below a directory."""
    return processes("CoarseGrainedExecutorBackend", directory)


def spark_home() -> Path:
    import pyspark

    return Path(pyspark.__file__).parent
