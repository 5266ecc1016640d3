"""What holds for the whole process: UTF-8, a standard error that does not block, shortages in one line."""

import os
import sys
from pathlib import Path

from lakewriter.cli import stderr

_MAPPING = ("cannot allocate memory", "failed to map segment")


def prepare_process() -> None:
    """Make file names UTF-8, and standard error one that waits for no reader."""
    _use_utf8()
    stderr.install()
    if sys.stdout is not None:
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def _use_utf8() -> None:
    """Start Python again in UTF-8 mode if the locale gives file names another encoding."""
    if sys.getfilesystemencoding() == "utf-8":
        return
    try:
        # The bytes as they were given; decoding and encoding them again may lose some.
        program, *arguments = Path("/proc/self/cmdline").read_bytes().split(b"\0")[:-1]
    except OSError:
        program, *arguments = map(os.fsencode, sys.orig_argv)
    os.execv(sys.executable, [program, b"-X", b"utf8", *arguments])  # noqa: S606 - ourselves


def shortage(error: BaseException) -> tuple[str, str] | None:
    """Return what the machine lacked, and a hint; None if the error is none of a machine."""
    words = str(error).lower()
    if isinstance(error, MemoryError) or (
        isinstance(error, ImportError) and any(each in words for each in _MAPPING)
    ):
        return "memory: there is not enough", "ulimit -v unlimited, or a machine with more"
    if isinstance(error, RuntimeError) and "start new thread" in words:
        return "threads: no more can be started", "ulimit -u 4096, or TasksMax= of the service"
    return None
