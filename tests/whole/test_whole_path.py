"""The whole path: a recorder child process, a sandbox at speed, and the truth."""

import asyncio
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lakewriter.interval import INTERVALS
from lakewriter.market import MARKETS
from lakewriter.sandbox import Sandbox, SandboxOptions, serve
from support.lengths import either
from support.running import KEY_AND_VALUES, PATIENCE_S, child, plain_rows, run, until

pytestmark = pytest.mark.slow

LOGGED = re.compile(r"^recorded \S+ \S+ \S+ \d{4}-\d\d-\d\d \d\d:\d\d", re.MULTILINE)


def expected(
    sandbox: Sandbox, series: list[tuple[str, str, str]], start_ms: int, stop_ms: int
) -> list[tuple[object, ...]]:
    """Return the true candles that closed in the range, ordered by key."""
    rows: list[tuple[object, ...]] = []
    for market, symbol, interval in sorted(series):
        grid = INTERVALS[interval]
        first_ms = grid.floor(start_ms)
        rows += (
            (market, symbol, interval, candle.begin_ms, candle.end_ms, *candle.numbers())
            for candle in sandbox.truth.candles(market, symbol, interval, first_ms, stop_ms)
            if start_ms <= candle.end_ms <= stop_ms
        )
    return rows


def last_lines(series: list[tuple[str, str, str]], stop_ms: int) -> set[str]:
    """Return the log lines of the last candle of each series that ends by then."""
    lines = set()
    for market, symbol, interval in series:
        grid = INTERVALS[interval]
        begin_ms = grid.floor(stop_ms) - grid.end(0)
        begin = datetime.fromtimestamp(begin_ms / 1000, UTC)
        lines.add(f"recorded {market} {symbol} {interval} {begin:%Y-%m-%d %H:%M}")
    return lines


def test_symbols_of_three_markets_are_recorded_as_the_truth_says(tmp_path: Path) -> None:
    """A fast recording of three markets and intervals has no missing, extra or wrong candle."""
    lake = tmp_path / "lake"
    intervals = ("1m", "3m", "5m")

    async def main() -> None:
        # Begins before midnight, so that the days change while recording.
        async with serve(
            SandboxOptions(speed=120, symbols=either(20, 67), push_every_ms=1000, start_ms=1_719_791_400_000)
        ) as sandbox:
            series = [
                (market, symbol, interval)
                for market in MARKETS
                for symbol in sandbox.symbols(market)
                for interval in intervals
            ]
            wanted = [f"{market}:*:{','.join(intervals)}" for market in MARKETS]
            arguments = ["record", "--log-candles", *wanted, "--exchange", sandbox.url, "--lake", str(lake)]
            with child(tmp_path / "log", *arguments, "--flush-every", "5s") as recorder:
                await until(lambda: sandbox.streams == len(series))
                start_ms = sandbox.now_ms()
                stop_ms = start_ms + 20 * 60_000
                await until(lambda: sandbox.now_ms() > stop_ms)
                missing = last_lines(series, stop_ms)
                while missing:
                    assert sandbox.now_ms() < stop_ms + 2 * 60_000 * PATIENCE_S, sorted(missing)[:5]
                    missing -= set(LOGGED.findall(recorder.logged()))
                    await asyncio.sleep(0.5)
                assert await asyncio.to_thread(recorder.stop) == 0
            assert not sandbox.violations
            truth = expected(sandbox, series, start_ms, stop_ms)
            rows = plain_rows(lake, KEY_AND_VALUES)
            # What closed while subscriptions were under way, or after the stop was
            # decided, may be there too; it must be true all the same.
            within = [row for row in rows if start_ms <= int(str(row[4])) <= stop_ms]
            assert within == truth
            # Wherever in its minute it began: 19 minutes hold so many ends of 1m, 3m and 5m.
            assert len(truth) >= len(series) // 3 * (19 + 6 + 3)
            around = [row for row in rows if not start_ms <= int(str(row[4])) <= stop_ms]
            for market, symbol, interval, begin_ms, end_ms, *values in around:
                candle = sandbox.truth.candle(str(market), str(symbol), str(interval), int(str(begin_ms)))
                assert (end_ms, *values) == (candle.end_ms, *candle.numbers())
            assert len({row[:4] for row in rows}) == len(rows)

    asyncio.run(main())
    # Everything was written by us, and in order: compaction has nothing to do.
    compacted = run("compact", "--lake", str(lake))
    assert compacted.returncode == 0, compacted.stderr
    assert " 0 rewritten" in compacted.stdout
