"""Power loss on a real ext4: promises made before the cut hold after the next mount.

The file system is shut down as xfstests does it: writes that it has not sent to its
device are lost. The test models neither the device's own cache nor file systems with
weaker ordering than ext4's journal.
"""

import random
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest

from crash.disks import Ext4, cut_power
from crash.remains import Key, compact_all, key_of, plain_keys, recover, strays, tables
from lakewriter.lake.unflushed import read_unflushed
from support.lengths import drawn_seed, either
from support.running import TESTS, wait_until

pytestmark = pytest.mark.slow

ROUNDS = either(3, 20)
# Each round of a careless writer loses something by chance.
CARELESS_ROUNDS_MAX = 60


class LostError(AssertionError):
    """The disk lacks a promised candle."""


def cut_once(tmp_path: Path, disk: Ext4, chance: random.Random, kind: str) -> str:
    """Run a child on the disk, cut the power meanwhile, and return the log."""
    promises = tmp_path / "promises"
    promises.unlink(missing_ok=True)
    with disk.mounted() as mount:
        arguments = [str(mount / "lake"), str(promises), str(chance.random()), kind]
        child = subprocess.Popen(
            [sys.executable, "-m", "crash.steady", *arguments],
            env={"PYTHONPATH": str(TESTS)},
            stderr=subprocess.PIPE,
        )
        try:
            lines = chance.randint(3, 60)
            wait_until(
                lambda: (
                    (promises.exists() and promises.read_bytes().count(b"\n") >= lines)
                    or child.poll() is not None
                )
            )
            time.sleep(chance.uniform(0, 0.02))
            text = promises.read_text()  # what it was promised by now, surely before the cut
            cut_power(mount)
        finally:
            child.kill()
            _, errors = child.communicate()
    assert text.count("\n") >= lines, errors.decode()
    return text[: text.rfind("\n") + 1]


def promises_of(text: str, what: str) -> set[Key]:
    words = (line.split() for line in text.splitlines())
    names = [name.split(":") for first, *rest in words if first == what for name in rest]
    return {Key(symbol, int(minute)) for symbol, minute in names}


def keys_in_files(root: Path) -> list[Key]:
    """Return the key of each row; fail if a file is not whole."""
    return [
        Key(name.split("/")[1].removeprefix("symbol="), (begin_ms - 1_719_705_600_000) // 60_000)
        for name, table in tables(root).items()
        for begin_ms in table["candle_begin_time"].cast(pa.int64()).to_pylist()
    ]


def look(root: Path, text: str, earlier: set[Key]) -> set[Key]:
    """Compare the lake after the cut with the promises; return all keys."""
    committed, merged = promises_of(text, "committed"), promises_of(text, "merged")
    try:
        in_files = keys_in_files(root)
    except (pa.ArrowException, OSError) as error:
        raise LostError(f"a file is not whole: {error}") from error
    hot = {key_of(candle) for candle in read_unflushed(root)}
    if missing := merged - set(in_files):
        raise LostError(f"{len(missing)} merged candles are not in their files")
    if missing := (committed | earlier) - set(in_files) - hot:
        raise LostError(f"{len(missing)} committed candles are nowhere")
    assert len(set(in_files)) == len(in_files), "a candle is there twice"
    recover(root)
    compact_all(root)
    assert read_unflushed(root) == []
    seen = plain_keys(root)
    assert len(set(seen)) == len(seen)
    assert set(seen) == set(in_files) | hot
    assert strays(root) == []
    return set(seen)


def test_power_loss_loses_no_promise(tmp_path: Path) -> None:
    """After random power cuts, each committed candle is in the lake once, and each file is whole."""
    seed = drawn_seed()
    print(f"seed {seed}")
    chance = random.Random(seed)
    disk = Ext4(tmp_path / "image", tmp_path / "mount")
    seen: set[Key] = set()
    for _ in range(ROUNDS):
        text = cut_once(tmp_path, disk, chance, "whole")
        with disk.mounted() as mount:
            seen = look(mount / "lake", text, seen)
    assert len(seen) > ROUNDS


@pytest.mark.parametrize(
    ("kind", "loss"),
    [
        ("no-file-sync", "not whole"),
        pytest.param("no-directory-sync", "merged candles are not in their files", marks=pytest.mark.long),
        pytest.param("no-journal-sync", "committed candles are nowhere", marks=pytest.mark.long),
    ],
    ids=lambda each: each if each.startswith("no-") else "",
)
def test_this_test_can_fail(tmp_path: Path, kind: str, loss: str) -> None:
    """A writer that skips one sync is detected, so this disk loses unsynced writes."""
    seed = drawn_seed()
    print(f"seed {seed}")
    chance = random.Random(seed)
    for number in range(CARELESS_ROUNDS_MAX):
        disk = Ext4(tmp_path / "image", tmp_path / "mount")
        text = cut_once(tmp_path, disk, chance, kind)
        with disk.mounted() as mount:
            try:
                look(mount / "lake", text, set())
            except LostError as lost:
                print(f"{kind}: caught in round {number + 1}: {lost}")
                assert loss in str(lost)
                return
    pytest.fail(f"{kind} was not caught in {CARELESS_ROUNDS_MAX} rounds")
