"""The setup of the process, with UTF-8 mode, a standard error that never blocks, and checks of limits."""

import os
import resource
import sys
import threading

from lakewriter.cli import stderr
from lakewriter.errors import LakewriterError

# A container may use only some of the machine's CPUs. Each library starts at most 64 threads.
_CPUS = min(64, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)

# Libraries start threads while they are imported, and abort the process if a start fails.
THREADS_MIN = 16 + 2 * _CPUS

# The engine and Arrow reserve this memory, and abort with less. Each thread has a stack.
ADDRESS_BYTES_MIN = 1_600_000_000 + 16_000_000 * _CPUS
DATA_BYTES_MIN = 400_000_000 + 16_000_000 * _CPUS

_USUAL_THREADS = 4096

# Maximum length of a command line. No system allows a longer one.
COMMAND_BYTES_MAX = 8 * 1024 * 1024
_MAPPING = ("cannot allocate memory", "failed to map segment")


def prepare_process() -> None:
    """Set the encoding of file names to UTF-8, and install a standard error that never blocks."""
    _use_utf8()
    stderr.install()
    if sys.stdout is not None:
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def _use_utf8() -> None:
    """Restart Python in UTF-8 mode if the locale has another encoding."""
    if sys.getfilesystemencoding() == "utf-8" or not sys.executable:
        return
    from lakewriter.regular_file import read_regular

    try:
        # Use the raw bytes, because decoding and encoding may change some.
        program, *arguments = read_regular("/proc/self/cmdline", COMMAND_BYTES_MAX).split(b"\0")[:-1]
    except OSError:
        program, *arguments = map(os.fsencode, sys.orig_argv)
    os.execv(sys.executable, [program, b"-X", b"utf8", *arguments])  # noqa: S606 - ourselves


def check_machine() -> None:
    """Check the limits of memory and threads before libraries are imported.

    An import aborts the process if the limits are too low.

    Raises:
        LakewriterError: if the limits allow too little memory or too few threads.
    """
    for option, number, least in (
        ("v", resource.RLIMIT_AS, ADDRESS_BYTES_MIN),
        ("d", resource.RLIMIT_DATA, DATA_BYTES_MIN),
    ):
        allowed, _ = resource.getrlimit(number)
        if allowed != resource.RLIM_INFINITY and allowed < least:
            what = f"memory: this process may have {allowed >> 20} MiB, and {least >> 20} are needed"
            raise LakewriterError(what, f"ulimit -{option} unlimited")
    started = _startable(THREADS_MIN)
    if started < THREADS_MIN:
        what = f"threads: {started} can be started, and {THREADS_MIN} are needed"
        raise LakewriterError(what, f"ulimit -u {_USUAL_THREADS}, or TasksMax= of the service")


def _startable(count: int) -> int:
    """Return the number of threads that the process can start, up to `count`."""
    enough = threading.Event()
    started: list[threading.Thread] = []
    try:
        for _ in range(count):
            thread = threading.Thread(target=enough.wait, daemon=True)
            thread.start()
            started.append(thread)
    except RuntimeError:
        pass
    finally:
        enough.set()
        for thread in started:
            thread.join()
    return len(started)


def resource_shortage(error: BaseException) -> tuple[str, str] | None:
    """Return the text and the hint for a shortage of memory or threads; None for other errors."""
    words = str(error).lower()
    if isinstance(error, MemoryError) or (
        isinstance(error, ImportError) and any(each in words for each in _MAPPING)
    ):
        return "memory: there is not enough", "ulimit -v unlimited, or a machine with more"
    if isinstance(error, RuntimeError) and "start new thread" in words:
        return "threads: no more can be started", f"ulimit -u {_USUAL_THREADS}, or TasksMax= of the service"
    return None
