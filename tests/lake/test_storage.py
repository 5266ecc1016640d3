"""Local storage: one writer at a time replaces a name as a whole."""

import contextlib
import fcntl
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakewriter.errors import LakeError
from lakewriter.lake.durable import write_durably
from lakewriter.lake.storage import (
    LOCKS,
    TEMPORARY_AGE_S,
    ChangedError,
    Listing,
    LocalStorage,
    Replacement,
)
from lakewriter.regular_file import NotRegularError, TooLargeError
from support.full_disk import full_disk
from support.lengths import examples
from support.running import PATIENCE_S, python_child, wait_until

NAME = "a=1/b=2/candles.parquet"
NOW_S = 1_800_000_000.0


def storage_at(root: Path, kind: type[LocalStorage] = LocalStorage) -> LocalStorage:
    locks = root / "_locks"
    locks.mkdir(parents=True, exist_ok=True)
    return kind(root, locks)


def files_of(root: Path) -> dict[str, bytes]:
    """Return all files below the root by name, without lock files."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and path.parent.name != "_locks"
    }


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return storage_at(tmp_path)


def test_new_name(storage):
    """A new name is there whole, with its directories and the returned version."""
    version = storage.replace(NAME, b"one", None)
    assert storage.read(NAME)[:2] == (b"one", version)
    assert storage.version(NAME) == version
    assert files_of(storage.root) == {NAME: b"one"}


def test_absent_name(storage):
    """An absent name has neither bytes nor a version."""
    assert storage.read(NAME) is None
    assert storage.version(NAME) is None


def test_replaced(storage):
    """A replaced name has new bytes and a new version, even for equal bytes."""
    versions = [storage.replace(NAME, b"same", None)]
    for _ in range(20):
        versions.append(storage.replace(NAME, b"same", versions[-1]))
    assert len(set(versions)) == 21
    assert storage.read(NAME)[:2] == (b"same", versions[-1])


@pytest.mark.parametrize("expected", [None, "", "another", "0-0-0"])
def test_changed(storage, expected):
    """A replacement with another expected version changes nothing, and leaves no file."""
    version = storage.replace(NAME, b"old", None)
    with pytest.raises(ChangedError):
        storage.replace(NAME, b"new", expected)
    assert storage.read(NAME)[:2] == (b"old", version)
    assert files_of(storage.root) == {NAME: b"old"}


def test_gone_meanwhile(storage):
    """A replacement of a name that is gone changes nothing."""
    version = storage.replace(NAME, b"old", None)
    storage.delete(NAME)
    with pytest.raises(ChangedError):
        storage.replace(NAME, b"new", version)
    assert files_of(storage.root) == {}


def test_empty_and_large(storage):
    """Empty and large contents are stored."""
    version = storage.replace(NAME, b"", None)
    assert storage.read(NAME)[:2] == (b"", version)
    large = os.urandom(1_000_000) * 5
    version = storage.replace(NAME, large, version)
    assert storage.read(NAME)[:2] == (large, version)


@pytest.mark.parametrize("written", [0, 1, 999])
def test_disk_full(storage, written):
    """On a full disk the old bytes stay, and no other file is left."""
    version = storage.replace(NAME, b"old", None)
    with full_disk(written), pytest.raises(OSError, match="File too large"):
        storage.replace(NAME, b"x" * 1000, version)
    assert storage.read(NAME)[:2] == (b"old", version)
    assert files_of(storage.root) == {NAME: b"old"}
    storage.replace(NAME, b"x" * 1000, version)


class Interrupted(LocalStorage):
    """A storage that dies after it wrote the new bytes, before the rename."""

    def version(self, name: str) -> str | None:
        self.seen = self.entries(str(Path(name).parent)).files
        raise KeyboardInterrupt


def test_interrupted(tmp_path):
    """Before the rename the new bytes have a name outside readers' globs, and a sweep removes them."""
    storage_at(tmp_path).replace(NAME, b"old", None)
    interrupted = storage_at(tmp_path, Interrupted)
    with pytest.raises(KeyboardInterrupt):
        interrupted.replace(NAME, b"new", None)
    temporary, own = interrupted.seen
    assert own == "candles.parquet"
    assert temporary.startswith(".candles.parquet.tmp-")
    assert not temporary.endswith(".parquet")
    assert files_of(tmp_path) == {NAME: b"old"}


class Racing(LocalStorage):
    """A storage in which another writer is always first."""

    def version(self, name: str) -> str | None:
        other = LocalStorage(self.root, self._locks)
        other.replace(name, b"theirs", other.version(name))
        return super().version(name)


def test_race(tmp_path):
    """A writer that comes second gets ChangedError, and the first one's bytes stay."""
    version = storage_at(tmp_path).replace(NAME, b"old", None)
    with pytest.raises(ChangedError):
        storage_at(tmp_path, Racing).replace(NAME, b"ours", version)
    assert files_of(tmp_path) == {NAME: b"theirs"}


def test_delete(storage):
    """A deletion removes a name; repeated, or for an absent name, it changes nothing."""
    storage.replace(NAME, b"one", None)
    storage.delete(NAME)
    storage.delete(NAME)
    storage.delete("never/was")
    assert storage.read(NAME) is None
    assert files_of(storage.root) == {}


def test_delete_unchanged(storage):
    """Only names with their versions are removed, in several directories."""
    names = [NAME, "d/a", "d/b", "d/c"]
    versions = {name: storage.replace(name, b"one", None) for name in names}
    storage.replace("d/b", b"two", versions["d/b"])
    storage.delete("d/c")
    assert storage.delete_unchanged({**versions, "never/was": "1"}) == [NAME, "d/a"]
    assert files_of(storage.root) == {"d/b": b"two"}


def test_entries(storage):
    """A listing has one level, sorted, with separate directories and files; a link counts as its target."""
    for name in ("d/z", "d/a", "d/.hidden", "d/sub/x", "d/other/y"):
        storage.replace(name, b"", None)
    (storage.root / "d/link").symlink_to(storage.root / "d/sub")
    assert storage.entries("d") == Listing(["link", "other", "sub"], [".hidden", "a", "z"])
    assert storage.entries("") == Listing(["_locks", "d"], [])


@pytest.mark.parametrize("directory", ["absent", "a/b/c", "file", "file/below"])
def test_entries_of_no_directory(storage, directory):
    """An absent directory, or a file, has no entries."""
    storage.replace("file", b"", None)
    assert storage.entries(directory) == Listing([], [])


def test_root_gone(tmp_path):
    """A root that is gone is not created again."""
    storage = LocalStorage(tmp_path / "gone", tmp_path)
    with pytest.raises(LakeError) as caught:
        storage.replace(NAME, b"", None)
    assert caught.value.what == f"lake: {tmp_path}/gone is gone"
    assert not (tmp_path / "gone").exists()


def test_sweep(storage):
    """Only our old temporary files are removed."""
    old = ["d/.candles.parquet.tmp-1-ab", "d/.x.tmp-2"]
    kept = [
        "d/.young.tmp-3",
        "d/.hidden",
        "d/candles.parquet",
        "d/x.tmp-4",
        "d/_SUCCESS",
        "d/sub/.deep.tmp-5",
    ]
    for name in (*old, *kept):
        storage.replace(name, b"", None)
        os.utime(storage.root / name, (0, NOW_S - TEMPORARY_AGE_S - 1))
    os.utime(storage.root / "d/.young.tmp-3", (0, NOW_S - TEMPORARY_AGE_S + 1))
    assert storage.sweep("d", NOW_S, dry_run=True) == old
    assert set(files_of(storage.root)) == {*old, *kept}
    assert storage.sweep("d", NOW_S) == old
    assert set(files_of(storage.root)) == set(kept)
    assert storage.sweep("d", NOW_S) == []
    assert storage.sweep("absent", NOW_S) == []


steps = st.lists(
    st.tuples(
        st.sampled_from(["d/a", "d/b", "e/a"]),
        st.none() | st.binary(max_size=5),
        st.sampled_from(["right", "right", "none", "stale"]),
    ),
    max_size=12,
)


@examples(20, 100)
@given(steps=steps)
def test_like_a_dict(tmp_path_factory, steps):
    """Any sequence of replacements and deletions leaves the names of a dict with versions."""
    storage = storage_at(tmp_path_factory.mktemp("root"))
    model: dict[str, bytes] = {}
    stale = "stale"
    for name, data, expecting in steps:
        version = storage.version(name)
        assert (version is None) == (name not in model)
        if data is None:
            storage.delete(name)
            model.pop(name, None)
            continue
        expected = {"right": version, "none": None, "stale": stale}[expecting]
        if expected == version:
            stale = version or stale
            assert storage.replace(name, data, expected) == storage.version(name)
            model[name] = data
        else:
            with pytest.raises(ChangedError):
                storage.replace(name, data, expected)
        assert files_of(storage.root) == model


COUNT = """
import sys
from pathlib import Path
from lakewriter.lake.storage import LocalStorage
root = Path(sys.argv[1])
storage = LocalStorage(root, root / "_locks")
for _ in range(int(sys.argv[2])):
    with storage.exclusive("d"):
        (root / "count").write_text(str(int((root / "count").read_text()) + 1))
"""


@pytest.mark.slow
def test_exclusive_across_processes(storage):
    """One process at a time holds a directory's lock."""
    (storage.root / "count").write_text("0")
    with python_child(COUNT, storage.root, 300) as one, python_child(COUNT, storage.root, 300) as other:
        for _ in range(300):
            with storage.exclusive("d"):
                count = int((storage.root / "count").read_text())
                (storage.root / "count").write_text(str(count + 1))
        assert (one.wait(PATIENCE_S), other.wait(PATIENCE_S)) == (0, 0)
    assert (storage.root / "count").read_text() == "900"


def test_exclusive_across_threads(storage):
    """One thread at a time holds a directory's lock."""
    count = storage.root / "count"
    count.write_text("0")

    def add() -> None:
        for _ in range(100):
            with storage.exclusive("d"):
                count.write_text(str(int(count.read_text()) + 1))

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(add) for _ in range(4)]:
            done.result()
    assert count.read_text() == "400"


def is_held(lock: Path) -> bool:
    with lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def test_exclusive_ends(storage):
    """The lock is held inside of the block, and released at its end, also on errors."""
    with contextlib.suppress(KeyError), storage.exclusive("d"):
        (lock,) = (storage.root / "_locks").iterdir()
        assert is_held(lock)
        raise KeyError
    assert not is_held(lock)
    with storage.exclusive("d"):
        assert is_held(lock)


def test_a_deleted_lock_excludes_all_the_same(storage):
    """A waiter whose lock file was deleted takes the new one, like all later writers."""
    (name,) = locks_of(storage, "d")
    lock = storage.root / "_locks" / name
    held: list[bool] = []

    def enter() -> None:
        with storage.exclusive("d"):
            held.append(is_held(lock))

    waiter = threading.Thread(target=enter)
    with storage.exclusive("d"):
        inode = f":{lock.stat().st_ino} "
        waiter.start()
        wait_until(
            lambda: any(
                "->" in line and inode in line for line in Path("/proc/locks").read_text().splitlines()
            )
        )
        lock.unlink()
    waiter.join()
    assert held == [True]


def locks_of(storage: LocalStorage, directory: str) -> list[str]:
    with storage.exclusive(directory):
        return [path.name for path in (storage.root / "_locks").iterdir()]


def test_an_odd_lock_is_refused_at_once(storage):
    """A directory, device or pipe in a lock's place is an error without a wait."""
    (name,) = locks_of(storage, "d")
    lock = storage.root / "_locks" / name
    for spoil in (Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/dev/null")):
        lock.rmdir() if lock.is_dir() else lock.unlink()
        spoil(lock)
        with pytest.raises(OSError), storage.exclusive("d"):
            pass


def test_no_lock_makes_a_lake_anew(tmp_path):
    """Without the lake's root a lock is an error, and creates nothing."""
    root = tmp_path / "lake"
    root.mkdir()
    storage = LocalStorage(root, root / "_locks")
    root.rmdir()
    with pytest.raises(LakeError, match="is gone"), storage.exclusive("d"):
        pass
    assert not root.exists()


def test_read_is_bounded(storage):
    """A file larger than any partition's, or not regular, is refused at once."""
    (storage.root / "d").mkdir()
    (storage.root / "d/sparse").touch()
    os.truncate(storage.root / "d/sparse", 3 << 30)
    with pytest.raises(TooLargeError, match="larger than 268,435,456 bytes"):
        storage.read("d/sparse")
    os.mkfifo(storage.root / "d/pipe")
    (storage.root / "d/nowhere").symlink_to("gone")
    for name in ("pipe", "nowhere"):
        with pytest.raises(NotRegularError):
            storage.read(f"d/{name}")


def test_entries_of_no_kind(storage, caplog):
    """Pipes, sockets and devices are not listed, and are logged once; a broken link is listed as a file."""
    (storage.root / "d").mkdir()
    os.mkfifo(storage.root / "d/pipe")
    (storage.root / "d/device").symlink_to("/dev/zero")
    (storage.root / "d/nowhere").symlink_to("gone")
    (storage.root / "d/ring").symlink_to("ring")
    for _ in range(2):
        assert storage.entries("d") == Listing([], ["nowhere", "ring"])
    assert sorted(record.getMessage() for record in caplog.records) == [
        f"lake: {storage.root}/d/{name} is left out: it is no regular file" for name in ("device", "pipe")
    ]


def test_locks_are_few(storage):
    """Any number of directories uses at most 256 lock files."""
    for number in range(2000):
        with storage.exclusive(f"symbol={number}"):
            pass
    names = {path.name for path in (storage.root / "_locks").iterdir()}
    assert len(names) <= LOCKS == 256
    assert names <= {f"{number:02x}" for number in range(256)}


HOLD = """
import sys
from pathlib import Path
from lakewriter.lake.storage import LocalStorage
root = Path(sys.argv[1])
with LocalStorage(root, root / "_locks").exclusive("d"):
    print("inside", flush=True)
    sys.stdin.read()
"""


@pytest.mark.slow
def test_dead_owner_holds_nothing(storage):
    """A process that was killed inside of the block holds no lock."""
    with python_child(HOLD, storage.root) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "inside\n"
        (lock,) = (storage.root / "_locks").iterdir()
        assert is_held(lock)
        process.kill()
        process.wait(PATIENCE_S)
        with storage.exclusive("d"):
            assert is_held(lock)


def test_write_durably(tmp_path):
    """A small file is replaced whole, and no other file is left."""
    for data in (b"one", b"", b"two"):
        write_durably(tmp_path / "lake.json", data)
        assert files_of(tmp_path) == {"lake.json": data}


def test_write_durably_on_a_full_disk(tmp_path):
    """On a full disk the old file stays, and no other file is left."""
    write_durably(tmp_path / "lake.json", b"old")
    with full_disk(5), pytest.raises(OSError, match="File too large"):
        write_durably(tmp_path / "lake.json", b"much longer")
    assert files_of(tmp_path) == {"lake.json": b"old"}


MANY = [
    Replacement(f"a={number % 3}/b={number}/candles.parquet", b"%d" % number, None) for number in range(20)
]


@pytest.mark.parametrize("sync_threads", [1, 8])
def test_replace_all(tmp_path, sync_threads):
    """Many names are replaced whole with the returned versions, and no other file is left."""
    storage = LocalStorage(tmp_path, tmp_path / "_locks", sync_threads)
    for generation in (b"old", b"new"):
        wanted = [Replacement(each.name, each.data + generation, storage.version(each.name)) for each in MANY]
        versions = storage.replace_all(wanted)
        assert versions == [storage.version(each.name) for each in MANY]
        assert files_of(tmp_path) == {each.name: each.data + generation for each in MANY}


def test_replace_all_of_nothing(storage):
    """No replacements change nothing."""
    assert storage.replace_all([]) == []
    assert files_of(storage.root) == {}


def test_replace_all_changed(storage):
    """Names with another version stay; the other names are replaced."""
    versions = storage.replace_all(MANY)
    storage.replace(MANY[3].name, b"theirs", versions[3])
    storage.delete(MANY[5].name)
    again = [
        each._replace(data=b"ours", expected=version) for each, version in zip(MANY, versions, strict=True)
    ]
    done = storage.replace_all(again)
    assert [place for place, version in enumerate(done) if version is None] == [3, 5]
    expected = {each.name: b"ours" for each in MANY} | {MANY[3].name: b"theirs"}
    del expected[MANY[5].name]
    assert files_of(storage.root) == expected


def test_replace_all_on_a_full_disk(storage):
    """If the disk refuses one of many, all keep their old bytes, and no other file is left."""
    versions = storage.replace_all(MANY)
    again = [each._replace(expected=version) for each, version in zip(MANY, versions, strict=True)]
    again[10] = again[10]._replace(data=b"x" * 1000)
    with full_disk(100), pytest.raises(OSError, match="File too large"):
        storage.replace_all(again)
    assert [storage.version(each.name) for each in MANY] == versions
    assert files_of(storage.root) == {each.name: each.data for each in MANY}


class InterruptedAtThird(LocalStorage):
    """A storage that dies after two of many renames."""

    left = 3

    def version(self, name: str) -> str | None:
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt
        return super().version(name)


def test_replace_all_interrupted(tmp_path):
    """Renamed files are whole, and no temporary file of the others is left."""
    with pytest.raises(KeyboardInterrupt):
        storage_at(tmp_path, InterruptedAtThird).replace_all(MANY)
    assert files_of(tmp_path) == {each.name: each.data for each in MANY[:2]}


def test_exclusive_of_many_across_threads(storage):
    """Threads that lock many directories in any order do not deadlock."""
    count = storage.root / "count"
    count.write_text("0")
    names = [f"d{number}" for number in range(20)]

    def add(first: int) -> None:
        for turn in range(50):
            with storage.exclusive(*names[first + turn % 5 :], *reversed(names[: first + 10])):
                count.write_text(str(int(count.read_text()) + 1))

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(add, first) for first in range(4)]:
            done.result(timeout=PATIENCE_S)
    assert count.read_text() == "200"
