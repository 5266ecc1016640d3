"""A cache of decoded journals gives what a fresh reading gives, whatever happens to the segments."""

import contextlib
import os
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakewriter.candle import Candle
from lakewriter.lake.journal import DiskRefusedError, Journal, create_journal
from lakewriter.lake.journal_directories import JOURNAL_DIRECTORY
from lakewriter.lake.open import open_to_read
from lakewriter.lake.segments import encode_line
from lakewriter.lake.unflushed import TAIL_BYTES, UnflushedCache, read_unflushed
from lakewriter.recording.flushing.journaled_buffer import COMMIT_CANDLES_MAX
from lakewriter.series import Series
from support.lakes import make_lake, rest_candle
from support.lengths import examples

SYMBOLS = ("BTCUSDT", "ETHUSDT", "币USDT")


class Journals:
    """Journals with random events, and a source of random candles."""

    def __init__(self, root: Path, chance: random.Random) -> None:
        self.root = root
        self.chance = chance
        self.living: list[Journal] = []

    def candles(self) -> list[Candle]:
        return [
            rest_candle(
                self.chance.randrange(50), symbol=self.chance.choice(SYMBOLS), close=self.chance.random()
            )
            for _ in range(self.chance.randrange(1, 6))
        ]

    def journal(self) -> Journal:
        if not self.living:
            self.living.append(create_journal(self.root, "test"))
        return self.chance.choice(self.living)

    def segment(self) -> Path | None:
        found = sorted((self.root / JOURNAL_DIRECTORY).glob("*/*.ndjson"))
        return self.chance.choice(found) if found else None

    def commit(self) -> None:
        with contextlib.suppress(DiskRefusedError):  # its segment was removed
            self.journal().commit(self.candles())

    def start(self) -> None:
        self.living.append(create_journal(self.root, "test"))

    def roll(self) -> None:
        self.journal().roll()

    def flush(self) -> None:
        journal = self.journal()
        journal.drop(journal.roll())

    def kill(self) -> None:
        """Kill a recorder during a write."""
        journal = self.journal()
        self.living.remove(journal)
        self._write(b"".join(map(encode_line, self.candles()))[: -self.chance.randrange(1, 300)])
        os.close(journal._lock_fd)

    def fail(self) -> None:
        """Cut off a part of the last commits, like a failed write; other lines may follow."""
        path = self.segment()
        if path is None:
            return
        lines = path.read_bytes().splitlines(keepends=True)
        os.truncate(path, sum(map(len, lines[: self.chance.randrange(len(lines) + 1)])))
        if self.chance.random() < 0.7:
            self._write(b"".join(map(encode_line, self.candles())), path)

    def damage(self) -> None:
        self._write(
            self.chance.choice([b"{}\n", b"not a line\n", b'{"crc":0,"candle":{}}\n', b"x" * 70_000 + b"\n"])
        )

    def tear(self) -> None:
        self._write(encode_line(self.candles()[0])[: self.chance.randrange(1, 200)])

    def replace(self) -> None:
        """Put another file in a segment's place."""
        path = self.segment()
        if path is not None:
            other = path.with_suffix(".other")
            other.write_bytes(b"".join(map(encode_line, self.candles())))
            other.replace(path)

    def copy(self) -> None:
        """Copy a segment into the directory of an unknown recorder."""
        path = self.segment()
        if path is not None:
            directory = self.root / JOURNAL_DIRECTORY / f"copy-{self.chance.randrange(3)}"
            directory.mkdir(exist_ok=True)
            (directory / path.name).write_bytes(path.read_bytes())

    def remove(self) -> None:
        path = self.segment()
        if path is not None:
            path.unlink()

    def _write(self, data: bytes, path: Path | None = None) -> None:
        path = path or self.segment()
        if path is not None:
            with path.open("ab") as file:
                file.write(data)

    def close(self) -> None:
        for journal in self.living:
            os.close(journal._lock_fd)


STEPS: list[Callable[[Journals], None]] = [
    Journals.commit, Journals.commit, Journals.commit, Journals.start, Journals.roll, Journals.flush,
    Journals.kill, Journals.fail, Journals.damage, Journals.tear, Journals.replace, Journals.copy, Journals.remove,
]  # fmt: skip


def expect_fresh(cache: UnflushedCache, root: Path) -> None:
    """Check that a cache equals a fresh read, with the same order within each series."""
    found, fresh = cache.read(), read_unflushed(root)
    assert bool(found) == bool(fresh)
    assert found.series() == {candle.series for candle in fresh}
    for series in found.series():
        assert found.of(series) == [candle for candle in fresh if candle.series == series]
    assert sorted(map(repr, found)) == sorted(map(repr, fresh))
    for level in range(3):
        assert found.names(level) == sorted({candle.series[level] for candle in fresh})


@examples(25, 1_000)
@given(
    steps=st.lists(st.tuples(st.sampled_from(STEPS), st.booleans()), min_size=5, max_size=40),
    seed=st.integers(0, 2**32 - 1),
)
def test_cache_is_a_fresh_reading(
    tmp_path_factory: pytest.TempPathFactory,
    steps: list[tuple[Callable[[Journals], None], bool]],
    seed: int,
) -> None:
    """The cache notices appends, rolls, flushes, kills, cuts, damage, copies and replaced files."""
    root = tmp_path_factory.mktemp("model")
    # Names of journals differ in each run, so hypothesis cannot draw what happens to which.
    journals = Journals(root, random.Random(seed))
    (root / JOURNAL_DIRECTORY).mkdir(parents=True)
    often, seldom, small = UnflushedCache(root), UnflushedCache(root), UnflushedCache(root, candles_max=7)
    try:
        for step, also_seldom in steps:
            step(journals)
            expect_fresh(often, root)
            expect_fresh(small, root)
            if also_seldom:
                expect_fresh(seldom, root)
    finally:
        journals.close()


def test_settled_segment_that_grows_is_read_on(tmp_path: Path) -> None:
    """A segment that did not change for long is opened again when its size or time changes."""
    (tmp_path / JOURNAL_DIRECTORY).mkdir(parents=True)
    cache = UnflushedCache(tmp_path, now_s=lambda: time.time() + 3600)
    journal = create_journal(tmp_path, "test")
    for number in range(3):
        journal.commit([rest_candle(number)])
        expect_fresh(cache, tmp_path)
        expect_fresh(cache, tmp_path)
    journal.close()


def test_lines_are_decoded_once(tmp_path: Path) -> None:
    """A read of unchanged segments returns the same decoded candles."""
    (tmp_path / JOURNAL_DIRECTORY).mkdir(parents=True)
    cache = UnflushedCache(tmp_path)
    journal = create_journal(tmp_path, "test")
    journal.commit([rest_candle(0)])
    [first] = cache.read()
    journal.commit([rest_candle(1)])
    again, second = cache.read().of(Series("spot", "BTCUSDT", "1m"))
    assert again is first
    assert second.begin_ms > first.begin_ms
    small = UnflushedCache(tmp_path, candles_max=1)
    assert next(iter(small.read())) is not next(iter(small.read()))
    journal.close()


def test_matching_series_are_few_or_those_there_are(tmp_path: Path) -> None:
    """Few wanted names are looked up, and of many the existing series are tried."""
    (tmp_path / JOURNAL_DIRECTORY).mkdir(parents=True)
    journal = create_journal(tmp_path, "test")
    journal.commit([rest_candle(0, symbol=symbol) for symbol in SYMBOLS])
    found = UnflushedCache(tmp_path).read()
    wanted = {Series("spot", "BTCUSDT", "1m")}
    assert set(found.matching(["spot"], ["BTCUSDT"], ["1m"])) == wanted
    many = [f"S{number}" for number in range(100)]
    assert set(found.matching(["spot"], ["BTCUSDT", *many], ["1m", "1h"])) == wanted
    assert set(found.matching([], ["BTCUSDT"], ["1m"])) == set()
    journal.close()


def test_tail_is_longer_than_a_commit() -> None:
    """The compared bytes contain one whole commit, which is the most that a failed write leaves."""
    line = encode_line(
        rest_candle(0, symbol="1000000MOGUSDT_260327", market="usdt_futures", volume=123_456_789.123_456_7)
    )
    assert COMMIT_CANDLES_MAX * len(line) < TAIL_BYTES


def test_threads_share_a_cache(tmp_path: Path) -> None:
    """Each thread gets at least the candles committed before its read."""
    store = make_lake(tmp_path, hot=[rest_candle(0)])
    kept = open_to_read(str(store.root), keep_listings=True)
    journal = create_journal(tmp_path, "test")
    committed = [1]
    failures: list[tuple[int, int]] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            before = committed[0]
            found = len(list(kept.unflushed()))
            if found < before:
                failures.append((before, found))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(1, 100):
        journal.commit([rest_candle(number)])
        committed[0] += 1
    done.set()
    for thread in threads:
        thread.join()
    journal.close()
    assert not failures
    assert len(list(kept.unflushed())) == 100
