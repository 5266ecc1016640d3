"""Odd keys in `_lakewriter` of an object store: each command answers from the other records."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.lakes import make_lake, rest_candle
from support.living_recorder import LivingRecorder, mark_gap
from support.object_store import Store
from support.running import run

pytestmark = pytest.mark.slow

READERS = (
    ("status",),
    ("gaps", "--json"),
    ("verify",),
    ("unsubscribe", "spot:NONE:1m"),
    ("query", "SELECT count(*) AS n FROM gaps", "--format", "csv"),
)


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    started = Store()
    yield started
    started.close()


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """Four candles with an explained gap of two."""
    make_lake(tmp_path / "lake", [rest_candle(n) for n in (0, 1, 4, 5)])
    recorder = LivingRecorder(tmp_path / "lake")
    mark_gap(recorder, 2, 4, "exchange_halt")
    recorder.die()
    return tmp_path / "lake"


@pytest.mark.parametrize("key", ["recorders/a\x01b.ndjson", "subscriptions//x", "forgotten/a\nb.ndjson"])
def test_a_key_that_is_no_path(store: Store, lake: Path, key: str) -> None:
    """The store's client cannot list its directory: one line says so, and only coverage refuses."""
    directory = key.partition("/")[0]
    uri = store.upload(lake, directory)
    store.put(f"{directory}/_lakewriter/{key}", b"{}\n")
    for arguments in READERS:
        done = run(*arguments, "--lake", uri)
        line, *others = done.stderr.splitlines()
        assert line.startswith(f"lake: s3://bucket/{directory}/_lakewriter/{directory}: the key {directory}/")
        assert "has an invalid name, so this directory is left out; delete or rename that key" in line
        if arguments[0] == "unsubscribe":
            assert done.returncode == 2 and "no recorder of the lake subscribes" in others[0]
        else:
            assert (done.returncode, others) == (0, []), arguments
        if arguments[0] in ("gaps", "query"):
            assert "exchange_halt" in done.stdout or done.stdout == "n\n1\n"
    # Coverage is a proof, and what is left out might refute it.
    done = run("coverage", "--json", "--lake", uri)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(
        f"lakewriter: lake: s3://bucket/{directory}/_lakewriter/{directory}: the key "
    )
    assert " has an invalid name\n  delete or rename that key: " in done.stderr


def test_the_directory_of_the_gap_ledgers(store: Store, lake: Path) -> None:
    """Without the ledgers a gap has no reason, so coverage fails. Candles are there in any case."""
    uri = store.upload(lake, "ledgers")
    store.put("ledgers/_lakewriter/gaps/a\x01b.ndjson", b"{}\n")
    done = run("coverage", "--json", "--lake", uri)
    assert done.returncode == 1
    assert "/_lakewriter/gaps: the key ledgers/_lakewriter/gaps/a\\u0001b.ndjson" in done.stderr
    done = run("query", "SELECT count(*) AS n FROM candles", "--format", "csv", "--lake", uri)
    assert (done.stderr, done.stdout) == ("", "n\n4\n")


def test_a_warning_names_the_key(store: Store, lake: Path, tmp_path: Path) -> None:
    """A damaged ledger is named as it is in the store, once in a command that reads it again and again."""
    uri = store.upload(lake, "damaged")
    store.put("damaged/_lakewriter/gaps/odd.ndjson", b"{}\n")
    expected = "gaps: s3://bucket/damaged/_lakewriter/gaps/odd.ndjson: 1 damaged lines are left out\n"
    assert run("gaps", "--lake", uri).stderr == expected
    assert run("copy", uri, str(tmp_path / "copy")).stderr == expected
    store.put("damaged/_lakewriter/forgotten/log@x.ndjson", b"{}\n")
    done = run("gaps", "--lake", uri)
    assert "forget: s3://bucket/damaged/_lakewriter/forgotten/log@x.ndjson: 1 unreadable" in done.stderr
