"""Cached facts: an unchanged file is not read again, a changed one is."""

import os
import time
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from lakewriter.lake.storage import LocalStorage
from lakewriter.lake.unchanged import SETTLED_S, LocalDevices, UnchangedCache

LATER_S = 2 * SETTLED_S


def cache(*, later_s: float = LATER_S, local: bool = True) -> UnchangedCache[str]:
    return UnchangedCache(10, lambda _device: local, lambda: time.time() + later_s)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "directory"
    path.mkdir()
    (path / "a").touch()
    return path


def test_a_listing_is_kept(directory: Path) -> None:
    """A directory that has not changed for a while is not listed again."""
    listings = cache()
    listings.add(str(directory), directory.stat(), listings.now_s(), "a")
    assert listings.get(str(directory), directory.stat()) == "a"
    assert listings.get(str(directory.parent), directory.parent.stat()) is None


@pytest.mark.parametrize("change", ["add", "remove", "rename", "replace", "move_directory", "set_times"])
def test_a_change_is_noticed(directory: Path, change: str) -> None:
    """Every change of the names makes the listing invalid, even if the times are set back."""
    listings = cache()
    before = directory.stat()
    listings.add(str(directory), before, listings.now_s(), "a")
    if change == "add":
        (directory / "b").touch()
    elif change == "remove":
        (directory / "a").unlink()
    elif change == "rename":
        (directory / "a").rename(directory / "b")
    elif change == "replace":
        (directory.parent / "new").mkdir()
        (directory.parent / "new").rename(directory / "b")
    elif change == "move_directory":
        directory.rename(directory.parent / "old")
        directory.mkdir()
    os.utime(directory, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert listings.get(str(directory), directory.stat()) is None


@pytest.mark.parametrize(
    ("later_s", "local"), [(0, True), (SETTLED_S / 2, True), (-3600, True), (LATER_S, False)]
)
def test_a_listing_that_may_miss_a_change_is_not_kept(directory: Path, later_s: float, local: bool) -> None:
    """A directory with recent or future times, or on another machine, is listed each time."""
    listings = cache(later_s=later_s, local=local)
    listings.add(str(directory), directory.stat(), listings.now_s(), "a")
    assert listings.get(str(directory), directory.stat()) is None


def test_a_file_that_changed_is_read_again(tmp_path: Path) -> None:
    """A file counts as changed if its inode, size or any time differs."""
    path = tmp_path / "candles.parquet"
    path.write_bytes(b"one")
    files = cache()
    first = path.stat()
    files.add((first.st_dev, first.st_ino), first, files.now_s(), "a")
    assert files.get((first.st_dev, first.st_ino), first) == "a"
    os.utime(path, ns=(first.st_atime_ns, first.st_mtime_ns))
    assert files.get((first.st_dev, first.st_ino), path.stat()) is None


def test_facts_are_bounded(directory: Path) -> None:
    """The cache has a maximum size, and always takes the newest fact."""
    listings = cache()
    for number in range(100):
        listings.add(number, directory.stat(), listings.now_s(), "a")
    assert listings.get(99, directory.stat()) == "a"
    assert sum(listings.get(number, directory.stat()) is not None for number in range(100)) <= 10


def test_a_process_that_stood_still_keeps_no_listing(tmp_path: Path) -> None:
    """The age of the directory before the listing decides, because a change may follow at once."""
    storage = Storage(tmp_path)
    (tmp_path / "d").mkdir()
    before = (tmp_path / "d").stat()
    moments = iter([time.time(), time.time() + LATER_S])
    storage._listings = UnchangedCache(10, lambda _device: True, lambda: next(moments))
    assert storage.entries("d")[:2] == ([], [])
    assert storage._listings.get(f"{tmp_path}/d", before) is None


def test_a_listing_is_that_of_its_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that takes another's place during a listing leaves nothing in the cache."""
    storage = Storage(tmp_path)
    for name in ("here", "there"):
        (tmp_path / name / "d").mkdir(parents=True)
        (tmp_path / name / "d" / name).touch()

    def swap(one: str, other: str) -> None:
        (tmp_path / one).rename(tmp_path / "between")
        (tmp_path / other).rename(tmp_path / one)
        (tmp_path / "between").rename(tmp_path / other)

    scan = os.scandir

    def scan_while_swapped(opened: str | int) -> object:
        swap("here", "there")
        try:
            return scan(opened)
        finally:
            swap("here", "there")

    monkeypatch.setattr(os, "scandir", scan_while_swapped)
    storage.entries("here/d")
    monkeypatch.undo()
    assert storage.entries("here/d").files == ["here"]


MOUNTS = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
23 22 0:21 / /mnt/there rw - nfs4 server:/data rw
24 22 254:0 /data /srv rw - ext4 /dev/vda rw
25 22 254:16 / /usb rw - vfat /dev/vdb rw
26 22 0:40 / /tmp rw - tmpfs tmpfs rw
"""


def test_local_disks(tmp_path: Path) -> None:
    """Only devices that are mounted as a local disk's file system are local."""
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS)
    devices = LocalDevices(mounts)
    local = [
        device for device in ((254, 0), (0, 21), (254, 16), (0, 40), (9, 9)) if os.makedev(*device) in devices
    ]
    assert local == [(254, 0)]
    assert os.makedev(254, 0) not in LocalDevices(tmp_path / "none")


def test_links_are_looked_at_each_time(tmp_path: Path) -> None:
    """Links are resolved each time, because their targets can change without the directory."""
    storage = Storage(tmp_path)
    (tmp_path / "target").mkdir()
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "link").symlink_to(tmp_path / "target")
    assert storage.entries("d").directories == ["link"]
    (tmp_path / "target").rmdir()
    (tmp_path / "target").touch()
    assert storage.entries("d")[:2] == ([], ["link"])


class Storage(LocalStorage):
    """A storage with a local disk and a slow clock."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, root / "locks")
        self._listings = UnchangedCache(100, lambda _device: True, lambda: time.time() + LATER_S)


NAMES = st.sampled_from(["a", "b", "d", "d/a", "d/b", "d/e", "d/e/a"])


def test_a_kept_listing_is_a_new_listing(tmp_path_factory: pytest.TempPathFactory) -> None:
    """In any order of changes and listings, a cached listing equals a new one."""

    class Changes(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.root = tmp_path_factory.mktemp("changes")
            self.kept = Storage(self.root)
            self.new = LocalStorage(self.root, self.root / "locks")

        @rule(name=NAMES, directory=st.booleans())
        def make(self, name: str, directory: bool) -> None:
            path = self.root / name
            if path.exists() or not path.parent.is_dir():
                return
            path.mkdir() if directory else path.touch()

        @rule(name=NAMES)
        def remove(self, name: str) -> None:
            path = self.root / name
            if path.is_file():
                path.unlink()
            elif path.is_dir() and not any(path.iterdir()):
                path.rmdir()

        @rule(one=NAMES, other=NAMES)
        def move(self, one: str, other: str) -> None:
            source, target = self.root / one, self.root / other
            if (
                source.exists()
                and not target.exists()
                and target.parent.is_dir()
                and not other.startswith(one)
            ):
                source.rename(target)

        @rule()
        def list_all(self) -> None:
            time.sleep(0.011)  # the kernel stamps by a clock that ticks up to ten milliseconds late
            for name in ("", "a", "b", "d", "d/a", "d/e"):
                assert self.kept.entries(name) == self.new.entries(name)

    run_state_machine_as_test(
        Changes, settings=settings(max_examples=40, stateful_step_count=30, deadline=None)
    )
