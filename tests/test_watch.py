"""The watch over real sockets and a real lake: absences, restarts, changes, and many series."""

import asyncio
from pathlib import Path

import pytest
from recording import account, recording
from running import until

from lakewriter.candle import Candle, to_table
from lakewriter.interval import DAY_MS, MINUTE_MS
from lakewriter.lake.gaps import read_gaps
from lakewriter.lake.lake import LakeStore
from lakewriter.partition import partition_of
from lakewriter.recording.watch import WatchOptions
from lakewriter.sandbox.faults import Fault
from lakewriter.sandbox.server import Sandbox, SandboxOptions, serve
from lakewriter.series import Series
from lakewriter.subscription import parse_subscription

pytestmark = pytest.mark.slow

SPEED = 300.0
BTC = Series("spot", "BTCUSDT", "1m")
# A second and more of real time, for this machine has other things to do.
OPTIONS = WatchOptions(grace_ms=6 * MINUTE_MS, universe_every_s=0.5)


def options(**changes: object) -> SandboxOptions:
    return SandboxOptions(**{"speed": SPEED, "push_every_ms": 200, "symbols": 30, **changes})


def put(store: LakeStore, sandbox: Sandbox, series: Series, *begins_ms: int) -> None:
    """Put true candles into the lake, as an earlier recorder did."""
    for begin_ms in begins_ms:
        true = sandbox.truth.candle(*series, begin_ms)
        candle = Candle(*series, true.begin_ms, true.end_ms, *true.numbers(), None, 1, "stream")
        store.merge(partition_of(candle), to_table([candle]))


def test_what_was_missed_while_nobody_recorded_is_healed_at_the_next_start(tmp_path: Path) -> None:
    """Minutes without a recorder, by stop or by crash, are asked for as soon as one starts again."""

    async def main() -> None:
        async with serve(options()) as sandbox:
            start_ms = BTC.grid.ceil(sandbox.now_ms())
            for _ in range(2):
                async with recording(
                    sandbox, tmp_path / "lake", "spot:BTCUSDT:1m", options=OPTIONS
                ) as running:
                    await until(lambda running=running: running.recorder.stats.recorded > 3)
                stopped_ms = sandbox.now_ms()
                await until(lambda stopped_ms=stopped_ms: sandbox.now_ms() > stopped_ms + 20 * MINUTE_MS)
            async with recording(sandbox, tmp_path / "lake", "spot:BTCUSDT:1m", options=OPTIONS) as running:
                stop_ms = BTC.grid.floor(sandbox.now_ms())
                await running.past(stop_ms)
                assert running.watch.healer.stats.healed >= 18
            found = account(running.store, sandbox, BTC, start_ms, stop_ms)
            assert (found.silent, found.reasons) == (set(), {})
            assert not sandbox.violations

    asyncio.run(main())


def test_a_long_absence_is_healed_behind_the_live_candles(tmp_path: Path) -> None:
    """Days are healed up to the limit while live candles stay fresh; what is older is said."""

    async def main() -> None:
        async with serve(options(speed=60.0)) as sandbox:
            store = LakeStore.create(str(tmp_path / "lake"), "test")
            now_ms = BTC.grid.floor(sandbox.now_ms())
            put(store, sandbox, BTC, now_ms - 9 * DAY_MS)
            limited = OPTIONS._replace(heal_limit_ms=3 * DAY_MS)
            async with recording(
                sandbox, tmp_path / "lake", "spot:BTCUSDT,ETHUSDT:1m", options=limited
            ) as running:
                await running.past(now_ms + 5 * MINUTE_MS)
                stop_ms = now_ms + 5 * MINUTE_MS
                assert running.watch.freshness.streamed.at_most(0.99) < 6 * MINUTE_MS
                assert running.watch.healer.stats.unhealable >= 6 * 1440 - 2
            found = account(store, sandbox, BTC, now_ms - 9 * DAY_MS, stop_ms)
            assert not found.silent
            assert len(found.present) >= 3 * 1440
            assert set(found.reasons.values()) == {"unhealable"}
            assert max(found.reasons) < now_ms - 3 * DAY_MS + 10 * MINUTE_MS
            [gap] = [gap for gap in read_gaps(store.root) if gap.series == BTC]
            assert "--heal-limit" in gap.error
            assert not sandbox.violations

    asyncio.run(main())


def test_holes_of_the_last_days_are_found_at_the_start(tmp_path: Path) -> None:
    """Candles that are missing in the midst of others, days back, are found and healed."""

    async def main() -> None:
        async with serve(options(speed=60.0)) as sandbox:
            store = LakeStore.create(str(tmp_path / "lake"), "test")
            five = Series("usdt_futures", "BTCUSDT", "5m")
            now_ms = five.grid.floor(sandbox.now_ms())
            begins = [now_ms - 2 * DAY_MS + number * 5 * MINUTE_MS for number in range(2 * 288)]
            holes = {begins[7], begins[8], begins[300]}
            for begin_ms in (begins[0], *(each for each in begins[5:15] if each not in holes), begins[-1]):
                put(store, sandbox, five, begin_ms)
            async with recording(
                sandbox, tmp_path / "lake", "usdt_futures:BTCUSDT:5m", options=OPTIONS
            ) as running:
                await running.past(now_ms)
                await until(lambda: not running.watch.healer.pending)
            found = account(store, sandbox, five, begins[0], now_ms)
            assert (found.silent, found.reasons) == (set(), {})

    asyncio.run(main())


def test_subscriptions_change_without_touching_the_others(tmp_path: Path) -> None:
    """What is added is recorded, what is left is left, and the connection stays."""

    async def main() -> None:
        async with serve(options()) as sandbox:
            async with recording(
                sandbox, tmp_path / "lake", "spot:BTCUSDT,ETHUSDT:1m", options=OPTIONS
            ) as running:
                await until(lambda: running.recorder.stats.recorded > 4)
                texts = ("spot:BTCUSDT,BNBUSDT:1m", "coin_futures:BTCUSD_PERP:1m")
                running.watch.change([parse_subscription(text) for text in texts])
                added = {Series("spot", "BNBUSDT", "1m"), Series("coin_futures", "BTCUSD_PERP", "1m")}
                await until(lambda: added <= set(running.watch.watermarks.series))
                changed_ms = sandbox.now_ms()
                await running.past(changed_ms + 10 * MINUTE_MS)
                assert set(running.watch.watermarks.series) == {BTC, *added}
                assert running.watch.listeners["spot"].stats.reconnects == 0
            for series in (BTC, *added):
                start_ms = series.grid.ceil(changed_ms)
                found = account(running.store, sandbox, series, start_ms, start_ms + 8 * MINUTE_MS)
                assert (found.silent, found.reasons) == (set(), {})
            assert not sandbox.violations

    asyncio.run(main())


def test_a_connection_with_thousands_of_series_breaks_no_limit(tmp_path: Path) -> None:
    """Three thousand series start on as few connections as are allowed, and every candle comes."""

    async def main() -> None:
        async with serve(options(speed=12.0, symbols=1000, push_every_ms=0)) as sandbox:
            async with recording(
                sandbox,
                tmp_path / "lake",
                "spot:*:1m",
                "usdt_futures:*:1m",
                "coin_futures:*:1m",
                options=WatchOptions(grace_ms=2 * MINUTE_MS),
                flush_every_s=3600,
            ) as running:
                await until(lambda: sandbox.streams >= 2995, 60)
                assert sandbox.connections == 1 + 5 + 5
                began_ms = sandbox.now_ms()
                await running.past(began_ms + 2 * MINUTE_MS, 100)
                assert running.recorder.stats.recorded >= 2 * 2995
            assert not sandbox.violations

    asyncio.run(main())


def test_a_delivered_contract_leaves_with_its_reason(tmp_path: Path) -> None:
    """After its delivery a contract is owed no more, and the ledger says why it ended."""
    series = Series("usdt_futures", "BTCUSDT_261225", "1m")
    delivery_ms = 1_798_185_600_000  # 2026-12-25 08:00 UTC

    async def main() -> None:
        async with serve(options(start_ms=delivery_ms - 10 * MINUTE_MS)) as sandbox:
            slow = OPTIONS._replace(universe_every_s=3.0)
            async with recording(
                sandbox, tmp_path / "lake", "usdt_futures:BTCUSDT_*:1m", options=slow
            ) as running:
                await until(lambda: series in running.watch.watermarks)
                await until(lambda: series not in running.watch.watermarks)
                await running.past(delivery_ms + 12 * MINUTE_MS)
            found = account(
                running.store, sandbox, series, delivery_ms - 5 * MINUTE_MS, delivery_ms + 2 * MINUTE_MS
            )
            assert len(found.present) == 5
            assert set(found.reasons.values()) == {"delivered"}
            assert not found.silent

    asyncio.run(main())


def test_candles_longer_than_the_heal_limit_are_healed_too(tmp_path: Path) -> None:
    """A week's and a month's candle that no stream brought are fetched when they end."""
    monday_ms = 1_719_792_000_000  # 2024-07-01, the first of a month as well

    async def main() -> None:
        async with serve(options(start_ms=monday_ms - 20 * MINUTE_MS)) as sandbox:
            sandbox.add_fault(Fault("missing_close"))
            async with recording(
                sandbox, tmp_path / "lake", "spot:BTCUSDT:1w,1mo", options=OPTIONS
            ) as running:
                await running.past(monday_ms + 8 * MINUTE_MS)
            for interval, begin_ms in (("1w", monday_ms - 7 * DAY_MS), ("1mo", monday_ms - 30 * DAY_MS)):
                series = Series("spot", "BTCUSDT", interval)
                found = account(running.store, sandbox, series, begin_ms, monday_ms)
                assert found.present == {begin_ms}, found

    asyncio.run(main())


def test_candles_that_moved_after_their_close_are_corrected(tmp_path: Path) -> None:
    """A row that REST gave too early is looked at again, and its final values win."""

    async def main() -> None:
        async with serve(options(speed=20.0)) as sandbox:
            sandbox.add_fault(Fault("missing_close"))
            sandbox.add_fault(Fault("rest_unsettled", value=25))
            start_ms = BTC.grid.ceil(sandbox.now_ms())
            early = OPTIONS._replace(grace_ms=5_000)
            async with recording(sandbox, tmp_path / "lake", "spot:BTCUSDT:1m", options=early) as running:
                await until(lambda: running.watch.healer.stats.corrected >= 2)
                stop_ms = BTC.grid.floor(sandbox.now_ms()) - 2 * MINUTE_MS
                await running.past(stop_ms)
            assert not account(running.store, sandbox, BTC, start_ms, stop_ms).silent

    asyncio.run(main())


def test_without_rest_the_streams_are_recorded_and_the_gaps_stay_pending(tmp_path: Path) -> None:
    """REST that is down delays healing and nothing else; when it is back, all is healed."""

    async def main() -> None:
        async with serve(options()) as sandbox:
            start_ms = BTC.grid.ceil(sandbox.now_ms())
            async with recording(
                sandbox, tmp_path / "lake", "spot:BTCUSDT,ETHUSDT:1m", options=OPTIONS
            ) as running:
                down = sandbox.add_fault(Fault("rest_status", value=503))
                mute = sandbox.add_fault(Fault("missing_close", symbols=("ETHUSDT",)))
                await until(lambda: running.watch.healer.pending > 0)
                recorded = running.recorder.stats.recorded
                await until(lambda: running.recorder.stats.recorded > recorded + 3)
                await until(lambda: any(gap.reason == "pending" for gap in read_gaps(running.store.root)))
                sandbox.remove_fault(down)
                sandbox.remove_fault(mute)
                stop_ms = BTC.grid.floor(sandbox.now_ms())
                await running.past(stop_ms)
            eth = Series("spot", "ETHUSDT", "1m")
            found = account(running.store, sandbox, eth, start_ms + 2 * MINUTE_MS, stop_ms)
            assert (found.silent, found.reasons) == (set(), {})

    asyncio.run(main())
