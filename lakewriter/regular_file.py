"""Regular files, opened without blocking and read up to a limit.

A path can lead to a pipe, a device, a socket or a directory. Opening or reading
them may block forever. A file can also have any size. The package opens every file
here: both cases raise an `OSError` whose `strerror` explains the problem.
Directories and absent files raise the system's own errors.
"""

import errno
import os
import stat
from pathlib import Path

# Names of the other kinds of files in errors.
_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}

_PART_BYTES = 1 << 20


class NotRegularError(OSError):
    """A path that leads to a pipe, a socket or a device."""


class TooLargeError(OSError):
    """A file with more bytes than the reader allows."""


def open_regular(path: Path | str, flags: int = os.O_RDONLY) -> int:
    """Open a regular file, also through a symbolic link; return its descriptor.

    Args:
        flags: flags of `os.open`, without flags that create or truncate the file.

    Raises:
        NotRegularError: if the path leads to a pipe, a socket or a device. Such a file
            is not opened, because opening may block, or rewind a tape.
        IsADirectoryError: if the path leads to a directory.
        OSError: if the file is absent or cannot be opened.
    """
    _check_kind(os.stat(path).st_mode, path)  # noqa: PTH116 - pathlib takes three times as long
    fd = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _check_kind(os.fstat(fd).st_mode, path)  # the file may have been replaced in between
    except BaseException:
        os.close(fd)
        raise
    return fd


def open_lock(path: Path | str, mode: int = 0o666) -> int:
    """Open a lock file; create it if necessary. Return its descriptor.

    Args:
        mode: the permissions of a new file, before the umask.

    Raises:
        NotRegularError: if the path leads to a pipe, a socket or a device.
        OSError: if the path leads to a directory, or the file cannot be opened.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, mode)
    try:
        _check_kind(os.fstat(fd).st_mode, path)
    except BaseException:
        os.close(fd)
        raise
    return fd


def names_open_file(path: Path | str, fd: int) -> bool:
    """Return whether a path still leads to the open file."""
    try:
        found = os.stat(path)  # noqa: PTH116 - each commit calls it
    except OSError:
        return False
    return os.path.samestat(found, os.fstat(fd))


def read_regular(path: Path | str, bytes_max: int) -> bytes:
    """Read a regular file.

    Args:
        bytes_max: maximum size of the file.

    Raises:
        TooLargeError: if the file is larger; the rest is not read.
        OSError: in the same cases as `open_regular`, or if reading fails.
    """
    fd = open_regular(path)
    try:
        return read_all(fd, path, bytes_max)
    finally:
        os.close(fd)


def read_all(fd: int, path: Path | str, bytes_max: int) -> bytes:
    """Read an open file to its end.

    Args:
        path: the file's name in errors.
        bytes_max: maximum size of the file.

    Raises:
        TooLargeError: if the file is larger.
    """
    size = os.fstat(fd).st_size
    if size > bytes_max:
        raise _too_large(path, bytes_max)
    data = os.read(fd, size + 1)
    if len(data) == size:
        return data
    # The file grew during the read, or reports no size, like files of /proc.
    parts, size = [data], len(data)
    while data:
        if size > bytes_max:
            raise _too_large(path, bytes_max)
        data = os.read(fd, _PART_BYTES)
        parts.append(data)
        size += len(data)
    return b"".join(parts)


def write_all(fd: int, data: bytes) -> None:
    """Write all bytes; repeat the system call after a partial write.

    Raises:
        OSError: if a write fails; earlier bytes are written.
    """
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def read_user_file(path: Path | str, bytes_max: int) -> bytes:
    """Read a file that the user names; a pipe is read to its end.

    The shell's `<(command)` is a pipe with a writer. A pipe without a writer ends at once.

    Raises:
        OSError: in the same cases as `read_regular`.
    """
    if not stat.S_ISFIFO(Path(path).stat().st_mode):
        return read_regular(path, bytes_max)
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.set_blocking(fd, True)
        return read_all(fd, path, bytes_max)
    finally:
        os.close(fd)


def read_user_text(path: Path | str, bytes_max: int) -> str:
    """Read the text of a file that the user names, with a newline character for every line end.

    Raises:
        UnicodeDecodeError: if the file is not UTF-8.
        OSError: in the same cases as `read_user_file`.
    """
    text = read_user_file(path, bytes_max).decode()
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _check_kind(mode: int, path: Path | str) -> None:
    if stat.S_ISREG(mode):
        return
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    kind = _KINDS.get(stat.S_IFMT(mode), "something else")
    raise NotRegularError(errno.EINVAL, f"{kind}, not a regular file", str(path))


def _too_large(path: Path | str, bytes_max: int) -> TooLargeError:
    return TooLargeError(errno.EFBIG, f"larger than {bytes_max:,} bytes", str(path))
