"""The cache of objects on a disk: its entries, its limits, and other users of its directory."""

import contextlib
import fcntl
import os
import secrets
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lakewriter.errors import UsageError
from lakewriter.lake.cache_place import SIZE_VARIABLE, CachePlace, cache_place, parse_cache_size
from lakewriter.lake.remote.cache_space import CacheSpace
from lakewriter.lake.remote.location import locate
from lakewriter.lake.remote.object_cache import ENTRIES_DIRECTORY, PAUSE_S, ObjectCache
from lakewriter.lake.remote.object_store import ObjectStorage
from lakewriter.lake.storage import StoredBytes
from lakewriter.lake.warn_once import log_once
from support.full_disk import full_disk
from support.google_store import GoogleStore
from support.object_store import Store, environment
from support.running import PATIENCE_S, python_child

BLOCK = 4096
# The sum of no entries.
NOTHING = b"%019d %012d\n" % (0, 0)
NAME = "market=spot/symbol=币安人生USDT/interval=1d/date=2024-01-01/candles.parquet"


@pytest.fixture(autouse=True)
def _each_warning_again() -> None:
    log_once.cache_clear()


def cache(
    directory: Path, lake: str = "s3://bucket/lake", *, bytes_max: int = 1 << 30, files_max: int = 100
) -> ObjectCache:
    """Return a cache that also works on a disk without much space."""
    space = CacheSpace(directory / ENTRIES_DIRECTORY, bytes_max, files_max=files_max, free_bytes_min=0)
    return ObjectCache(CachePlace(directory, bytes_max), lake, space)


def stored(data: bytes, e_tag: str = '"a"') -> StoredBytes:
    return StoredBytes(data, f"{e_tag} ", 1_700_000_000_123)


def entries(directory: Path) -> list[Path]:
    return sorted(path for path in (directory / ENTRIES_DIRECTORY).glob("??/*"))


def test_an_entry_is_read_as_it_was_written(tmp_path: Path) -> None:
    """An entry has the bytes, the version and the time of its object, also for another process' cache."""
    assert cache(tmp_path / "new" / "one").read(NAME, '"a" ') is None
    found = stored(b"PAR1\n\0" + secrets.token_bytes(100_000))
    cache(tmp_path / "new" / "one").write(NAME, found)
    assert cache(tmp_path / "new" / "one").read(NAME, '"a" ') == found


@pytest.mark.parametrize("version", ['"b" ', "", " ", " 7", 'W/"a" '])
def test_another_version_is_a_miss(tmp_path: Path, version: str) -> None:
    """An entry is not used for another ETag, a weak one, or none."""
    there = cache(tmp_path)
    there.write(NAME, stored(b"one"))
    assert there.read(NAME, version) is None
    there.write(NAME, StoredBytes(b"two", version))
    assert there.read(NAME, version) == (StoredBytes(b"two", version) if version == '"b" ' else None)


def test_a_listing_may_leave_out_quotes_and_generation(tmp_path: Path) -> None:
    """Azure's listings have no quotes, and Google's no generation; the ETag alone decides."""
    there = cache(tmp_path)
    there.write(NAME, StoredBytes(b"one", '"a" 17'))
    for version in ('"a" 17', '"a" ', "a "):
        assert there.read(NAME, version) == StoredBytes(b"one", '"a" 17')


def test_a_newer_version_replaces_the_entry(tmp_path: Path) -> None:
    """An object has one entry, of the version that was read last."""
    there = cache(tmp_path)
    for data, e_tag in ((b"one", '"a"'), (b"twice", '"b"')):
        there.write(NAME, stored(data, e_tag))
    assert there.read(NAME, '"a" ') is None
    assert there.read(NAME, '"b" ') == stored(b"twice", '"b"')
    assert len(entries(tmp_path)) == 1


def test_lakes_and_names_do_not_mix(tmp_path: Path) -> None:
    """Objects of one name and ETag in different lakes have their own entries, also under a wrong file name."""
    one, other = cache(tmp_path, "s3://bucket/lake"), cache(tmp_path, "s3://bucket/other")
    one.write(NAME, stored(b"one"))
    assert other.read(NAME, '"a" ') is None
    assert one.read("other name", '"a" ') is None
    (path,) = entries(tmp_path)
    other.write(NAME, stored(b"other"))
    (moved,) = set(entries(tmp_path)) - {path}
    path.rename(moved)
    assert other.read(NAME, '"a" ') is None


def test_identity_of_lakes() -> None:
    """Bucket, prefix, endpoint, region and account distinguish lakes; keys do not, and are not in the text."""
    variables = {"AZURE_STORAGE_KEY": "bm9uZQ==", "AWS_ACCESS_KEY_ID": "K", "AWS_SECRET_ACCESS_KEY": "S3CRET"}
    with environment(**variables):
        uris = [
            *("s3://b/lake", "s3://c/lake", "s3://b/other", "s3://b/lake?region=eu-west-1"),
            *("s3://b/lake?endpoint_override=http://127.0.0.1:1", "gs://b/lake?anonymous=true"),
            *("az://b/lake?account_name=one", "az://b/lake?account_name=two"),
        ]
        identities = [locate(uri).identity for uri in uris]
        assert len(set(identities)) == len(uris)
        assert locate("s3://key:S3CRET@b/lake").identity == identities[0]
        identities.append(locate("s3://b/lake?endpoint_override=http://user:S3CRET@127.0.0.1:1").identity)
        assert len(set(identities)) == len(uris) + 1
        assert not any("S3CRET" in identity or "bm9uZQ" in identity for identity in identities)


@pytest.mark.parametrize("damage", ["cut", "longer", "empty", "flipped", "header", "zeros", "other"])
def test_a_damaged_entry_is_a_miss(tmp_path: Path, damage: str) -> None:
    """An entry whose length or checksum is wrong is removed and never returned, and can be written again."""
    there = cache(tmp_path)
    found = stored(secrets.token_bytes(5_000))
    there.write(NAME, found)
    (path,) = entries(tmp_path)
    whole = path.read_bytes()
    flipped, header = bytearray(whole), bytearray(whole)
    flipped[-17] ^= 1
    header[70] ^= 1
    path.write_bytes(
        {
            "cut": whole[:-1], "longer": whole + b"\0", "empty": b"", "flipped": bytes(flipped),
            "header": bytes(header), "zeros": bytes(len(whole)), "other": secrets.token_bytes(len(whole)),
        }[damage]
    )  # fmt: skip
    assert there.read(NAME, '"a" ') is None
    assert entries(tmp_path) == []
    there.write(NAME, found)
    assert there.read(NAME, '"a" ') == found


def test_every_byte_counts(tmp_path: Path) -> None:
    """One changed byte anywhere in an entry is a miss."""
    there = cache(tmp_path)
    there.write(NAME, stored(b"PAR1 and so on PAR1"))
    (path,) = entries(tmp_path)
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x04]) + whole[at + 1 :])
        assert there.read(NAME, '"a" ') is None, at


def test_files_are_private_and_have_no_secret(tmp_path: Path) -> None:
    """Directories have mode 0700 and files 0600, and nothing is left beside them."""
    before = os.umask(0)
    try:
        cache(tmp_path / "cache").write(NAME, stored(b"one"))
    finally:
        os.umask(before)
    for path in (tmp_path / "cache", *(tmp_path / "cache").rglob("*")):
        expected = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.stat().st_mode) == expected, path
    top = {path.name for path in (tmp_path / "cache" / ENTRIES_DIRECTORY).iterdir() if path.is_file()}
    assert top == {"CACHEDIR.TAG", "usage"}


def test_the_entries_unused_for_longest_are_removed(tmp_path: Path) -> None:
    """At the limit of bytes those entries go that were neither written nor read for longest."""
    there = cache(tmp_path, bytes_max=100 * BLOCK, files_max=1_000)
    for number in range(100):
        there.write(f"{number}", stored(b"x"))
    assert len(entries(tmp_path)) == 100
    _set_times(tmp_path, 1_000)
    for number in range(0, 100, 10):
        assert there.read(f"{number}", '"a" ') is not None
    there.write("new", stored(b"x"))
    # A tenth of the limit is free, with the new entry in place.
    assert len(entries(tmp_path)) == 90
    for number in range(0, 100, 10):
        assert there.read(f"{number}", '"a" ') is not None
    assert there.read("new", '"a" ') is not None


def _set_times(directory: Path, used_s: float) -> None:
    for path in entries(directory):
        os.utime(path, (used_s, used_s))


def test_bytes_never_exceed_the_limit(tmp_path: Path) -> None:
    """Entries of any size stay within the limit; one that alone would fill it is not written."""
    limit = 64 * BLOCK
    there = cache(tmp_path, bytes_max=limit, files_max=1_000)
    for number in range(300):
        there.write(f"{number % 50}", stored(bytes(number * 997 % (20 * BLOCK)), f'"{number}"'))
        assert sum(path.stat().st_blocks * 512 for path in entries(tmp_path)) <= limit
    there.write("large", stored(bytes(limit)))
    assert there.read("large", '"a" ') is None
    assert entries(tmp_path)


def test_files_are_limited(tmp_path: Path) -> None:
    """The number of entries is limited too."""
    there = cache(tmp_path, files_max=20)
    for number in range(100):
        there.write(f"{number}", stored(b"x"))
        assert len(entries(tmp_path)) <= 20
    assert there.read("99", '"a" ') is not None


@pytest.mark.parametrize("text", [b"", b"x", b"1 1\n", b"%019d %012d\n" % (10**12, 5), NOTHING, b"\0" * 99])
def test_a_wrong_sum_is_corrected(tmp_path: Path, text: bytes) -> None:
    """Whatever the sum says, an entry is written; a missing or too large sum is counted again."""
    there = cache(tmp_path, bytes_max=1000 * BLOCK)
    for number in range(3):
        there.write(f"{number}", stored(b"x"))
    usage = tmp_path / ENTRIES_DIRECTORY / "usage"
    usage.write_bytes(text)
    there.write("new", stored(b"x"))
    assert len(entries(tmp_path)) == 4
    size, files = (4096, 1) if text == NOTHING else (16384, 4)
    assert usage.read_bytes()[:33] == b"%019d %012d\n" % (size, files)


def test_leftovers_of_dead_writers_are_removed(tmp_path: Path) -> None:
    """Old temporary files go when the entries are counted; new ones stay, as their writer may be alive."""
    there = cache(tmp_path)
    there.write(NAME, stored(b"x"))
    (path,) = entries(tmp_path)
    old, new = path.with_name(f".{path.name}.tmp-1-aa"), path.with_name(f".{path.name}.tmp-1-bb")
    for each in (old, new):
        each.write_bytes(b"x")
    os.utime(old, (1_000, 1_000))
    (tmp_path / ENTRIES_DIRECTORY / "usage").unlink()
    there.write(NAME, stored(b"x"))
    assert not old.exists() and new.exists() and path.exists()


def test_a_stopped_process_delays_nobody(tmp_path: Path) -> None:
    """While another process keeps the lock, entries are read and none is written; then they are again."""
    there = cache(tmp_path)
    there.write("one", stored(b"x"))
    fd = os.open(tmp_path / ENTRIES_DIRECTORY / "usage", os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    began_s = time.monotonic()
    there.write("two", stored(b"x"))
    assert time.monotonic() - began_s < 30
    assert there.read("one", '"a" ') is not None
    os.close(fd)
    assert there.read("two", '"a" ') is None
    there.write("two", stored(b"x"))
    assert there.read("two", '"a" ') is not None


def test_no_space_is_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """On a full disk nothing is left, one warning says so, and entries are read. Later more are written."""
    now_s = 5.0
    space = CacheSpace(tmp_path / ENTRIES_DIRECTORY, 1 << 30, free_bytes_min=0)
    there = ObjectCache(CachePlace(tmp_path, 1 << 30), "lake", space, lambda: now_s)
    there.write("one", stored(b"x"))
    with full_disk(60_000):
        for number in range(5):
            there.write(f"{number}", stored(secrets.token_bytes(100_000)))
    assert len(entries(tmp_path)) == 1
    assert caplog.text.count("cache: ") == 1
    assert f"cache: {tmp_path}: File too large, so nothing is added; name another --cache-dir" in caplog.text
    assert there.read("one", '"a" ') is not None
    now_s += PAUSE_S - 1
    there.write("two", stored(b"x"))
    assert there.read("two", '"a" ') is None
    now_s += 1
    there.write("two", stored(b"x"))
    assert there.read("two", '"a" ') == stored(b"x")


def test_space_is_left_for_journals(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An entry that would leave too little free space is not written."""
    disk = os.statvfs(tmp_path)
    space = CacheSpace(tmp_path / ENTRIES_DIRECTORY, 1 << 40, free_bytes_min=0)
    there = ObjectCache(CachePlace(tmp_path, 1 << 40), "lake", space)
    there.write("one", stored(b"x"))
    assert there.read("one", '"a" ') is not None
    space._free_bytes_min = disk.f_blocks * disk.f_frsize
    nearly_full = disk.f_bavail < disk.f_blocks // 20
    there.write("two", stored(b"x"))
    assert (there.read("two", '"a" ') is None) == nearly_full
    assert len(caplog.messages) == nearly_full


def test_a_directory_that_cannot_be_made(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A directory that is a file, or lies below one, is one warning."""
    (tmp_path / "file").write_text("")
    for directory in (tmp_path / "file", tmp_path / "file" / "below"):
        there = cache(directory)
        there.write(NAME, stored(b"x"))
        there.write(NAME, stored(b"x"))
        assert there.read(NAME, '"a" ') is None
        assert len(caplog.messages) == 1 and ", so nothing is cached; " in caplog.messages[0]
        caplog.clear()


def test_a_directory_that_others_may_write(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Entries are not read from a directory that other users may write."""
    cache(tmp_path).write(NAME, stored(b"x"))
    (tmp_path / ENTRIES_DIRECTORY).chmod(0o777)
    assert cache(tmp_path).read(NAME, '"a" ') is None
    assert "other users may write it" in caplog.text
    if os.geteuid() == 0:
        (tmp_path / ENTRIES_DIRECTORY).chmod(0o700)
        os.chown(tmp_path / ENTRIES_DIRECTORY, 12345, 12345)
        assert cache(tmp_path).read(NAME, '"a" ') is None


def test_a_directory_that_is_read_only(tmp_path: Path) -> None:
    """Entries of a directory without permission to write are read; one warning says that none is added."""
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    cache(tmp_path).write(NAME, stored(b"x"))
    directory = tmp_path / ENTRIES_DIRECTORY
    for path in (*directory.rglob("*"), directory):
        path.chmod(0o500 if path.is_dir() else 0o400)
    try:
        there = cache(tmp_path)
        assert there.read(NAME, '"a" ') == stored(b"x")
        there.write("other", stored(b"x"))
        assert there.read("other", '"a" ') is None
    finally:
        for path in (directory, *directory.rglob("*")):
            path.chmod(0o700)


def test_a_sum_that_cannot_be_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """If the entries cannot be counted, they are read and none is added, with one warning."""
    cache(tmp_path).write(NAME, stored(b"x"))
    usage = tmp_path / ENTRIES_DIRECTORY / "usage"
    usage.unlink()
    usage.mkdir()
    there = cache(tmp_path)
    for number in range(3):
        there.write(f"{number}", stored(b"x"))
        assert there.read(NAME, '"a" ') == stored(b"x")
    assert len(entries(tmp_path)) == 1
    assert len(caplog.messages) == 1 and "Is a directory, so nothing is added; " in caplog.messages[0]


def test_a_directory_that_somebody_removes(tmp_path: Path) -> None:
    """After `rm -r` the directory is created again."""
    there = cache(tmp_path / "cache")
    there.write(NAME, stored(b"x"))
    (tmp_path / "cache").rename(tmp_path / "gone")
    assert there.read(NAME, '"a" ') is None
    there.write(NAME, stored(b"x"))
    there.write(NAME, stored(b"x"))
    assert there.read(NAME, '"a" ') == stored(b"x")


# Reads and writes objects whose bytes follow from their names and ETags; prints the hits, and the wrong ones.
_USE = """
import sys
from pathlib import Path
from lakewriter.lake.cache_place import CachePlace
from lakewriter.lake.remote.cache_space import CacheSpace
from lakewriter.lake.remote.object_cache import ENTRIES_DIRECTORY, ObjectCache
from lakewriter.lake.storage import StoredBytes

directory, limit, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
space = CacheSpace(directory / ENTRIES_DIRECTORY, limit, free_bytes_min=0)
there = ObjectCache(CachePlace(directory, limit), "lake", space)
hits = wrong = 0
for number in range(600):
    name, version = f"{number * seed % 37}", f'"{number % 3}" '
    data = f"{name} {version} ".encode() * 2_000
    found = there.read(name, version)
    if found is not None:
        hits += 1
        wrong += found.data != data
    there.write(name, StoredBytes(data, version))
print(hits, wrong)
"""


def test_processes_share_a_directory(tmp_path: Path) -> None:
    """Processes that replace and remove each other's entries never read wrong bytes, and keep the limit."""
    with contextlib.ExitStack() as stack:
        started = [
            stack.enter_context(python_child(_USE, tmp_path, 200 * BLOCK, seed)) for seed in (7, 11, 13)
        ]
        printed = [process.communicate(timeout=PATIENCE_S)[0].split() for process in started]
    assert [wrong for _, wrong in printed] == ["0", "0", "0"]
    assert any(int(hits) for hits, _ in printed)
    # A count of the entries may miss those that the two others are about to write.
    assert sum(path.stat().st_blocks * 512 for path in entries(tmp_path)) <= (200 + 2 * 6) * BLOCK
    assert not [path for path in entries(tmp_path) if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("2GB", 2 * 10**9),
        ("1.5 GiB", 3 << 29),
        ("500mb", 5 * 10**8),
        ("1T", -1),
        ("10B", 10),
        ("2000000", 2_000_000),
    ],
)
def test_sizes(text: str, size: int) -> None:
    """A size has a unit of bytes; others are one line with an example."""
    if size >= 0:
        assert parse_cache_size(text) == size
    else:
        with pytest.raises(UsageError, match=r"^cache size: '1T' is no size"):
            parse_cache_size(text)


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "2 G B", "1e9", "9999TB", "2XB", "inf", "5"])
def test_texts_that_are_no_size(text: str) -> None:
    """Anything else is refused."""
    with pytest.raises(UsageError, match=r"^cache size: "):
        parse_cache_size(text)


def test_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller has precedence over the environment, and that over the defaults."""
    monkeypatch.delenv(SIZE_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_place() == (Path("/somewhere/lakewriter"), 2 * 10**9)
    monkeypatch.setenv("LAKEWRITER_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv(SIZE_VARIABLE, "1MB")
    assert cache_place() == (tmp_path, 10**6)
    assert cache_place("/there", 5) == (Path("/there"), 5)
    assert cache_place("/there", 0) is None
    monkeypatch.setenv(SIZE_VARIABLE, "0")
    assert cache_place("/there") is None


@pytest.fixture(params=["moto", "seaweed", "google", "azure"])
def uri(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URI of an empty lake."""
    if request.param == "seaweed":
        yield request.getfixturevalue("bucket").uri("a lake")
    elif request.param == "azure":
        yield request.getfixturevalue("container").uri("a lake")
    else:
        with contextlib.closing(Store() if request.param == "moto" else GoogleStore()) as started:
            yield started.uri("a lake")


@pytest.mark.slow
def test_listed_versions_are_those_of_reads(uri: str, tmp_path: Path) -> None:
    """The version of each store's listings finds the entry of its reads, until the object is replaced."""
    location = locate(uri)
    there = ObjectStorage(location, cache(tmp_path, location.identity))
    directory, file = NAME.rsplit("/", 1)
    version = there.replace(NAME, b"one", None)
    for data in (b"one", b"two"):
        if data == b"two":
            version = there.replace(NAME, data, version)
        (listed,) = there.tree(directory)
        assert there.entries(directory).versions == {file: listed.version}
        assert there.cache is not None
        assert there.cache.read(NAME, listed.version) is None
        for _ in range(2):
            found = there.read_listed(NAME, listed.version)
            assert found is not None and found[:2] == (data, version)
        assert there.cache.read(NAME, listed.version) == found
    assert there.read_listed(NAME, "") == found
    (entry,) = entries(tmp_path)
    entry.unlink()
    assert there.read_listed(NAME, "") == found and entries(tmp_path) == []
    there.delete(NAME)
    assert there.read_listed(NAME, "another ") is None
