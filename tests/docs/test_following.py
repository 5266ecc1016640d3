"""The programs of docs/how-to/following.md run as they stand, beside a journal that grows."""

import contextlib
import itertools
import os
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lakewriter.candle import Candle
from lakewriter.interval import MINUTE_MS
from lakewriter.lake.journal import Journal, create_journal
from support.candles import stream_candle
from support.lakes import make_lake
from support.running import REPOSITORY, wait_until

pytestmark = pytest.mark.slow

STRATEGY, ASYNC, ONCE = re.findall(
    r"^```python\n(.*?)^```",
    (REPOSITORY / "docs" / "how-to" / "following.md").read_text(),
    re.DOTALL | re.MULTILINE,
)


def close(minute: int) -> float:
    """Return a close that rises and falls within forty minutes."""
    return 100.0 + abs(minute % 40 - 20)


def candle(minute: int, now_ms: int) -> Candle:
    """Return the candle of a minute since shortly before now."""
    begin_ms = now_ms // MINUTE_MS * MINUTE_MS + minute * MINUTE_MS
    price = close(minute)
    prices = {"open": price, "high": price, "low": price, "close": price}
    return stream_candle(0, begin_ms=begin_ms, end_ms=begin_ms + MINUTE_MS, **prices)


@contextlib.contextmanager
def program(directory: Path, code: str) -> Iterator["subprocess.Popen[str]"]:
    """Run a program in a directory, with its output in `out`."""
    with (directory / "out").open("a") as out:
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        arguments = [sys.executable, "-c", code]
        with subprocess.Popen(arguments, cwd=directory, stdout=out, text=True, env=environment) as process:
            try:
                yield process
            finally:
                process.kill()


def whole_lines(out: Path) -> list[str]:
    """Return the lines of an output whose program was killed, perhaps within its last line."""
    return out.read_text().split("\n")[:-1]


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    make_lake(tmp_path / "data", [stream_candle(minute, "ETHUSDT") for minute in range(3)])
    journal = create_journal(tmp_path / "data", "test")
    yield journal
    journal.close()


def test_the_strategy_prints_each_crossing(tmp_path: Path, journal: Journal) -> None:
    """The averages of a wave cross again and again: the past ones, then those of new candles."""
    now_ms = int(time.time() * 1000) - 3600_000 * 4
    journal.commit([candle(minute, now_ms) for minute in range(120)])
    out = tmp_path / "out"
    with program(tmp_path, STRATEGY):
        wait_until(lambda: out.read_text().count("\n") >= 4)
        past = out.read_text().count("\n")
        for minute in range(120, 200):
            journal.commit([candle(minute, now_ms)])
        wait_until(lambda: out.read_text().count("\n") >= past + 3)
    signals = [line.split() for line in whole_lines(out)]
    assert {symbol for _, symbol, _, _ in signals} == {"BTCUSDT"}
    sides = [side for _, _, side, _ in signals]
    assert all(one != other for one, other in itertools.pairwise(sides))


def test_the_async_program_prints_new_candles(tmp_path: Path, journal: Journal) -> None:
    """It prints candles that are committed after its start, and none from before."""
    out = tmp_path / "out"
    with program(tmp_path, ASYNC):
        minute = 9

        def printed() -> bool:
            nonlocal minute
            minute += 1
            journal.commit([stream_candle(minute)])
            return out.read_text().count("\n") >= 3

        wait_until(printed)
    assert {line.split()[0] for line in whole_lines(out)} == {"BTCUSDT"}


def test_the_store_has_each_close_once(tmp_path: Path, journal: Journal) -> None:
    """Killed and started again, it stores what came meanwhile, and nothing twice."""
    now_ms = int(time.time() * 1000) - 3600_000 * 4

    def stored() -> list[float]:
        try:
            with contextlib.closing(sqlite3.connect(tmp_path / "closes.db")) as store:
                return [row[0] for row in store.execute("SELECT close FROM closes ORDER BY begin_ms")]
        except sqlite3.OperationalError:
            return []

    for life in (1, 2):
        journal.commit([candle(minute, now_ms) for minute in range(life * 10 - 10, life * 10)])
        with program(tmp_path, ONCE) as process:
            wait_until(lambda life=life: len(stored()) == life * 10)
            assert process.poll() is None
    assert stored() == [close(minute) for minute in range(20)]
