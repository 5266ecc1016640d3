"""Output destinations, with atomic writes to regular files and direct writes to pipes and devices.

A regular file is written under a temporary name and renamed. A rename would remove
a FIFO or a device, so these are written directly.
"""

import contextlib
import errno
import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from lakewriter.errors import LakewriterError, UsageError

# Paths of open descriptors. Opening such a path again would start at the file's beginning.
_OPEN_ALREADY = re.compile(r"(?:/dev|/proc/self)/fd/(\d{1,9})")
_OVERWRITE_HINT = "--force overwrites it"

_STANDARD = {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}


@contextlib.contextmanager
def open_destination(path: Path, lake_root: Path, *, overwrite: bool = False) -> Iterator[BinaryIO]:
    """Open an output file. It gets its path when the block ends without an error.

    An existing file keeps its mode. A FIFO, a device or an open descriptor, such as
    /dev/stdout or /dev/fd/3, is written directly.

    Args:
        lake_root: the lake's resolved root. The path must not be below it.
        overwrite: whether to replace an existing regular file.

    Raises:
        UsageError: if the path is in the lake, exists, or cannot be opened.
        LakewriterError: if writing fails, or the path exists meanwhile.

    Crash: the path is as before, or has the whole answer; a hidden file
    `.lakewriter.tmp-…` may stay beside it.
    """
    descriptor = _descriptor(path)
    try:
        opened = (
            _opened(path, lake_root, overwrite=overwrite)
            if descriptor is None
            else os.fdopen(os.dup(descriptor), "wb")
        )
    except OSError as error:
        raise UsageError(f"output: {path}: {error.strerror}") from None
    except (RuntimeError, ValueError) as error:
        raise UsageError(f"output: {path}: {error}") from None
    try:
        with opened as out:
            yield out
    except BrokenPipeError:
        raise
    except FileExistsError:
        raise LakewriterError(f"output: {path} was created meanwhile", _OVERWRITE_HINT) from None
    except OSError as error:
        raise LakewriterError(f"output: {path}: {error.strerror or error}") from None


def _descriptor(path: Path) -> int | None:
    found = _OPEN_ALREADY.fullmatch(str(path))
    return int(found[1]) if found else _STANDARD.get(str(path))


def _opened(path: Path, lake_root: Path, *, overwrite: bool) -> contextlib.AbstractContextManager[BinaryIO]:
    """Open the target. The context manager replaces a regular file at its end."""
    target = path.expanduser().resolve()
    if target.is_relative_to(lake_root):
        raise UsageError(f"output: {path} is inside the lake", "choose a path outside of it")
    try:
        mode: int | None = target.stat().st_mode
    except FileNotFoundError:
        mode = None
    if mode is not None and stat.S_ISDIR(mode):
        raise UsageError(f"output: {path} is a directory", "name a file in it")
    if mode is not None and not stat.S_ISREG(mode):
        return target.open("wb")
    if mode is not None and not overwrite:
        raise UsageError(f"output: {path} exists", _OVERWRITE_HINT)
    temporary = target.with_name(f".lakewriter.tmp-{secrets.token_hex(4)}")
    return _replacing(target, temporary, temporary.open("xb"), mode, overwrite=overwrite)


@contextlib.contextmanager
def _replacing(
    target: Path, temporary: Path, file: BinaryIO, mode: int | None, *, overwrite: bool
) -> Iterator[BinaryIO]:
    try:
        if mode is not None:
            os.fchmod(file.fileno(), stat.S_IMODE(mode))
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if overwrite or not _linked(temporary, target):
            temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _linked(temporary: Path, target: Path) -> bool:
    """Give a file a second name, and return whether its file system has links.

    Raises:
        FileExistsError: if the target exists. A rename would replace it.
    """
    try:
        target.hardlink_to(temporary)
    except FileExistsError:
        raise
    except OSError:
        if target.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from None
        return False
    return True
