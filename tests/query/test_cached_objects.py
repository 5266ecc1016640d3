"""Queries of a lake on an object store with a cache: only what changed is fetched, and no answer is stale."""

import contextlib
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from lakewriter.candle import Candle
from lakewriter.cli.checks.lake_state import check_lake
from lakewriter.lake.coverage.days import coverage
from lakewriter.lake.remote.object_cache import ENTRIES_DIRECTORY
from lakewriter.lake.warn_once import log_once
from lakewriter.partition import partition_of
from lakewriter.query.python.reader import Lake, open_lake
from lakewriter.status.size import REMOTE_FOOTERS_MAX
from support import running
from support.full_disk import full_disk
from support.lakes import add_foreign, make_lake, rest_candle
from support.living_recorder import LivingRecorder, mark_gap
from support.object_store import Request, Store, refusal
from support.running import PATIENCE_S

pytestmark = pytest.mark.slow

DAYS = 30
THREE_DAYS = (
    "SELECT count(*) AS n, sum(close) AS s FROM candles WHERE market = 'spot' AND symbol = 'BTCUSDT' "
    "AND \"interval\" = '5m' AND \"date\" BETWEEN '2024-07-02' AND '2024-07-04'"
)
ALL = "SELECT count(*) AS n, sum(close) AS s FROM candles"


def row(day: int, number: int = 0, **fields: object) -> Candle:
    """Return the candle of a day of June 30 and July 2024."""
    return rest_candle(day * 288 + number, interval="5m", **fields)


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    started = Store()
    yield started
    started.close()


@pytest.fixture(scope="module")
def two_symbols(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake of thirty days and two symbols, on a disk; tests copy it."""
    rows = [row(day, symbol=symbol) for symbol in ("BTCUSDT", "ETHUSDT") for day in range(DAYS)]
    return make_lake(tmp_path_factory.mktemp("two") / "lake", rows).root


@pytest.fixture
def root(two_symbols: Path, tmp_path: Path) -> Path:
    """That lake, which a test may change."""
    return Path(shutil.copytree(two_symbols, tmp_path / "lake"))


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    log_once.cache_clear()
    return str(request.node.name)


@pytest.fixture
def uri(store: Store, root: Path, prefix: str) -> str:
    """The URI of that lake in the store."""
    return store.upload(root, prefix)


@pytest.fixture
def opened(uri: str, tmp_path: Path) -> Lake:
    """That lake with an empty cache."""
    return open_lake(uri, cache_dir=tmp_path / "cache", cache_size="1GB")


def ask(
    store: Store, lake: Lake, sql: str = THREE_DAYS
) -> tuple[list[tuple[object, ...]], Mapping[str, int]]:
    """Return the rows of an answer, and the requests that it took."""
    store.requests.clear()
    rows = lake.query(sql).rows()
    return rows, dict(store.counted())


def replace(store: Store, root: Path, prefix: str, *candles: Candle) -> str:
    """Merge candles into the local lake, upload the changed partition, and return its key."""
    make_lake(root, candles)
    key = f"{prefix}/{partition_of(candles[0]).file}"
    store.put(key, (root / partition_of(candles[0]).file).read_bytes())
    return key


def entries(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache" / ENTRIES_DIRECTORY).glob("??/*"))


def test_second_answer_takes_no_get(store: Store, opened: Lake, uri: str, tmp_path: Path) -> None:
    """The same days again take the same listings and no GET, also after the lake is opened again."""
    first = ask(store, opened)
    assert first == ([(3, 101.0 * 3 + (2 + 3 + 4) * 288)], {"LIST": 3, "GET": 3})
    assert ask(store, opened) == (first[0], {"LIST": 3})
    again = open_lake(uri, cache_dir=tmp_path / "cache", cache_size="1GB")
    assert ask(store, again) == (first[0], {"LIST": 3})
    # Days that were read before are not fetched with others.
    assert ask(store, again, ALL)[1]["GET"] == 2 * DAYS - 3
    assert "GET" not in ask(store, again, ALL)[1]


def test_without_a_cache_each_answer_fetches(store: Store, uri: str, tmp_path: Path) -> None:
    """A cache of size 0 is none, and writes nothing."""
    lake = open_lake(uri, cache_dir=tmp_path / "cache", cache_size=0)
    assert [ask(store, lake)[1]["GET"] for _ in range(2)] == [3, 3]
    assert not (tmp_path / "cache").exists()


def test_changed_object_takes_one_get(store: Store, opened: Lake, root: Path, prefix: str) -> None:
    """After one object was replaced, exactly this one is fetched, and its rows are in the answer."""
    ((n, s),), _ = ask(store, opened)
    for number in (1, 2):
        key = replace(store, root, prefix, row(3, number, close=number))
        assert ask(store, opened) == ([(n + number, s + sum(range(number + 1)))], {"LIST": 3, "GET": 1})
        assert [request.key for request in store.requests if request.verb == "GET"] == [key]
    assert ask(store, opened)[1] == {"LIST": 3}


def test_object_that_gets_its_old_bytes_back(store: Store, opened: Lake, root: Path, prefix: str) -> None:
    """Bytes that are there again are not served from an entry of the bytes in between."""
    old = (root / partition_of(row(3)).file).read_bytes()
    first, _ = ask(store, opened)
    key = replace(store, root, prefix, row(3, 1))
    assert ask(store, opened)[0] != first
    store.put(key, old)
    assert ask(store, opened) == (first, {"LIST": 3, "GET": 1})


def test_removed_object(store: Store, opened: Lake, prefix: str) -> None:
    """An object that was removed from the store is not in the answer, though it is cached."""
    ask(store, opened)
    store.delete(f"{prefix}/{partition_of(row(3)).file}")
    (rows, requests) = ask(store, opened)
    assert (rows[0][0], requests) == (2, {"LIST": 3})


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "another's"])
def test_damaged_entries_are_fetched_again(store: Store, opened: Lake, tmp_path: Path, damage: str) -> None:
    """A damaged entry is never answered from: its object is fetched once, and cached again."""
    first, _ = ask(store, opened)
    one, other, _ = entries(tmp_path)
    whole = bytearray(one.read_bytes())
    whole[-100] ^= 1
    contents = {"cut": whole[:-9], "flipped": whole, "empty": b"", "another's": other.read_bytes()}
    one.write_bytes(contents[damage])
    assert ask(store, opened) == (first, {"LIST": 3, "GET": 1})
    assert ask(store, opened) == (first, {"LIST": 3})


def test_replaced_between_listing_and_read(store: Store, opened: Lake, root: Path, prefix: str) -> None:
    """If an object is replaced after the listing, the answer has the new rows, which are cached as such."""
    key = f"{prefix}/{partition_of(row(3)).file}"

    def replaced() -> None:
        replace(store, root, prefix, row(3, 1, close=5.0))

    with store.before(Request("GET", key), replaced) as left:
        first, _ = ask(store, opened)
    assert left == [] and first[0][0] == 4
    assert ask(store, opened) == (first, {"LIST": 3})


def test_replaced_while_a_cached_answer_is_read(store: Store, opened: Lake, root: Path, prefix: str) -> None:
    """An answer has the versions of its listing; an object replaced after it is in the next answer."""
    first, _ = ask(store, opened)
    listed = f"{prefix}/market=spot/symbol=BTCUSDT/interval=5m/date=2024-07-04/"
    swapped = threading.Event()

    def hook(request: Request) -> None:
        if request.key == listed and not swapped.is_set():
            swapped.set()
            replace(store, root, prefix, row(4, 1, close=5.0))

    with store.misbehaving(hook):
        second, _ = ask(store, opened)
    assert swapped.is_set()
    assert second == [(first[0][0] + 1, first[0][1] + 5.0)]
    assert ask(store, opened) == (second, {"LIST": 3})


def test_a_file_that_is_scanned_twice(store: Store, opened: Lake) -> None:
    """A later scan of the same statement takes the objects of the first one."""
    join = THREE_DAYS.replace("FROM candles", "FROM candles JOIN candles AS other USING (market, symbol)")
    join = join.replace("close", "candles.close").replace('"interval"', "candles.interval")
    join = join.replace('"date"', "candles.date")
    assert ask(store, opened, join)[1]["GET"] <= 2 * DAYS
    assert "GET" not in ask(store, opened, join)[1]


def test_lakes_share_a_directory(store: Store, root: Path, prefix: str, tmp_path: Path) -> None:
    """Two lakes with the same names, and one lake by two endpoints, have their own entries."""
    uris = [store.upload(root, f"{prefix}/one")]
    make_lake(root, [row(3, 1, close=5.0)])
    uris.append(store.upload(root, f"{prefix}/other"))
    uris.append(uris[0].replace("127.0.0.1", "localhost"))
    lakes = [open_lake(uri, cache_dir=tmp_path / "cache", cache_size="1GB") for uri in uris]
    answers = [ask(store, lake) for lake in lakes]
    assert [requests["GET"] for _, requests in answers] == [3, 3, 3]
    assert [rows[0][0] for rows, _ in answers] == [3, 4, 3]
    assert [ask(store, lake) for lake in lakes] == [(rows, {"LIST": 3}) for rows, _ in answers]


def test_foreign_files_and_frames(store: Store, root: Path, prefix: str, tmp_path: Path) -> None:
    """Foreign files, candles without SQL, matrices and charts' rows come from the cache too."""
    add_foreign(root, [row(3, 7, close=5.0)])
    lake = open_lake(store.upload(root, prefix), cache_dir=tmp_path / "cache", cache_size="1GB")
    reads: list[Callable[[], object]] = [
        lambda: lake.query(ALL).rows(),
        lambda: len(lake.candles("spot", "BTCUSDT", "5m", start="2024-07-01", stop="2024-07-06")),
        lambda: lake.matrix("close", "spot", "*", "5m").sum().tolist(),
    ]
    first = [read() for read in reads]
    assert first[:2] == [[(61, 2 * (101.0 * DAYS + 288 * sum(range(DAYS))) + 5.0)], 6]
    store.requests.clear()
    assert [read() for read in reads] == first
    assert store.counted()["GET"] == 0


def test_coverage_and_ledgers(store: Store, root: Path, prefix: str, tmp_path: Path) -> None:
    """Coverage, gaps and their ledgers are fetched once; a ledger that grows is fetched again."""
    recorder = LivingRecorder(root)
    mark_gap(recorder, 2, 4)
    lake = open_lake(store.upload(root, prefix), cache_dir=tmp_path / "cache", cache_size="1GB")
    first = list(coverage(lake._store))
    gaps, _ = ask(store, lake, "FROM gaps")
    store.requests.clear()
    assert list(coverage(lake._store)) == first
    assert ask(store, lake, "FROM gaps")[0] == gaps
    assert store.counted()["GET"] == 0
    mark_gap(recorder, 6, 8)
    recorder.die()
    ledgers = list((root / "_lakewriter" / "gaps").rglob("*.ndjson"))
    for path in ledgers:
        store.put(f"{prefix}/{path.relative_to(root)}", path.read_bytes())
    again, requests = ask(store, lake, "FROM gaps")
    assert len(again) > len(gaps) and requests["GET"] <= len(ledgers)


def test_answers_on_a_full_disk(store: Store, opened: Lake, caplog: pytest.LogCaptureFixture) -> None:
    """If nothing can be cached, each answer is right, and one warning says why."""
    expected, _ = ask(store, opened)
    with full_disk(100):
        assert ask(store, opened, ALL)[1]["GET"] == 2 * DAYS - 3
        assert ask(store, opened, ALL)[1]["GET"] == 2 * DAYS - 3
        assert ask(store, opened)[0] == expected
    (warning,) = [message for message in caplog.messages if message.startswith("cache: ")]
    assert warning.endswith(
        "File too large, so nothing is added; name another --cache-dir, or switch it off: --no-cache"
    )


def test_refused_listing_is_an_error(store: Store, opened: Lake) -> None:
    """Without a current listing nothing is answered from the cache."""
    ask(store, opened)
    refused = refusal("403 Forbidden", "AccessDenied", "Access Denied")
    with (
        store.misbehaving(lambda _: refused),
        pytest.raises(Exception, match=r"^lake: s3://bucket/.*Access Denied"),
    ):
        opened.query(THREE_DAYS)


def command(uri: str, cache: Path, *arguments: str, stdin: str | None = None) -> "tuple[str, str, int]":
    variables = {name: value for name, value in os.environ.items() if not name.startswith("LAKEWRITER_CACHE")}
    done = running.run(
        *arguments,
        "--lake",
        uri,
        stdin=stdin,
        environment=variables | {"LAKEWRITER_CACHE_DIR": str(cache)},
    )
    return done.stdout, done.stderr, done.returncode


def test_commands(store: Store, uri: str, tmp_path: Path) -> None:
    """Commands share the cache by default. Only lake.json is read again, and --no-cache reads everything."""
    query = ("query", THREE_DAYS, "--format", "csv")
    gets = []
    for options in ((), (), ("--no-cache",), ("--cache-size", "0"), ("--cache-dir", str(tmp_path / "new"))):
        store.requests.clear()
        stdout, stderr, code = command(uri, tmp_path / "cache", *query, *options)
        assert (stdout, stderr, code) == ("n,s\n3,2895\n", "", 0)
        gets.append(store.counted()["GET"])
    assert gets == [4, 1, 4, 4, 4]
    done = command(uri, tmp_path / "cache", *query, "--cache-size", "much")
    assert done == ("", "lakewriter: cache size: 'much' is no size\n  500MB, 2GB; 0 caches nothing\n", 2)
    store.requests.clear()
    first = command(uri, tmp_path / "cache", "coverage", "--json")
    assert '"BTCUSDT"' in first[0]
    assert command(uri, tmp_path / "cache", "coverage", "--json") == first
    assert store.counted()["GET"] == 2 * DAYS - 3 + 2


def test_which_commands_use_it(store: Store, uri: str, tmp_path: Path) -> None:
    """`shell`, `chart` and `gaps` read from the cache, `status` a few footers, `verify` each object of the store."""
    command(uri, tmp_path / "cache", "query", ALL)
    gets = {}
    for name, stdin, *arguments in (
        ("shell", THREE_DAYS),
        ("chart", None, "spot:BTCUSDT:5m"),
        ("gaps", None, "--json"),
        ("status", None, "--json"),
        ("verify", None, "--json"),
    ):
        store.requests.clear()
        command(uri, tmp_path / "cache", name, *arguments, stdin=stdin)
        gets[name] = sum(
            request.key.endswith(".parquet") for request in store.requests if request.verb == "GET"
        )
    assert gets.pop("verify") >= 2 * DAYS
    assert gets.pop("status") <= REMOTE_FOOTERS_MAX
    assert gets == {"shell": 0, "chart": 0, "gaps": 0}


def test_doctor_shows_the_cache(
    uri: str, opened: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`doctor` says how many bytes and objects the cache has, that it is off, or why it is not used."""
    monkeypatch.setenv("LAKEWRITER_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    opened.query(ALL)
    shown = []
    for size in ("1GB", "0"):
        monkeypatch.setenv("LAKEWRITER_CACHE_SIZE", size)
        shown += [found.what for found in check_lake(uri) if found.check == "cache"]
    assert shown == [f"{tmp_path}/cache: 60 objects, 0 of at most 1,000 MB", "switched off"]
    monkeypatch.setenv("LAKEWRITER_CACHE_SIZE", "1GB")
    (tmp_path / "cache" / ENTRIES_DIRECTORY).chmod(0o777)
    (found,) = (found for found in check_lake(uri) if found.check == "cache")
    assert (found.level, found.what) == ("warn", f"{tmp_path}/cache: other users may write it")


def test_two_commands_at_once(store: Store, uri: str, tmp_path: Path) -> None:
    """Two commands that fill an empty cache at the same time both answer, and a third fetches nothing."""
    done: list[tuple[str, str, int]] = []
    query = ("query", ALL, "--format", "csv")
    both = threading.Barrier(2)

    def hook(request: Request) -> None:
        if request.key.endswith("date=2024-07-01/candles.parquet") and "BTC" in request.key:
            with contextlib.suppress(threading.BrokenBarrierError):
                both.wait(PATIENCE_S / 8)

    threads = [
        threading.Thread(target=lambda: done.append(command(uri, tmp_path / "cache", *query)))
        for _ in range(2)
    ]
    with store.misbehaving(hook):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S)
    assert done[0] == done[1] and done[0][1:] == ("", 0)
    store.requests.clear()
    assert command(uri, tmp_path / "cache", *query) == done[0]
    assert store.counted()["GET"] == 1


def test_unusable_directory_is_one_line(store: Store, uri: str, tmp_path: Path) -> None:
    """A command whose cache cannot be used answers as without, and says so in one line."""
    (tmp_path / "file").write_text("")
    stdout, stderr, code = command(uri, tmp_path / "file", "query", THREE_DAYS, "--format", "csv")
    assert (stdout, code) == ("n,s\n3,2895\n", 0)
    assert stderr.count("\n") == 1 and "so nothing is cached; name another --cache-dir" in stderr
