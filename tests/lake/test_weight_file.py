"""The file of a pool of request weight, with real processes and real kills."""

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lakewriter.lake.exchange_limits import LOCK_S, PAGE_BYTES, WEIGHT_DIRECTORY, WeightFile
from support.running import PATIENCE_S, wait_until

COUNT = """
import sys
from pathlib import Path
from lakewriter.lake.exchange_limits import WeightFile
file = WeightFile(Path(sys.argv[1]), "REST futures")
for _ in range(int(sys.argv[2])):
    file.change(lambda data: b"%d " % (int(data.split()[0] if data else 0) + 1) * 400)
"""


def count(lake: Path, times: int) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", COUNT, str(lake), str(times)])


def kept(file: WeightFile) -> bytes:
    seen: list[bytes] = []

    def look(data: bytes) -> bytes:
        seen.append(data)
        return data

    file.change(look)
    return seen[0]


def keep(file: WeightFile, data: bytes, durable: bool = False) -> None:
    file.change(lambda _: data, durable=durable)


@pytest.mark.parametrize(
    ("pool", "name"),
    [
        ("REST futures", "rest-futures.json"),
        ("REST api.binance.com", "rest-api.binance.com.json"),
        ("REST 127.0.0.1:9080", "rest-127.0.0.1-9080.json"),
        ("REST [::1]:80", "rest-1-80.json"),
        ("REST ../../etc", "rest-..-..-etc.json"),
        ("REST " + "a" * 300, "rest-" + "a" * 95 + ".json"),
    ],
)
def test_a_pool_has_a_file(tmp_path: Path, pool: str, name: str) -> None:
    """The file's name follows from the pool's, and its directory is created."""
    keep(WeightFile(tmp_path, pool), b"one", durable=True)
    assert [path.name for path in (tmp_path / WEIGHT_DIRECTORY).iterdir()] == [name]


def test_what_is_kept_is_found(tmp_path: Path) -> None:
    """A new file is empty; longer and shorter contents are read back, within one page."""
    file = WeightFile(tmp_path, "REST futures")
    assert kept(file) == b""
    for data in (b'{"a":1}', b"x" * PAGE_BYTES, b"{}\n"):
        keep(file, data)
        assert kept(WeightFile(tmp_path, "REST futures")) == data.rstrip(b"\n")
        assert file.path.stat().st_size == PAGE_BYTES


def test_what_does_not_change_is_not_written(tmp_path: Path) -> None:
    """An unchanged content is not written."""
    file = WeightFile(tmp_path, "REST futures")
    keep(file, b"one")
    written_ns = file.path.stat().st_mtime_ns
    keep(file, b"one\n")
    assert file.path.stat().st_mtime_ns == written_ns


@pytest.mark.slow
def test_no_change_of_three_processes_is_lost(tmp_path: Path) -> None:
    """Three processes take turns, and each sees the previous change."""
    counters = [count(tmp_path, 1000) for _ in range(3)]
    assert [counter.wait(PATIENCE_S) for counter in counters] == [0, 0, 0]
    assert kept(WeightFile(tmp_path, "REST futures")).split() == [b"3000"] * 400


@pytest.mark.slow
def test_a_kill_leaves_one_page_and_no_lock(tmp_path: Path) -> None:
    """After a kill the file has one whole change, and the next process gets the lock at once."""
    file = WeightFile(tmp_path, "REST futures")
    for _ in range(8):
        before = kept(file)
        counter = count(tmp_path, 10**9)
        wait_until(lambda before=before: kept(file) != before)
        counter.kill()
        counter.wait()
        assert len(set(kept(file).split())) == 1
        assert len(kept(file).split()) == 400


def directory_in_its_place(path: Path) -> None:
    path.mkdir(parents=True)


def file_in_the_way(path: Path) -> None:
    path.parent.parent.mkdir()
    path.parent.touch()


def dangling_link(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.symlink_to("/nonexistent/directory/file")


def fifo(path: Path) -> None:
    path.parent.mkdir(parents=True)
    os.mkfifo(path)


def read_only(path: Path) -> None:
    """Make a path lead to a file that cannot be written."""
    path.parent.mkdir(parents=True)
    path.symlink_to("/proc/version")


def full(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.symlink_to("/dev/full")


@pytest.mark.parametrize(
    "spoil", [directory_in_its_place, file_in_the_way, dangling_link, fifo, read_only, full]
)
def test_what_cannot_be_had_is_an_error_at_once(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    """Odd files in its place raise OSError at once."""
    file = WeightFile(tmp_path, "REST futures")
    spoil(file.path)
    with pytest.raises(OSError):
        keep(file, b"one")


def test_a_lake_that_is_gone_is_not_made_again(tmp_path: Path) -> None:
    """A weight file does not create a lake that is gone."""
    file = WeightFile(tmp_path / "gone", "REST futures")
    with pytest.raises(FileNotFoundError, match="gone"):
        keep(file, b"one")
    assert list(tmp_path.iterdir()) == []


def test_who_holds_the_lock_for_ever_is_not_waited_for(tmp_path: Path) -> None:
    """A process that holds the lock for too long makes the change fail."""
    file = WeightFile(tmp_path, "REST futures")
    keep(file, b"one")
    with file.path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        began_s = time.monotonic()
        with pytest.raises(BlockingIOError, match="holds its lock"):
            keep(file, b"two")
        assert time.monotonic() - began_s > LOCK_S * 0.9
    assert kept(file) == b"one"


def test_what_is_too_long_is_refused(tmp_path: Path) -> None:
    """Content larger than a page is not written, and the old content stays."""
    file = WeightFile(tmp_path, "REST futures")
    keep(file, b"one")
    with pytest.raises(OSError, match="do not fit"):
        keep(file, b"x" * (PAGE_BYTES + 1))
    assert kept(file) == b"one"


def test_an_error_of_the_turn_changes_nothing(tmp_path: Path) -> None:
    """If the function fails, the file is unchanged and the lock is free."""
    file = WeightFile(tmp_path, "REST futures")
    keep(file, b"one")

    def fail(data: bytes) -> bytes:
        raise ValueError(data)

    with pytest.raises(ValueError):
        file.change(fail)
    assert kept(file) == b"one"


def test_the_boot_is_the_same_for_all_processes() -> None:
    """All processes of a boot get the same boot id."""
    script = "from lakewriter.lake.exchange_limits import WeightFile; from pathlib import Path; print(WeightFile(Path('.'), 'a').boot)"
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == WeightFile(Path(), "b").boot
