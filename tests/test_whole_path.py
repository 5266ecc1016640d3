"""The whole path: a recorder child process, a sandbox at speed, and the truth."""

import asyncio
from pathlib import Path

import pytest
from running import KEY_AND_VALUES, child, plain_rows, run, until

from lakewriter.interval import INTERVALS
from lakewriter.market import MARKETS
from lakewriter.sandbox import Sandbox, SandboxOptions, serve

pytestmark = pytest.mark.slow

# The latest that a market's closed candle comes after its close, in its own time.
LAG_MS = 5_000


def expected(
    sandbox: Sandbox, series: list[tuple[str, str, str]], start_ms: int, stop_ms: int
) -> list[tuple[object, ...]]:
    """Return the truth of every candle that closed in the range, ordered by key."""
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


def test_200_symbols_of_three_markets_are_recorded_as_the_truth_says(tmp_path: Path) -> None:
    """At speed, with three intervals, no candle is missing, none extra, none different."""
    lake = tmp_path / "lake"
    intervals = ("1m", "3m", "5m")

    async def main() -> None:
        # Begins before midnight, so that the days change while recording.
        async with serve(
            SandboxOptions(speed=60, symbols=67, push_every_ms=1000, start_ms=1_719_791_400_000)
        ) as sandbox:
            series = [
                (market, symbol, interval)
                for market in MARKETS
                for symbol in sandbox.symbols(market)
                for interval in intervals
            ]
            wanted = [f"{market}:*:{','.join(intervals)}" for market in MARKETS]
            arguments = ["record", *wanted, "--exchange", sandbox.url, "--lake", str(lake)]
            with child(tmp_path / "log", *arguments, "--flush-every", "5s", "-q") as recorder:
                await until(lambda: sandbox.streams == len(series))
                start_ms = sandbox.now_ms()
                await until(lambda: sandbox.now_ms() > start_ms + 30 * 60_000)
                # Ten real seconds for what closed last to arrive on a busy machine.
                stop_ms = sandbox.now_ms() - LAG_MS - 10 * 60_000
                assert await asyncio.to_thread(recorder.stop) == 0
            assert not sandbox.violations
            truth = expected(sandbox, series, start_ms, stop_ms)
            rows = plain_rows(lake, KEY_AND_VALUES)
            # What closed while subscriptions were under way, or after the stop was
            # decided, may be there too; it must be true all the same.
            within = [row for row in rows if start_ms <= int(str(row[4])) <= stop_ms]
            assert within == truth
            # Wherever in its minute it began: 19 minutes hold so many ends of 1m, 3m and 5m.
            assert len(truth) >= 67 * 3 * (19 + 6 + 3)
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
