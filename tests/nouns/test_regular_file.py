"""Regular files are read up to a limit; other kinds of files are refused without blocking."""

import ast
import contextlib
import os
import socket
import threading
from pathlib import Path

import pytest

import lakewriter
from lakewriter.regular_file import (
    NotRegularError,
    TooLargeError,
    names_open_file,
    open_lock,
    open_regular,
    read_regular,
    read_user_file,
)


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 3_000_000])
def test_a_file_up_to_its_limit(tmp_path: Path, size: int) -> None:
    """A file of exactly the limit is read, also through a link; one byte more is refused."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * size)
    (tmp_path / "link").symlink_to("file")
    assert read_regular(path, size) == read_regular(tmp_path / "link", size) == b"x" * size
    path.write_bytes(b"x" * (size + 1))
    with pytest.raises(TooLargeError, match=f"larger than {size:,} bytes"):
        read_regular(path, size)


def test_a_sparse_file_is_not_read(tmp_path: Path) -> None:
    """A file of 3 GB is refused by its size."""
    path = tmp_path / "sparse"
    path.touch()
    os.truncate(path, 3 << 30)
    with pytest.raises(TooLargeError) as caught:
        read_regular(path, 1 << 20)
    assert caught.value.filename == str(path)


def test_a_file_without_a_size() -> None:
    """A file of /proc that claims size 0 is read to its end, up to the limit."""
    assert b"Linux" in read_regular("/proc/version", 4096)
    with pytest.raises(TooLargeError):
        read_regular("/proc/kallsyms", 100)


def odd_things(directory: Path) -> dict[str, str]:
    """Make files that are not regular; return what each is called, by file name."""
    os.mkfifo(directory / "pipe")
    with contextlib.chdir(directory), socket.socket(socket.AF_UNIX) as made:
        made.bind("socket")
    (directory / "to a pipe").symlink_to("pipe")
    (directory / "zero").symlink_to("/dev/zero")
    (directory / "null").symlink_to("/dev/null")
    return {
        "pipe": "a named pipe",
        "to a pipe": "a named pipe",
        "socket": "a socket",
        "zero": "a device",
        "null": "a device",
    }


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    """Pipes, sockets and devices are refused without waiting, and the error says what the path is."""
    for name, kind in odd_things(tmp_path).items():
        for read in (open_regular, open_lock, lambda path: read_regular(path, 100)):
            with pytest.raises(OSError) as caught:
                read(tmp_path / name)
            if not (kind == "a socket" and read is open_lock):  # the system refuses to open it
                assert isinstance(caught.value, NotRegularError)
                assert caught.value.strerror == f"{kind}, not a regular file"


def test_the_systems_own_errors(tmp_path: Path) -> None:
    """Directories, absent files and circular links raise the system's own errors."""
    (tmp_path / "ring").symlink_to("ring")
    for path, error in (
        (tmp_path, IsADirectoryError),
        (tmp_path / "absent", FileNotFoundError),
        (tmp_path / "ring", OSError),
    ):
        with pytest.raises(error):
            read_regular(path, 100)


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    """No descriptor stays open after a read or a refusal."""
    (tmp_path / "file").write_bytes(b"12345")
    names = ["file", *odd_things(tmp_path)]
    before = len(list(Path("/proc/self/fd").iterdir()))
    for name in names:
        for bytes_max in (4, 5):
            with contextlib.suppress(OSError):
                read_regular(tmp_path / name, bytes_max)
        with contextlib.suppress(OSError):
            read_user_file(tmp_path / name, 4)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_pipe_that_a_command_line_names(tmp_path: Path) -> None:
    """A pipe with a writer is read to its end or the limit; one without a writer is empty."""
    reader, writer = os.pipe()
    thread = threading.Thread(target=lambda: (os.write(writer, b"SELECT 1"), os.close(writer)))
    thread.start()
    assert read_user_file(f"/dev/fd/{reader}", 100) == b"SELECT 1"
    thread.join()
    os.close(reader)
    os.mkfifo(tmp_path / "pipe")
    assert read_user_file(tmp_path / "pipe", 100) == b""
    reader, writer = os.pipe()
    os.write(writer, b"x" * 101)
    with pytest.raises(TooLargeError):
        read_user_file(f"/dev/fd/{reader}", 100)
    os.close(reader)
    os.close(writer)
    with pytest.raises(NotRegularError):
        read_user_file("/dev/zero", 100)


# The places that open something without reading it: new files, directories, devices of
# this process, and files that are looked at before.
ELSEWHERE = {
    "lake/durable.py": 2,
    "lake/storage.py": 2,
    "lake/unchanged.py": 1,  # the kernel's list of mounts
    "lake/journal.py": 1,
    "lake/remote/object_cache.py": 1,  # a new temporary file
    "lake/gaps/ledgers.py": 1,
    "query/output/destination.py": 2,
    "query/scan/held_files.py": 1,
    "cli/terminal.py": 1,
    "cli/__init__.py": 1,
    "cli/line_output.py": 1,  # the user's own output, opened without blocking
    "web/page/assets.py": 1,  # files of the package
    "engines/spark_session.py": 1,  # Spark's log, in a new directory
    "verify/footer_statistics.py": 1,
}
STORES = ("LakeStore", "cls")


def openings(tree: ast.AST) -> int:
    """Count the calls that open a path without `regular_file`."""
    found = 0
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        if isinstance(function, ast.Name):
            found += function.id == "open"
        elif isinstance(function, ast.Attribute):
            owner = function.value.id if isinstance(function.value, ast.Name) else ""
            found += function.attr in ("open", "read_text", "read_bytes") and owner not in STORES
    return found


def test_every_file_is_opened_here() -> None:
    """No other module opens a path, so none blocks on a pipe or reads without a limit."""
    package = Path(lakewriter.__file__).parent
    found = {}
    for path in package.rglob("*.py"):
        count = openings(ast.parse(path.read_text()))
        if count and path.name != "regular_file.py":
            found[str(path.relative_to(package))] = count
    assert found == ELSEWHERE


def test_an_open_file_and_its_name(tmp_path: Path) -> None:
    """A name leads to the open file until it is moved, replaced or removed."""
    path = tmp_path / "file"
    path.write_bytes(b"1")
    fd = open_regular(path)
    assert names_open_file(path, fd)
    path.rename(tmp_path / "moved")
    assert not names_open_file(path, fd)
    assert names_open_file(tmp_path / "moved", fd)
    path.write_bytes(b"1")
    assert not names_open_file(path, fd)
    os.close(fd)
