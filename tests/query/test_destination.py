"""Output destinations: files, pipes, devices and descriptors."""

import contextlib
import errno
import os
import stat
import threading
from pathlib import Path

import pytest

from lakewriter.errors import LakewriterError, UsageError
from lakewriter.query.output.destination import open_destination


def test_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    """A failure leaves the old file unchanged, and no other file."""
    target = tmp_path / "answer.csv"
    target.write_text("old")
    with pytest.raises(ZeroDivisionError), open_destination(target, tmp_path / "lake", overwrite=True) as out:
        out.write(b"half")
        1 / 0  # noqa: B018
    assert target.read_text() == "old"
    with open_destination(target, tmp_path / "lake", overwrite=True) as out:
        out.write(b"new")
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


def test_an_existing_file_is_not_replaced(tmp_path: Path) -> None:
    """A file that exists at the beginning, or appears meanwhile, is not replaced."""
    target = tmp_path / "answer.csv"
    target.write_text("old")
    (tmp_path / "link.csv").symlink_to(target)
    for path in (target, tmp_path / "link.csv"):
        with (
            pytest.raises(UsageError, match=r"exists(\n|$)") as raised,
            open_destination(path, tmp_path / "lake"),
        ):
            pass
        assert raised.value.hint == "--force overwrites it"
    other = tmp_path / "other.csv"
    with (
        pytest.raises(LakewriterError, match="was created meanwhile"),
        open_destination(other, tmp_path / "lake") as out,
    ):
        out.write(b"new")
        other.write_text("someone else's")
    assert (target.read_text(), other.read_text()) == ("old", "someone else's")
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("taken", [False, True])
def test_a_file_system_without_links_is_renamed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: bool
) -> None:
    """On a file system without links the answer is renamed, unless the name is taken."""

    def hardlink_to(self: Path, target: Path) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(Path, "hardlink_to", hardlink_to)
    path = tmp_path / "answer.csv"
    with (
        pytest.raises(LakewriterError, match="was created meanwhile") if taken else contextlib.nullcontext(),
        open_destination(path, tmp_path / "lake") as out,
    ):
        out.write(b"new")
        if taken:
            path.write_text("old")
    assert path.read_text() == ("old" if taken else "new")
    assert list(tmp_path.iterdir()) == [path]


def test_no_file_is_written_into_a_lake(tmp_path: Path) -> None:
    """No answer is written into a lake, by its path or through a link."""
    lake = tmp_path / "lake"
    lake.mkdir()
    (tmp_path / "link").symlink_to(lake)
    for path in (lake / "x.parquet", tmp_path / "link" / "x.csv", lake / ".." / "lake" / "x.csv"):
        with pytest.raises(UsageError, match="inside the lake"), open_destination(path, lake):
            pass
    with (
        pytest.raises(UsageError, match="No such file or directory"),
        open_destination(tmp_path / "no" / "x.csv", lake),
    ):
        pass
    assert not list(lake.iterdir())


def test_mode_of_an_existing_file_stays(tmp_path: Path) -> None:
    """A replaced file keeps its permissions, and a link stays a link."""
    target = tmp_path / "answer.csv"
    target.write_text("old")
    target.chmod(0o640)
    (tmp_path / "link.csv").symlink_to(target)
    with open_destination(tmp_path / "link.csv", tmp_path / "lake", overwrite=True) as out:
        out.write(b"new")
    assert target.read_text() == "new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert (tmp_path / "link.csv").is_symlink()


def test_pipe_is_written_into(tmp_path: Path) -> None:
    """A FIFO gets the answer, and stays a FIFO."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(fifo.read_bytes()))
    reader.start()
    with open_destination(fifo, tmp_path / "lake") as out:
        out.write(b"answer")
    reader.join()
    assert read == [b"answer"]
    assert fifo.is_fifo()
    assert list(tmp_path.iterdir()) == [fifo]


@pytest.mark.parametrize("directory", ["/dev/fd", "/proc/self/fd"])
def test_descriptor_is_written_where_it_stands(tmp_path: Path, directory: str) -> None:
    """`/dev/fd/N` is written at the open file's position, and stays open."""
    path = tmp_path / "x"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    os.write(fd, b"before ")
    with open_destination(Path(directory) / str(fd), tmp_path / "lake") as out:
        out.write(b"answer")
    os.write(fd, b" after")
    os.close(fd)
    assert path.read_bytes() == b"before answer after"
    with (
        pytest.raises(UsageError, match="Bad file descriptor"),
        open_destination(Path(directory) / str(fd), tmp_path),
    ):
        pass


def test_device_that_takes_nothing_is_told(tmp_path: Path) -> None:
    """A full device is an error of one line, and stays a device."""
    with (
        pytest.raises(LakewriterError, match=r"^output: /dev/full: No space left on device(\n|$)"),
        open_destination(Path("/dev/full"), tmp_path) as out,
    ):
        out.write(b"x")
    assert Path("/dev/full").is_char_device()


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("~nosuchuser/x", "home directory"),
        ("x" * 300, "File name too long"),
        ("/dev/fd/77777", "Bad file descriptor"),
        ("a\0b", "null"),
        ("/etc/passwd/x", "Not a directory"),
    ],
)
def test_names_that_cannot_be_are_one_line(tmp_path: Path, path: str, message: str) -> None:
    """An impossible file name is one line, before the statement runs."""
    with pytest.raises(UsageError, match=message) as raised, open_destination(Path(path), tmp_path):
        pass
    assert raised.value.what.startswith("output: ")
    assert "\n" not in raised.value.what
