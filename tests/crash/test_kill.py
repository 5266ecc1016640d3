"""kill -9: what was logged as recorded is in the lake exactly once."""

import asyncio
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from lakewriter.sandbox import SandboxOptions, TruthCandle, serve
from support.lengths import drawn_seed, either
from support.running import KEY_AND_VALUES, Child, child, plain_rows, until

pytestmark = pytest.mark.slow

KILLS = either(5, 20)
RECORDED = re.compile(r"^recorded (\S+) (\S+) (\S+) (\d{4}-\d\d-\d\d \d\d:\d\d)", re.MULTILINE)


def test_kills_lose_nothing_and_repeat_nothing(tmp_path: Path) -> None:
    """Killed at random again and again, a recorder's every logged candle is in the lake exactly once."""
    lake, log = tmp_path / "lake", tmp_path / "log"
    seed = drawn_seed()
    print(f"seed {seed}")
    chance = random.Random(seed)

    async def main() -> None:
        async with serve(SandboxOptions(speed=120, symbols=12)) as sandbox:
            arguments = [
                "record", "--log-candles", "spot:*:1m,3m", "usdt_futures:*:1m", "--exchange", sandbox.url,
                "--lake", str(lake), "--flush-every", "200ms",
            ]  # fmt: skip
            for _ in range(KILLS):
                begun = len(log.read_bytes()) if log.exists() else 0
                with child(log, *arguments) as recorder:
                    await until(lambda begun=begun: b"\nrecorded " in log.read_bytes()[begun:])
                    await asyncio.sleep(chance.uniform(0, 0.8))  # the moment of the kill is the test's input
                    recorder.kill()
            with child(log, *arguments) as recorder:
                begun = len(log.read_bytes())
                await until(lambda: b"\nrecorded " in log.read_bytes()[begun:])
                assert await asyncio.to_thread(recorder.stop) == 0
            _compare(lake, recorder, sandbox.truth.candle)

    asyncio.run(main())


def _compare(lake: Path, recorder: Child, truth: Callable[..., TruthCandle]) -> None:
    logged = {found.groups() for found in RECORDED.finditer(recorder.logged())}
    assert len(logged) >= KILLS
    rows = plain_rows(lake, KEY_AND_VALUES + ", strftime(candle_begin_time, '%Y-%m-%d %H:%M')")
    keys = [(row[0], row[1], row[2], row[-1]) for row in rows]
    assert len(set(keys)) == len(keys), "a candle is there twice"
    assert logged <= set(keys), f"lost: {sorted(logged - set(keys))[:5]}"
    for market, symbol, interval, begin_ms, end_ms, *values, _ in rows:
        candle = truth(market, symbol, interval, begin_ms)
        assert (end_ms, *values) == (candle.end_ms, *candle.numbers())
    assert not list(lake.glob("_lakewriter/journal/*/*.ndjson")), "a segment was left behind"
