"""`lakewriter copy` to and from an object store."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lakewriter.lake.lake import LakeStore
from lakewriter.lake.open import open_to_read
from lakewriter.lake.published import current_ledgers
from lakewriter.lake.subscriptions import read_periods
from support import running
from support.candles import BTC
from support.lakes import BEGIN_MS, files_and_bytes, make_lake, rest_candle
from support.living_recorder import LivingRecorder, confirm_series, kill_recorder, mark_gap, start_recorder
from support.object_store import Store, environment, refusal

pytest.importorskip("obstore")

pytestmark = pytest.mark.slow


class PrefixStore(Store):
    """A store in which each test has its own prefix."""

    prefix = ""


@pytest.fixture(scope="module")
def server() -> Iterator[PrefixStore]:
    started = PrefixStore()
    yield started
    started.close()


@pytest.fixture
def store(server: PrefixStore, request: pytest.FixtureRequest) -> PrefixStore:
    server.prefix = request.node.name
    server.requests.clear()
    return server


def uri(store: PrefixStore) -> str:
    return store.uri(store.prefix)


def run(*arguments: str, state: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run a copy, without any other variables of AWS."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return running.run("copy", *arguments, environment=kept | {"XDG_STATE_HOME": str(state)} | variables)


def copy(*arguments: str, state: Path) -> dict[str, Any]:
    done = run(*arguments, "--json", state=state)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["proven"]
    return found


def candle_files(root: Path) -> dict[str, bytes]:
    return {name: data for name, data in files_and_bytes(root).items() if name.endswith(".parquet")}


def a_lake(root: Path) -> LakeStore:
    """Return a lake with several periods, a gap and a subscription."""
    lake = make_lake(
        root,
        [
            rest_candle(n, interval=interval, symbol=symbol)
            for n in (*range(30), *range(40, 60), 1500, 3000)
            for interval in ("1m", "1h")
            for symbol in ("BTCUSDT", "币安人生USDT")
        ],
    )
    kill_recorder(start_recorder(lake, BTC, now_ms=BEGIN_MS))
    recorder = LivingRecorder(root)
    mark_gap(recorder, 30, 40, "exchange_halt")
    recorder.die()
    return lake


def test_a_round_trip_has_the_same_bytes(store: PrefixStore, tmp_path: Path) -> None:
    """Disk to store to disk: each file is the same, and coverage answers as before on every lake."""
    a_lake(tmp_path / "a")
    sent = copy(str(tmp_path / "a"), uri(store), state=tmp_path / "s1")
    assert (sent["gaps"], sent["subscriptions"]) == (1, 1)
    # Another host, without the local state of the first one.
    back = copy(uri(store), str(tmp_path / "b"), state=tmp_path / "s2")
    assert candle_files(tmp_path / "b") == candle_files(tmp_path / "a")
    assert (back["gaps"], back["subscriptions"], back["copied"]) == (1, 1, sent["copied"])
    said = [
        running.run(
            "coverage",
            "--json",
            "--lake",
            lake,
            environment=os.environ | {"XDG_STATE_HOME": str(tmp_path / "s2")},
        )
        for lake in (str(tmp_path / "a"), uri(store), str(tmp_path / "b"))
    ]
    assert len({each.stdout for each in said}) == 1 and {each.returncode for each in said} == {
        said[0].returncode
    }
    assert "exchange_halt" in running.run("gaps", "--lake", str(tmp_path / "b")).stdout


def test_a_copy_without_some_records_is_refused(store: PrefixStore, tmp_path: Path) -> None:
    """A key that is no path hides a directory of ledgers. A copy without them would not be proven."""
    a_lake(tmp_path / "a")
    copy(str(tmp_path / "a"), uri(store), state=tmp_path / "s1")
    store.put(f"{store.prefix}/_lakewriter/gaps//x.ndjson", b"")
    done = run(uri(store), str(tmp_path / "b"), state=tmp_path / "s2")
    assert done.returncode == 1 and "has an invalid name" in done.stderr
    assert "delete or rename that key" in done.stderr


def test_a_second_run_asks_only_for_listings(store: PrefixStore, tmp_path: Path) -> None:
    """No candle file is read or written again, in either direction; it says that nothing was written."""
    a_lake(tmp_path / "a")
    for first, second in ((str(tmp_path / "a"), uri(store)), (uri(store), str(tmp_path / "b"))):
        copy(first, second, state=tmp_path)
        store.requests.clear()
        again = copy(first, second, state=tmp_path)
        assert (again["unread"], again["bytes_written"]) == (again["partitions"], 0)
        assert not [each for each in store.requests if each.verb == "PUT"]
        assert not [each for each in store.requests if each.verb != "LIST" and each.key.endswith(".parquet")]
    assert "nothing was written" in run(str(tmp_path / "a"), uri(store), state=tmp_path).stdout


def test_two_lakes_in_one_store_are_merged(store: PrefixStore, tmp_path: Path) -> None:
    """Store to store, and a second source into the same target: the better candle of each key stays."""
    one = make_lake(tmp_path / "a", [rest_candle(n) for n in range(20)])
    two = make_lake(tmp_path / "b", [rest_candle(n, trade_num=9 + n % 3) for n in range(10, 30)])
    here, there = uri(store).replace("?", "/one?"), uri(store).replace("?", "/two?")
    copy(str(one.root), here, state=tmp_path)
    copy(str(two.root), there, state=tmp_path)
    merged = copy(there, here, state=tmp_path)
    assert (merged["merged"], merged["added"], merged["disputed"]) == (1, 10, 3)
    copy(str(one.root), str(two.root), state=tmp_path)
    with environment(XDG_STATE_HOME=str(tmp_path)):
        [found] = open_to_read(here).files()
        rows = open_to_read(here).read(found.partition)
    assert rows == two.read(found.partition)
    assert copy(here, there, state=tmp_path)["merged"] == 1
    assert copy(there, here, state=tmp_path)["bytes_written"] == 0


def test_a_dry_run_puts_nothing(store: PrefixStore, tmp_path: Path) -> None:
    """It asks, and neither writes to the store nor makes a local state."""
    a_lake(tmp_path / "a")
    done = run(str(tmp_path / "a"), uri(store), "--dry-run", state=tmp_path / "state")
    assert (done.returncode, done.stderr) == (0, "") and "would be copied" in done.stdout
    assert not [each for each in store.requests if each.verb not in ("LIST", "GET", "HEAD")]
    assert not (tmp_path / "state").exists()


def test_another_writer_wins_a_race(store: PrefixStore, tmp_path: Path) -> None:
    """A file that appears between the look and the PUT is merged, not replaced."""
    make_lake(tmp_path / "a", [rest_candle(0)])
    other = make_lake(tmp_path / "b", [rest_candle(1)])
    [found] = other.files()
    data = (other.root / found.names[0]).read_bytes()
    key = f"{store.prefix}/{found.names[0]}"
    seen = []

    def hook(request: Any) -> None:
        if request.verb == "PUT" and request.key == key and not seen:
            seen.append(request)
            store.put(key, data)

    with store.misbehaving(hook):
        summary = copy(str(tmp_path / "a"), uri(store), state=tmp_path)
    assert (summary["merged"], summary["added"]) == (1, 1)
    copy(uri(store), str(tmp_path / "c"), state=tmp_path)
    rows = LakeStore.open(str(tmp_path / "c")).read(found.partition)
    assert rows is not None and rows.num_rows == 2


def test_a_store_that_refuses_is_one_line(store: PrefixStore, tmp_path: Path) -> None:
    """Refused writes end the copy with exit 1; the next one goes on."""
    a_lake(tmp_path / "a")

    def hook(request: Any) -> Any:
        if request.verb == "PUT" and request.key.endswith(".parquet"):
            return refusal("403 Forbidden", "AccessDenied", "no writes today")
        return None

    with store.misbehaving(hook):
        done = run(str(tmp_path / "a"), uri(store), state=tmp_path)
    assert done.returncode == 1 and "no writes today" in done.stderr and "Traceback" not in done.stderr
    assert copy(str(tmp_path / "a"), uri(store), state=tmp_path)["copied"] == 14


def test_wrong_stores_are_one_line(store: PrefixStore, tmp_path: Path) -> None:
    """A lake into itself or its inside, an absent lake, a prefix with other things, a newer lake: exit 2."""
    a_lake(tmp_path / "a")
    copy(str(tmp_path / "a"), uri(store), state=tmp_path)
    prefix: str = store.prefix
    store.put(f"{prefix}-other/cat.png", b"")
    store.put(f"{prefix}-newer/_lakewriter/lake.json", b'{"format_version": 99}')
    before = len(store.requests)
    inside, other, newer = (uri(store).replace("?", f"{end}?") for end in ("/below", "-other", "-newer"))
    for first, second, error in (
        (uri(store), uri(store), "are one lake"),
        (uri(store), inside, "lies inside of"),
        (inside, str(tmp_path / "b"), "does not exist"),
        (str(tmp_path / "a"), other, "is neither empty nor a lake"),
        (str(tmp_path / "a"), newer, "newer than"),
        (uri(store).replace("bucket/", "nobucket/"), str(tmp_path / "b"), "there is no bucket nobucket"),
    ):
        done = run(first, second, state=tmp_path)
        assert (done.returncode, done.stdout) == (2, ""), done
        assert error in done.stderr and "test:test" not in done.stderr
    assert not [each for each in store.requests[before:] if each.verb == "PUT"]


def test_two_machines_that_copy_end_a_subscription(store: PrefixStore, tmp_path: Path) -> None:
    """An older copy by another machine does not keep a subscription open that has ended since."""
    source = make_lake(tmp_path / "a", [rest_candle(0)])
    journal = start_recorder(source, BTC, now_ms=BEGIN_MS)
    copy(str(source.root), uri(store), state=tmp_path / "one")
    confirm_series(source, journal, now_ms=BEGIN_MS + 120_000)  # it leaves the series
    for _ in range(2):
        copy(str(source.root), uri(store), state=tmp_path / "two")
    with environment(XDG_STATE_HOME=str(tmp_path / "three")):
        target = open_to_read(uri(store))
    for lake in (source, target):
        with current_ledgers(lake) as root:
            assert not [each for each in read_periods(root) if each.is_open], lake.name
    kill_recorder(journal)


def test_each_lake_has_its_own_state(store: PrefixStore, tmp_path: Path) -> None:
    """A chosen state directory belongs to one of two stores; the journal of another lake is never read."""
    one, two = uri(store).replace("?", "/one?"), uri(store).replace("?", "/two?")
    make_lake(tmp_path / "a", [rest_candle(0)])
    state = tmp_path / "chosen"
    chosen = {"LAKEWRITER_STATE_DIR": str(state)}
    assert run(str(tmp_path / "a"), one, state=tmp_path, **chosen).returncode == 0
    make_lake(state, hot=[rest_candle(5)])  # a dead recorder of the first lake
    done = run(one, two, "--json", state=tmp_path, **chosen)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["unflushed"] == 1
    done = run(two, str(tmp_path / "b"), state=tmp_path, **chosen)
    assert done.returncode == 2 and "belongs to the lake" in done.stderr
