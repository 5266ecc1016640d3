"""Processes of the command line that start with its modules imported.

A server imports the modules once and forks for each process. Each process has its own
standard streams, working directory, environment, process id and exit code.
`lakewriter` itself starts as `python -m lakewriter` does. The short form of the tests
saves most of a start that way; the long form starts Python each time.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import resource
import runpy
import select
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from support.lengths import LONG

_LIBRARIES = ("aiohttp", "duckdb", "pyarrow.compute", "pyarrow.dataset", "pyarrow.parquet", "websockets")
_COMMANDS = Path(importlib.import_module("lakewriter.cli").__file__ or "").parent / "commands"
_REQUEST_BYTES_MAX = 1 << 17

# A process inherits these limits of the one that asks for it.
_LIMITS = ("RLIMIT_FSIZE", "RLIMIT_NOFILE", "RLIMIT_AS", "RLIMIT_NPROC")

# Python and the libraries read these variables while they start.
_READ_AT_START = ("PYTHON", "LANG", "LC_", "ARROW_", "OMP_", "OPENBLAS_", "MALLOC_", "LD_")


class WarmProcess:
    """A process, with the part of `subprocess.Popen` that tests use.

    Args:
        status: the pipe on which the server sends the process id and, at the end, the
            exit code.
    """

    def __init__(self, status: int) -> None:
        self._status = os.fdopen(status, "rb", buffering=0)
        self._lock = threading.Lock()
        self.pid = int(self._line())
        self.returncode: int | None = None

    def _line(self) -> bytes:
        line = b""
        while not line.endswith(b"\n"):
            part = self._status.read(1)
            assert part, "the server of processes is gone"
            line += part
        return line

    def poll(self) -> int | None:
        """Return the exit code; None while it runs."""
        with self._lock:
            if self.returncode is None and select.select([self._status], [], [], 0)[0]:
                self.returncode = int(self._line())
                self._status.close()
            return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end of the process; return the exit code."""
        deadline_s = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if deadline_s is not None and time.monotonic() > deadline_s:
                raise subprocess.TimeoutExpired("lakewriter", timeout or 0.0)
            with contextlib.suppress(ValueError):  # another thread saw its end, and closed it
                select.select([self._status], [], [], 0.5)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


class _Server:
    """The client of the server; one in each pytest process."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self.environment = _read_at_start(os.environ)
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "support.warm_processes", str(theirs.fileno())],
                cwd=Path(__file__).parent.parent,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        atexit.register(self.close)

    def start(self, request: bytes, stdin: int, stdout: int, stderr: int) -> WarmProcess:
        reading, writing = os.pipe()
        try:
            socket.send_fds(self._control, [request], [stdin, stdout, stderr, writing])
        finally:
            os.close(writing)
        return WarmProcess(reading)

    def close(self) -> None:
        """Let the process end, so that its processor time counts as a child's."""
        if os.getpid() == self.owner:
            self._control.close()
            self._process.wait()


_server: _Server | None = None
_starting = threading.Lock()


def _read_at_start(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environment.items()
        # Standard output is buffered here, as users have it.
        if name.startswith(_READ_AT_START) and name != "PYTHONUNBUFFERED"
    }


def _running_server() -> _Server:
    global _server
    with _starting:
        if _server is None or _server.owner != os.getpid():
            _server = _Server()
        return _server


def start(
    arguments: Sequence[str | bytes],
    *,
    stdin: int,
    stdout: int,
    stderr: int,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    fresh: bool = False,
) -> "WarmProcess | subprocess.Popen[bytes]":
    """Start `lakewriter` with these arguments and descriptors.

    Args:
        fresh: start a new Python, for tests that depend on the time of its imports.
    """
    environment = os.environ if environment is None else environment
    server = None if LONG or fresh else _running_server()
    if server is None or server.environment != _read_at_start(environment):
        command = [sys.executable, "-m", "lakewriter", *arguments]
        return subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=stderr, cwd=cwd, env=environment)
    request = {
        "arguments": [os.fsdecode(each) for each in arguments],
        "cwd": str(cwd or Path.cwd()),
        "environment": dict(environment),
        "limits": {name: resource.getrlimit(getattr(resource, name)) for name in _LIMITS},
    }
    return server.start(json.dumps(request).encode(), stdin, stdout, stderr)


def run(
    arguments: Sequence[str | bytes],
    *,
    timeout_s: float,
    stdin: bytes = b"",
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    fresh: bool = False,
) -> "subprocess.CompletedProcess[bytes]":
    """Run `lakewriter` to its end, and return its output."""
    in_reading, in_writing = os.pipe()
    out_reading, out_writing = os.pipe()
    err_reading, err_writing = os.pipe()
    printed: dict[int, bytes] = {out_reading: b"", err_reading: b""}
    try:
        process = start(
            arguments,
            stdin=in_reading,
            stdout=out_writing,
            stderr=err_writing,
            cwd=cwd,
            environment=environment,
            fresh=fresh,
        )
    finally:
        for descriptor in (in_reading, out_writing, err_writing):
            os.close(descriptor)
    feeding = threading.Thread(target=_feed, args=(in_writing, stdin), daemon=True)
    feeding.start()
    deadline_s = time.monotonic() + timeout_s
    with selectors.DefaultSelector() as unread:
        for descriptor in printed:
            unread.register(descriptor, selectors.EVENT_READ)
        while unread.get_map():
            ready = unread.select(max(0.0, deadline_s - time.monotonic()))
            if not ready:
                process.kill()
                raise subprocess.TimeoutExpired(list(arguments), timeout_s)
            for key, _ in ready:
                part = os.read(key.fd, 1 << 16)
                printed[key.fd] += part
                if not part:
                    unread.unregister(key.fd)
                    os.close(key.fd)
    code = process.wait(timeout_s)
    feeding.join()
    return subprocess.CompletedProcess(list(arguments), code, printed[out_reading], printed[err_reading])


def _feed(descriptor: int, data: bytes) -> None:
    with contextlib.suppress(BrokenPipeError), os.fdopen(descriptor, "wb") as pipe:
        pipe.write(data)


def _serve(control: socket.socket) -> None:
    """Fork for each request until the control socket is closed; send the exit code of each process."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    running: dict[int, int] = {}
    while True:
        ready = select.select([control, reading], [], [])[0]
        if reading in ready:
            os.read(reading, 4096)
            _report_ended(running)
        if control in ready:
            data, descriptors, _, _ = socket.recv_fds(control, _REQUEST_BYTES_MAX, 4)
            if not data:
                return
            pid = os.fork()
            if pid == 0:
                control.close()
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for descriptor in (reading, writing, *running.values()):
                    os.close(descriptor)
                _become(json.loads(data), descriptors)
            running[pid] = descriptors.pop()
            os.write(running[pid], b"%d\n" % pid)
            for descriptor in descriptors:
                os.close(descriptor)


def _report_ended(running: dict[int, int]) -> None:
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        # A client that went away asks no more.
        with contextlib.suppress(BrokenPipeError):
            os.write(running[pid], b"%d\n" % os.waitstatus_to_exitcode(status))
        os.close(running.pop(pid))


def _become(request: dict[str, object], descriptors: list[int]) -> NoReturn:
    """Run the command line in this child like a new Python process."""
    *streams, status = descriptors
    os.close(status)
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(str(request["cwd"]))
    os.environ.clear()
    os.environ.update(request["environment"])  # type: ignore[call-overload]
    time.tzset()
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - open for as long as the process lives
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr
    sys.path[0] = str(request["cwd"])
    sys.argv = ["lakewriter", *request["arguments"]]  # type: ignore[misc]
    sys.orig_argv = [sys.executable, "-m", *sys.argv]
    for name, limits in request["limits"].items():  # type: ignore[attr-defined]
        resource.setrlimit(getattr(resource, name), limits)
    code: object = None
    try:
        runpy.run_module("lakewriter", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code
    _leave(code)


def _leave(code: object) -> NoReturn:
    """Exit as Python does, but leave the modules to the kernel.

    Python frees them one by one, and a fork would first copy most of their memory.
    """
    if code is None or isinstance(code, int):
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        # If a stream cannot be written, Python's own exit has a message and a code for it.
        with contextlib.suppress(OSError, ValueError):
            for stream in (sys.stdout, sys.stderr):
                if stream is not None:
                    stream.flush()
            os._exit((code or 0) & 0xFF)
    sys.exit(code)  # type: ignore[arg-type]


if __name__ == "__main__":
    for name in _LIBRARIES:
        importlib.import_module(name)
    for module in _COMMANDS.glob("[a-z]*.py"):
        importlib.import_module(f"lakewriter.cli.runs.{module.stem}")
        importlib.import_module(f"lakewriter.cli.commands.{module.stem}")
    gc.collect()
    gc.freeze()
    with socket.socket(fileno=int(sys.argv[1])) as inherited:
        _serve(inherited)
