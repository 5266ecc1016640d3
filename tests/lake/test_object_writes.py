"""Writes to an object store: replaced if unchanged, whatever happens to the reply."""

import secrets
from collections.abc import Iterator

import pytest

from crash.writers import Writers, disturb
from lakewriter.candle import to_table
from lakewriter.errors import LakeError
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.open import create_lake, open_or_empty, open_to_read
from lakewriter.lake.remote.conditional_put import PUT_TRIES_MAX
from lakewriter.lake.remote.location import locate
from lakewriter.lake.remote.object_store import ObjectStorage
from lakewriter.lake.storage import ChangedError, Replacement
from lakewriter.partition import partition_of
from lakewriter.query.session import run as query
from support.fault_proxy import FaultProxy
from support.google_store import GoogleStore
from support.lakes import rest_candle
from support.lengths import either
from support.object_store import Store
from support.seaweed import Bucket

pytestmark = pytest.mark.slow

NAME = "market=spot/symbol=币安人生USDT/interval=1d/date=2024-01-01/candles.parquet"


@pytest.fixture(params=["moto", "seaweed", "google", "azure"])
def uri(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URI of an empty lake."""
    if request.param == "seaweed":
        yield request.getfixturevalue("bucket").uri("a lake")
        return
    if request.param == "azure":
        yield request.getfixturevalue("container").uri("a lake")
        return
    started = Store() if request.param == "moto" else GoogleStore()
    yield started.uri("a lake")
    started.close()


@pytest.fixture
def proxy(bucket: Bucket) -> Iterator[FaultProxy]:
    """A proxy before SeaweedFS."""
    started = FaultProxy(bucket.url)
    yield started
    started.close()


def storage(uri: str) -> ObjectStorage:
    return ObjectStorage(locate(uri))


def test_replace_if_unchanged(uri: str) -> None:
    """A name is replaced only if it has the version that the caller read, or is absent as expected."""
    there = storage(uri)
    first = there.replace(NAME, b"one", None)
    for expected in (None, "stale ", '"stale" 7'):
        with pytest.raises(ChangedError):
            there.replace(NAME, b"two", expected)
    found = there.read(NAME)
    assert found is not None and found[:2] == (b"one", first)
    assert there.version(NAME) == first
    second = there.replace(NAME, b"two", first)
    with pytest.raises(ChangedError):
        there.replace(NAME, b"three", first)
    found = there.read(NAME)
    assert found is not None and found[:2] == (b"two", second)
    there.delete(NAME)
    there.delete(NAME)
    assert there.read(NAME) is None
    with pytest.raises(ChangedError):
        there.replace(NAME, b"three", second)
    assert there.tree("") == []  # nothing of the probe is left


def test_replace_all(uri: str) -> None:
    """Many names are replaced at once; those that changed get no version and stay."""
    there = storage(uri)
    stale = there.replace("5", b"first", None)
    there.replace("5", b"of another writer", stale)
    items = [Replacement(str(number), b"%d" % number, stale if number == 5 else None) for number in range(40)]
    versions = there.replace_all(items)
    assert [number for number, version in enumerate(versions) if version is None] == [5]
    assert versions[:5] == [there.version(str(number)) for number in range(5)]
    found = there.read("5")
    assert found is not None and found.data == b"of another writer"


@pytest.mark.parametrize("fault", ["lost", "500 after", "cut", "503", "500", "409"])
@pytest.mark.parametrize("times", [1, 4])
def test_unclear_end_is_cleared_up(bucket: Bucket, proxy: FaultProxy, fault: str, times: int) -> None:
    """Whatever a PUT is answered, the caller learns whether its bytes are there."""
    there = storage(bucket.uri("lake", proxy.url))
    version = there.replace("known", b"old", None)
    for name, expected in (("known", version), ("new", None)):
        proxy.plan.extend([fault] * times)
        got = there.replace(name, b"ours", expected)
        proxy.plan.clear()
        found = there.read(name)
        assert found is not None and found[:2] == (b"ours", got)
    assert set(proxy.met) == {fault} and len(proxy.met) in (2 * times, 2 * (times - 1))


@pytest.mark.parametrize("fault", ["lost", "409"])
def test_another_writer_in_between(bucket: Bucket, proxy: FaultProxy, fault: str) -> None:
    """If another writer replaced the name before the read, the caller has to merge again."""
    there, other = storage(bucket.uri("lake", proxy.url)), storage(bucket.uri("lake"))
    version = there.replace("x", b"old", None)

    def overtake() -> str:
        current = other.version("x")
        other.replace("x", secrets.token_bytes(8), current)
        return fault

    proxy.choose = overtake
    with pytest.raises(ChangedError):
        there.replace("x", b"ours", version)
    with pytest.raises(ChangedError):
        there.replace("x", b"ours", None)


def test_store_that_refuses_at_every_attempt(bucket: Bucket, proxy: FaultProxy) -> None:
    """A refusal at every attempt is an error, and nothing is stored."""
    there = storage(bucket.uri("lake", proxy.url))
    version = there.replace("x", b"old", None)
    proxy.choose = lambda: "409"
    for name, expected in (("x", version), ("new", None)):
        with pytest.raises(LakeError, match=rf"^lake: s3://{bucket.name}/lake/{name}: as told"):
            there.replace(name, b"ours", expected)
    # An update that is refused by 409 is also retried by the client itself.
    assert len(proxy.met) >= 2 * PUT_TRIES_MAX
    assert bucket.keys("lake") == ["lake/x"]
    assert there.version("x") == version


def test_silent_store(bucket: Bucket, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """A PUT without an answer in time is tried again."""
    monkeypatch.setattr("lakewriter.lake.remote.location.SILENCE_S_MAX", 0.5)
    there = storage(bucket.uri("lake", proxy.url))
    there.replace("x", b"old", None)
    proxy.plan.append("stall")
    version = there.replace("y", b"ours", None)
    assert proxy.met == ["stall"]
    assert there.version("y") == version


def test_store_that_ignores_conditions() -> None:
    """Before the first write a store that ignores conditions is refused, and nothing is left behind."""
    store = Store()
    proxy = FaultProxy(store.url)
    try:
        proxy.drop_conditions = True
        there = storage(store.uri("lake").replace(store.url, proxy.url))
        for _ in range(2):
            with pytest.raises(LakeError, match="the store ignores the conditions") as raised:
                there.replace("x", b"ours", None)
        assert "conditional writes" in raised.value.hint
        assert there.tree("") == []
    finally:
        proxy.close()
        store.close()


def test_lake_in_any_store(uri: str) -> None:
    """A lake is created, listed in several pages, merged into and read back."""
    lake = create_lake(uri, "test")
    symbols = [f"S{number}USDT" for number in range(60)]
    rows = [rest_candle(0, symbol=each) for each in (*symbols, "币安人生USDT")]
    for _ in range(2):
        for result in lake.merge_many([(partition_of(each), to_table([each])) for each in rows]):
            assert not isinstance(result, Exception), result
    found = [(each.partition.symbol, each.names) for each in open_to_read(uri).files()]
    assert found == sorted((each.symbol, (partition_of(each).file,)) for each in rows)
    answer = query(open_to_read(uri), "SELECT count(*) AS n FROM candles WHERE symbol = '币安人生USDT'")
    assert answer.to_pylist() == [{"n": 1}]


SIZE = {"writers": 16, "partitions": either(4, 50), "rounds": either(2, 15)}


def check(work: Writers, lake: LakeStore) -> None:
    work.run()
    print(f"{work.commits} commits, {work.conflicts} conflicts, {work.seconds:.1f} s")
    assert work.errors == []
    assert work.check(lake) == {"lost": 0, "doubled": 0, "strange": 0}
    assert work.commits >= SIZE["writers"] * SIZE["partitions"]


@pytest.mark.timeout(either(600, 1500))
def test_writers_of_the_same_partitions(bucket: Bucket) -> None:
    """Sixteen writers merge into the same partitions: no candle is lost, and none is there twice."""
    uri = bucket.uri("lake")
    check(Writers(uri, **SIZE), open_or_empty(uri))


@pytest.mark.timeout(either(600, 1500))
def test_writers_behind_a_bad_network(bucket: Bucket, proxy: FaultProxy) -> None:
    """The same if one in ten PUTs is lost, refused, cut or stalled."""
    disturb(proxy, seed=1)
    check(Writers(bucket.uri("lake", proxy.url), **SIZE), open_or_empty(bucket.uri("lake")))
    assert len(set(proxy.met)) >= 5
