"""The supervisor over real sockets and a real lake: absences, restarts, changes, and many series."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import msgspec
import pytest
from aiohttp import web

from lakewriter.binance.market_clients import MarketClients
from lakewriter.binance.network import Network
from lakewriter.candle import Candle, to_table
from lakewriter.clock import Clock
from lakewriter.interval import DAY_MS, MINUTE_MS
from lakewriter.lake.gaps.ledger import Changes, Ledger, save
from lakewriter.lake.gaps.ledgers import open_ledger, read_gaps
from lakewriter.lake.lake import LakeStore
from lakewriter.market import MARKETS, Market
from lakewriter.partition import partition_at, partition_of
from lakewriter.recording.healing.refused_ranges import REFUSED_AGAIN_MS
from lakewriter.recording.state_saver import StateSaver
from lakewriter.recording.supervisor import SupervisorOptions
from lakewriter.sandbox.faults.table import Fault
from lakewriter.sandbox.server import Sandbox, SandboxOptions, serve
from lakewriter.series import Series
from lakewriter.subscription import parse_subscription
from support.http_server import serve_routes
from support.lengths import either
from support.recording import account, recording
from support.running import until
from support.side_by_side import side_by_side

pytestmark = pytest.mark.slow

SPEED = 300.0
BTC = Series("spot", "BTCUSDT", "1m")
# A second and more of real time, for this machine has other things to do.
# Asked twice a second, spot's list alone would take the weight that long gaps may take.
OPTIONS = SupervisorOptions(grace_ms=6 * MINUTE_MS, list_every_s=1.5)


@contextlib.asynccontextmanager
async def passing_on(
    sandbox: Sandbox, change: Callable[[web.Request, bytes], Awaitable[bytes]]
) -> AsyncIterator[Callable[[Market], Market]]:
    """Serve REST's answers after a change; yield the endpoints for a recorder."""
    async with aiohttp.ClientSession() as session:

        async def answer(request: web.Request) -> web.Response:
            async with session.get(sandbox.url + request.path_qs) as answered:
                body = await answered.read()
            return web.Response(body=await change(request, body), status=answered.status)

        async with serve_routes(answer) as url:
            yield lambda market: msgspec.structs.replace(market, rest_url=f"{url}/spot")


def options(**changes: object) -> SandboxOptions:
    return SandboxOptions(**{"speed": SPEED, "push_every_ms": 200, "symbols": 30, **changes})


def put(store: LakeStore, sandbox: Sandbox, series: Series, *begins_ms: int) -> None:
    """Merge true candles into the lake, like an earlier recorder."""
    for begin_ms in begins_ms:
        true = sandbox.truth.candle(*series, begin_ms)
        candle = Candle(*series, true.begin_ms, true.end_ms, *true.numbers(), None, 1, "stream")
        store.merge(partition_of(candle), to_table([candle]))


@side_by_side
async def test_what_was_missed_while_nobody_recorded_is_healed_at_the_next_start(tmp_path: Path) -> None:
    """The next start heals the minutes without a recorder, after a stop and after a crash."""

    async with serve(options()) as sandbox:
        starts_ms = []
        for _ in range(2):
            async with recording(sandbox, tmp_path / "lake", "spot:BTCUSDT:1m", options=OPTIONS) as running:
                starts_ms.append(BTC.grid.ceil(sandbox.now_ms()))
                await until(lambda running=running: running.recorder.stats.recorded > 3)
            stopped_ms = sandbox.now_ms()
            await until(lambda stopped_ms=stopped_ms: sandbox.now_ms() > stopped_ms + 20 * MINUTE_MS)
        async with recording(sandbox, tmp_path / "lake", "spot:BTCUSDT:1m", options=OPTIONS) as running:
            stop_ms = BTC.grid.floor(sandbox.now_ms())
            await running.past(stop_ms)
            assert running.supervisor.healer.stats.healed >= 18
        found = account(running.store, sandbox, BTC, starts_ms[0], stop_ms)
        assert (found.silent, found.reasons) == (set(), {})
        assert not sandbox.violations


@side_by_side
async def test_a_long_absence_is_healed_behind_the_live_candles(tmp_path: Path) -> None:
    """Missed days are healed up to the limit while live candles stay fresh; older ones are reported."""

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
            assert running.supervisor.freshness.streamed.at_most(0.99) < 6 * MINUTE_MS
            assert running.supervisor.healer.stats.unhealable >= 6 * 1440 - 2
        found = account(store, sandbox, BTC, now_ms - 9 * DAY_MS, stop_ms)
        assert not found.silent
        # The limit counts from when the recorder was up: an hour there is a minute of a busy machine.
        assert len(found.present) >= 3 * 1440 - 60
        assert set(found.reasons.values()) == {"unhealable"}
        assert max(found.reasons) < now_ms - 3 * DAY_MS + 60 * MINUTE_MS
        [gap] = [gap for gap in read_gaps(store.root) if gap.series == BTC]
        assert "--heal-limit" in gap.error
        assert not sandbox.violations


@side_by_side
async def test_what_is_older_than_the_limit_is_told_of_when_live_candles_came_first(tmp_path: Path) -> None:
    """Gaps beyond the heal limit get a reason, even if REST was away at the start."""

    async with serve(options()) as sandbox:
        store = LakeStore.create(str(tmp_path / "lake"), "test")
        start_ms = BTC.grid.floor(sandbox.now_ms()) - 2 * DAY_MS
        put(store, sandbox, BTC, start_ms)
        down = sandbox.add_fault(Fault("rest_status", value=503))
        limited = OPTIONS._replace(heal_limit_ms=DAY_MS)
        async with recording(
            sandbox, tmp_path / "lake", "spot:BTCUSDT:1m", options=limited, owed=False
        ) as running:
            await until(lambda: running.recorder.stats.flushed > 2)
            sandbox.remove_fault(down)
            await until(lambda: len(running.supervisor.watermarks) > 0)
            stop_ms = BTC.grid.floor(sandbox.now_ms())
            await running.past(stop_ms)
            limit_ms = sandbox.now_ms() - DAY_MS
        found = account(store, sandbox, BTC, start_ms, stop_ms)
        assert not found.silent
        assert set(found.reasons.values()) == {"unhealable"}
        assert max(found.reasons) < limit_ms


@side_by_side
async def test_holes_of_the_last_days_are_found_at_the_start(tmp_path: Path) -> None:
    """A start finds and heals candles that are missing between others, days back."""

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
            await until(lambda: not running.supervisor.healer.pending)
        found = account(store, sandbox, five, begins[0], now_ms)
        assert (found.silent, found.reasons) == (set(), {})


@side_by_side
async def test_subscriptions_change_without_touching_the_others(tmp_path: Path) -> None:
    """Added series are recorded, removed ones are not, and the connection stays open."""

    async with serve(options()) as sandbox:
        async with recording(
            sandbox, tmp_path / "lake", "spot:BTCUSDT,ETHUSDT:1m", options=OPTIONS
        ) as running:
            await until(lambda: running.recorder.stats.recorded > 4)
            texts = ("spot:BTCUSDT,BNBUSDT:1m", "coin_futures:BTCUSD_PERP:1m")
            running.supervisor.change([parse_subscription(text) for text in texts])
            added = {Series("spot", "BNBUSDT", "1m"), Series("coin_futures", "BTCUSD_PERP", "1m")}
            await until(lambda: added <= set(running.supervisor.watermarks.series))
            changed_ms = sandbox.now_ms()
            await running.past(changed_ms + 10 * MINUTE_MS)
            assert set(running.supervisor.watermarks.series) == {BTC, *added}
            assert running.supervisor.listeners["spot"].stats.reconnects == 0
        for series in (BTC, *added):
            start_ms = series.grid.ceil(changed_ms)
            found = account(running.store, sandbox, series, start_ms, start_ms + 8 * MINUTE_MS)
            assert (found.silent, found.reasons) == (set(), {})
        assert not sandbox.violations


def test_a_connection_with_thousands_of_series_breaks_no_limit(tmp_path: Path) -> None:
    """Thousands of series use as few connections as allowed, and all candles arrive."""
    symbols = either(300, 1000)
    # As many as that are listed in each market, all but a few of them now.
    series = 3 * symbols - 5

    async def main() -> None:
        async with serve(options(speed=12.0, symbols=symbols, push_every_ms=0)) as sandbox:
            async with recording(
                sandbox,
                tmp_path / "lake",
                "spot:*:1m",
                "usdt_futures:*:1m",
                "coin_futures:*:1m",
                options=SupervisorOptions(grace_ms=2 * MINUTE_MS),
                flush_every_s=3600,
            ) as running:
                await until(lambda: sandbox.streams >= series)
                assert sandbox.connections == 1 + 2 * either(2, 5)
                began_ms = sandbox.now_ms()
                await running.past(began_ms + 2 * MINUTE_MS)
                assert running.recorder.stats.recorded >= 2 * series
            assert not sandbox.violations

    asyncio.run(main())


@side_by_side
@pytest.mark.parametrize("list_every_s", [3.0, 0.2])
async def test_a_delivered_contract_leaves_with_its_reason(tmp_path: Path, list_every_s: float) -> None:
    """After its delivery a contract has no missing candles, and the ledger has the reason of its end.

    This holds even if the exchange lists its end before its last candles arrive.
    """
    series = Series("usdt_futures", "BTCUSDT_261225", "1m")
    delivery_ms = 1_798_185_600_000  # 2026-12-25 08:00 UTC

    async with serve(options(start_ms=delivery_ms - 60 * MINUTE_MS)) as sandbox:
        ended = OPTIONS._replace(list_every_s=list_every_s)
        async with recording(
            sandbox, tmp_path / "lake", "usdt_futures:BTCUSDT_*:1m", options=ended
        ) as running:
            await until(lambda: series in running.supervisor.watermarks)
            await running.past(delivery_ms - 10 * MINUTE_MS)
            sandbox.add_fault(Fault("missing_close"))
            await until(lambda: series not in running.supervisor.watermarks)
            gaps = running.supervisor.ledger.gaps
            await until(lambda: any(gap.reason == "delivered" for gap in gaps(series)))
            await until(lambda: not running.supervisor.healer.pending)
            await running.past(delivery_ms + 12 * MINUTE_MS)
        found = account(running.store, sandbox, series, delivery_ms - 5 * MINUTE_MS, delivery_ms + MINUTE_MS)
        assert len(found.present) == 5
        assert found.reasons == {delivery_ms: "delivered"}
        assert not found.silent


@side_by_side
async def test_candles_longer_than_the_heal_limit_are_healed_too(tmp_path: Path) -> None:
    """A weekly and a monthly candle without a frame are healed when they end."""
    monday_ms = 1_719_792_000_000  # 2024-07-01, the first of a month as well

    async with serve(options(start_ms=monday_ms - 60 * MINUTE_MS)) as sandbox:
        sandbox.add_fault(Fault("missing_close"))
        async with recording(sandbox, tmp_path / "lake", "spot:BTCUSDT:1w,1mo", options=OPTIONS) as running:
            await running.past(monday_ms + 8 * MINUTE_MS)
        for interval, begin_ms in (("1w", monday_ms - 7 * DAY_MS), ("1mo", monday_ms - 30 * DAY_MS)):
            series = Series("spot", "BTCUSDT", interval)
            found = account(running.store, sandbox, series, begin_ms, monday_ms)
            assert found.present == {begin_ms}, found


@side_by_side
async def test_candles_that_moved_after_their_close_are_corrected(tmp_path: Path) -> None:
    """A row fetched too early is fetched again, and its final values win."""

    async with serve(options(speed=20.0)) as sandbox:
        sandbox.add_fault(Fault("missing_close"))
        sandbox.add_fault(Fault("rest_unsettled", value=25))
        early = OPTIONS._replace(grace_ms=5_000)
        async with recording(sandbox, tmp_path / "lake", "spot:BTCUSDT:1m", options=early) as running:
            start_ms = BTC.grid.ceil(sandbox.now_ms())
            await until(lambda: running.supervisor.healer.stats.corrected >= 2)
            stop_ms = BTC.grid.floor(sandbox.now_ms()) - 2 * MINUTE_MS
            await running.past(stop_ms)
        assert not account(running.store, sandbox, BTC, start_ms, stop_ms).silent


@side_by_side
async def test_an_answer_that_takes_long_is_no_older_for_that(tmp_path: Path) -> None:
    """A row is checked again if its request was early, even if its answer came late."""

    async def delayed(request: web.Request, body: bytes) -> bytes:
        if request.path.endswith("/klines"):
            await asyncio.sleep(2.0)  # 40 s at the exchange
        return body

    async with serve(options(speed=20.0)) as sandbox:
        sandbox.add_fault(Fault("missing_close"))
        sandbox.add_fault(Fault("rest_unsettled", value=25))
        async with (
            passing_on(sandbox, delayed) as endpoints,
            recording(
                sandbox,
                tmp_path / "lake",
                "spot:BTCUSDT:1m",
                options=OPTIONS._replace(grace_ms=5_000),
                endpoints=endpoints,
            ) as running,
        ):
            start_ms = BTC.grid.ceil(sandbox.now_ms())
            await until(lambda: running.supervisor.healer.stats.corrected >= 1)
            await running.past(start_ms + MINUTE_MS)
        assert account(running.store, sandbox, BTC, start_ms, start_ms + MINUTE_MS).present == {start_ms}


@side_by_side
async def test_without_rest_the_streams_are_recorded_and_the_gaps_stay_pending(tmp_path: Path) -> None:
    """Without REST streams are recorded and gaps stay pending; with REST all are healed."""

    async with serve(options()) as sandbox:
        async with recording(
            sandbox, tmp_path / "lake", "spot:BTCUSDT,ETHUSDT:1m", options=OPTIONS
        ) as running:
            start_ms = BTC.grid.ceil(sandbox.now_ms())
            down = sandbox.add_fault(Fault("rest_status", value=503))
            mute = sandbox.add_fault(Fault("missing_close", symbols=("ETHUSDT",)))
            await until(lambda: running.supervisor.healer.pending > 0)
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


@pytest.mark.parametrize("status", [400, 404])
@side_by_side
async def test_a_refusal_that_was_a_moments_is_asked_again_an_hour_later(tmp_path: Path, status: int) -> None:
    """A permanent refusal of REST makes a gap unhealable, and a later answer heals it."""

    async with serve(options()) as sandbox:
        async with recording(sandbox, tmp_path / "lake", "spot:BTCUSDT:1m", options=OPTIONS) as running:
            await until(lambda: running.recorder.stats.recorded > 2)
            refusal = sandbox.add_fault(Fault("rest_status", value=status))
            mute = sandbox.add_fault(Fault("missing_close"))
            await until(lambda: running.supervisor.healer.stats.unhealable > 0)
            sandbox.remove_fault(mute)
            [gap, *_] = running.supervisor.ledger.gaps(BTC)
            assert (gap.reason, f"HTTP {status}" in gap.error) == ("unhealable", True)
            sandbox.remove_fault(refusal)
            stop_ms = BTC.grid.floor(sandbox.now_ms())
            await until(lambda: sandbox.now_ms() > stop_ms + REFUSED_AGAIN_MS // 2)
            assert running.supervisor.ledger.counts()["unhealable"] > 0
            await until(lambda: not running.supervisor.ledger.gaps(BTC))
            assert running.supervisor.healer.stats.unhealable == 0
        found = account(running.store, sandbox, BTC, gap.start_ms, stop_ms)
        assert (found.silent, found.reasons) == (set(), {})


@side_by_side
async def test_what_was_refused_is_asked_for_at_the_next_start(tmp_path: Path) -> None:
    """Unhealable gaps within the heal limit are requested again at the next start."""

    async with serve(options()) as sandbox:
        stop_ms = BTC.grid.floor(sandbox.now_ms())
        start_ms = stop_ms - 10 * MINUTE_MS
        store = LakeStore.create(str(tmp_path / "lake"), "test")
        put(store, sandbox, BTC, start_ms - MINUTE_MS)
        earlier = open_ledger(store.root, "earlier")
        earlier.mark(BTC, start_ms, stop_ms, "unhealable", stop_ms, "HTTP 404")
        await save(earlier)
        earlier.close()
        async with recording(sandbox, tmp_path / "lake", "spot:BTCUSDT:1m", options=OPTIONS) as running:
            await until(lambda: not running.supervisor.surveying)
            await running.past(stop_ms)
            await until(lambda: not running.supervisor.healer.pending)
        found = account(running.store, sandbox, BTC, start_ms, stop_ms)
        assert (found.silent, found.reasons) == (set(), {})


@side_by_side
async def test_rows_of_one_series_that_cannot_be_read_hold_up_no_other(tmp_path: Path) -> None:
    """While REST's rows of one symbol are garbled the others are healed; later that one is, too."""
    eth = Series("spot", "ETHUSDT", "1m")

    garbled = asyncio.Event()
    garbled.set()

    async def garble(request: web.Request, body: bytes) -> bytes:
        if garbled.is_set() and request.query.get("symbol") == "ETHUSDT":
            return body.replace(b'"', b'"x', 1)  # the first row's opening price
        return body

    async with serve(options()) as sandbox:
        async with (
            passing_on(sandbox, garble) as endpoints,
            recording(
                sandbox,
                tmp_path / "lake",
                "spot:BTCUSDT,ETHUSDT:1m",
                options=OPTIONS,
                endpoints=endpoints,
            ) as running,
        ):
            healer = running.supervisor.healer
            start_ms = BTC.grid.ceil(sandbox.now_ms())
            mute = sandbox.add_fault(Fault("missing_close"))
            await until(lambda: healer.stats.errors >= 3)
            asked_ms = BTC.grid.floor(sandbox.now_ms())
            assert all(queue.failures == 0 for queue in healer._schedule.queues.values())
            gaps = running.supervisor.ledger.gaps
            await until(lambda: (running.supervisor.watermarks.next_ms(BTC) or 0) >= asked_ms)
            await until(lambda: not any(gap.start_ms < asked_ms for gap in gaps(BTC)))
            assert gaps(eth)
            sandbox.remove_fault(mute)
            garbled.clear()
            stop_ms = BTC.grid.floor(sandbox.now_ms())
            await running.past(stop_ms)
        for series in (BTC, eth):
            found = account(running.store, sandbox, series, start_ms, stop_ms)
            assert (found.silent, found.reasons) == (set(), {})


@side_by_side
async def test_what_rest_has_not_got_yet_is_no_halt(tmp_path: Path) -> None:
    """While REST lags a missing candle stays pending for any time; then it is healed."""

    async with serve(options(start_ms=1_767_225_600_000)) as sandbox:
        start_ms = BTC.grid.ceil(sandbox.now_ms()) + 10 * MINUTE_MS
        behind = sandbox.add_fault(Fault("rest_lag", value=40 * 60))
        mute = Fault("missing_close", start_ms=start_ms, stop_ms=start_ms + 3 * MINUTE_MS)
        sandbox.add_fault(mute)
        async with recording(sandbox, tmp_path / "lake", "spot:BTCUSDT:1m", options=OPTIONS) as running:
            await until(lambda: sandbox.now_ms() > start_ms + 20 * MINUTE_MS)
            await until(lambda: bool(running.supervisor.ledger.gaps(BTC)))
            assert {gap.reason for gap in running.supervisor.ledger.gaps(BTC)} == {"pending"}
            sandbox.remove_fault(behind)
            await running.past(start_ms + 21 * MINUTE_MS)
        found = account(running.store, sandbox, BTC, start_ms, start_ms + 20 * MINUTE_MS)
        assert (found.silent, found.reasons) == (set(), {})


@side_by_side
async def test_what_rest_has_since_it_was_asked_is_no_halt(tmp_path: Path) -> None:
    """If REST lags and first returns no candle, it is asked again before the gap counts as a halt."""

    async with serve(options(start_ms=1_767_225_600_000)) as sandbox:
        start_ms = 2**62  # until the recording has begun
        behind = sandbox.add_fault(Fault("rest_lag", value=40 * 60))
        caught_up = asyncio.Event()

        async def catch_up(_request: web.Request, body: bytes) -> bytes:
            late = sandbox.now_ms() > start_ms + 15 * MINUTE_MS
            if late and body == b"[]" and not caught_up.is_set():
                sandbox.remove_fault(behind)
                caught_up.set()
            return body

        async with (
            passing_on(sandbox, catch_up) as endpoints,
            recording(
                sandbox,
                tmp_path / "lake",
                "spot:BTCUSDT:1m",
                options=OPTIONS,
                endpoints=endpoints,
            ) as running,
        ):
            start_ms = BTC.grid.ceil(sandbox.now_ms()) + 10 * MINUTE_MS
            sandbox.add_fault(Fault("missing_close", start_ms=start_ms, stop_ms=start_ms + 3 * MINUTE_MS))
            await until(caught_up.is_set)
            await running.past(start_ms + 21 * MINUTE_MS)
        found = account(running.store, sandbox, BTC, start_ms, start_ms + 20 * MINUTE_MS)
        assert (found.silent, found.reasons) == (set(), {})


@side_by_side
async def test_a_series_of_which_nothing_ever_came_is_healed_from_its_first_gap_on(tmp_path: Path) -> None:
    """A start heals a series without candles from its first gap in the ledger."""

    async with serve(options()) as sandbox:
        sandbox.add_fault(Fault("silent_stream"))
        absent = sandbox.add_fault(Fault("rest_missing_rows"))
        async with recording(sandbox, tmp_path / "lake", "spot:BTCUSDT:1m", options=OPTIONS) as running:
            await until(lambda: bool(running.supervisor.ledger.gaps(BTC)))
        [gap] = read_gaps(running.store.root)
        stopped_ms = sandbox.now_ms()
        await until(lambda: sandbox.now_ms() > stopped_ms + 10 * MINUTE_MS)
        sandbox.remove_fault(absent)
        async with recording(sandbox, tmp_path / "lake", "spot:BTCUSDT:1m", options=OPTIONS) as running:
            stop_ms = BTC.grid.floor(sandbox.now_ms())
            await running.past(stop_ms)
        found = account(running.store, sandbox, BTC, gap.start_ms, stop_ms)
        assert (found.silent, found.reasons) == (set(), {})


@side_by_side
async def test_a_symbol_that_nobody_lists_leaves_no_word(tmp_path: Path) -> None:
    """A misspelled symbol that is corrected at once leaves no gap in the lake."""
    wrong = Series("spot", "BTCUSTD", "1m")

    async with serve(options(speed=60.0)) as sandbox:
        async with recording(
            sandbox, tmp_path / "lake", "spot:BTCUSDT,BTCUSTD:1m", options=OPTIONS
        ) as running:
            await until(lambda: running.recorder.stats.recorded > 2)
            assert wrong in running.supervisor.listeners["spot"].series
        assert read_gaps(running.store.root) == []


@side_by_side
async def test_a_symbol_that_is_listed_later_was_not_listed_until_then(tmp_path: Path) -> None:
    """All candles from the first gap to a symbol's listing are explained, and later ones are present."""
    eth = Series("spot", "ETHUSDT", "1m")

    async with serve(options(speed=120.0)) as sandbox:
        listed_ms = BTC.grid.ceil(sandbox.now_ms()) + 10 * MINUTE_MS
        start_ms = listed_ms - 60 * MINUTE_MS
        sandbox.add_fault(Fault("new_listing", symbols=("ETHUSDT",), start_ms=listed_ms))
        store = LakeStore.create(str(tmp_path / "lake"), "test")
        earlier = open_ledger(store.root, "earlier")
        earlier.mark(eth, start_ms, start_ms + MINUTE_MS, "not_listed", start_ms + 10 * MINUTE_MS)
        changes = earlier.take_changes()
        assert changes is not None
        earlier.write(changes)
        earlier.close()
        stop_ms = listed_ms + 5 * MINUTE_MS
        async with recording(
            sandbox, tmp_path / "lake", "spot:BTCUSDT,ETHUSDT:1m", options=OPTIONS
        ) as running:
            await until(lambda: sandbox.now_ms() > listed_ms and eth in running.supervisor.watermarks)
            await running.past(stop_ms)
        found = account(running.store, sandbox, eth, start_ms, stop_ms)
        assert found.present == set(range(listed_ms, stop_ms, MINUTE_MS))
        assert set(found.reasons.values()) == {"not_listed"}
        assert not found.silent


@side_by_side
async def test_what_ended_while_nobody_recorded_is_healed_up_to_its_end(tmp_path: Path) -> None:
    """A symbol delisted between two runs is healed up to its end, and the ledger has its delisting."""
    eth = Series("spot", "ETHUSDT", "1m")

    async with serve(options()) as sandbox:
        async with recording(sandbox, tmp_path / "lake", "spot:*USDT:1m", options=OPTIONS) as running:
            await until(lambda: running.recorder.stats.recorded > 100)
        start_ms = eth.grid.floor(sandbox.now_ms())
        ended_ms = start_ms + 6 * MINUTE_MS
        sandbox.add_fault(Fault("delisting", symbols=("ETHUSDT",), start_ms=ended_ms))
        await until(lambda: sandbox.now_ms() > start_ms + 20 * MINUTE_MS)
        async with recording(sandbox, tmp_path / "lake", "spot:*USDT:1m", options=OPTIONS) as running:
            await until(lambda: {gap.reason for gap in running.supervisor.ledger.gaps(eth)} == {"delisted"})
        found = account(running.store, sandbox, eth, start_ms, start_ms + 19 * MINUTE_MS)
        assert found.present == set(range(start_ms, ended_ms, MINUTE_MS))
        assert set(found.reasons.values()) == {"delisted"}
        assert not found.silent
        # What is over is not looked into again.
        async with recording(sandbox, tmp_path / "lake", "spot:*USDT:1m", options=OPTIONS) as running:
            told = running.supervisor.ledger.gaps(eth)
            await running.past(BTC.grid.floor(sandbox.now_ms()))
            assert running.supervisor.ledger.gaps(eth) == told


@side_by_side
async def test_what_trades_again_was_halted_and_not_delisted(tmp_path: Path) -> None:
    """A symbol that leaves trading counts as delisted; once it trades again, the gap becomes a halt."""
    eth = Series("spot", "ETHUSDT", "1m")

    async with serve(options()) as sandbox:
        start_ms = eth.grid.ceil(sandbox.now_ms()) + 10 * MINUTE_MS
        stop_ms = start_ms + 40 * MINUTE_MS
        sandbox.add_fault(Fault("delisting", symbols=("ETHUSDT",), start_ms=start_ms, stop_ms=stop_ms))
        # What it lists is asked for rarely: the first of it is taken for the end.
        slow = OPTIONS._replace(list_every_s=3.0)
        async with recording(sandbox, tmp_path / "lake", "spot:*USDT:1m", options=slow) as running:
            await until(lambda: any(gap.reason == "delisted" for gap in running.supervisor.ledger.gaps(eth)))
            await until(lambda: sandbox.now_ms() > stop_ms and eth in running.supervisor.watermarks)
            await running.past(stop_ms + 5 * MINUTE_MS)
        found = account(running.store, sandbox, eth, start_ms, stop_ms + 5 * MINUTE_MS)
        assert found.reasons == dict.fromkeys(range(start_ms, stop_ms, MINUTE_MS), "exchange_halt")
        assert not found.silent


@side_by_side
async def test_candles_of_three_days_are_owed_from_the_start(tmp_path: Path) -> None:
    """The grid of `3d` is requested at the start, so a candle without a frame is missed at its deadline."""
    three = Series("spot", "BTCUSDT", "3d")

    async with serve(options()) as sandbox:
        [begin_ms] = sandbox.expected(*three, sandbox.now_ms() - 3 * DAY_MS, sandbox.now_ms())
        end_ms = begin_ms + 3 * DAY_MS
    async with serve(options(start_ms=end_ms - 20 * MINUTE_MS)) as sandbox:
        sandbox.add_fault(Fault("silent_stream"))
        async with recording(sandbox, tmp_path / "lake", "spot:BTCUSDT:3d", options=OPTIONS) as running:
            await until(lambda: running.supervisor.watermarks.next_ms(three) == end_ms)
            await running.past(end_ms + 8 * MINUTE_MS)
        assert account(running.store, sandbox, three, begin_ms, end_ms).present == {begin_ms}


@side_by_side
async def test_a_partition_that_cannot_be_read_hinders_no_other_series(tmp_path: Path) -> None:
    """An unreadable partition leaves its series' gaps unknown; the other series are healed."""
    eth = Series("spot", "ETHUSDT", "1m")

    async with serve(options()) as sandbox:
        store = LakeStore.create(str(tmp_path / "lake"), "test")
        start_ms = BTC.grid.floor(sandbox.now_ms()) - 30 * MINUTE_MS
        put(store, sandbox, eth, start_ms)
        put(store, sandbox, BTC, start_ms)
        damaged = store.root / partition_at(BTC, start_ms).file
        damaged.write_bytes(b"PAR1 no more")
        async with recording(
            sandbox, tmp_path / "lake", "spot:BTCUSDT,ETHUSDT:1m", options=OPTIONS, flush_every_s=60.0
        ) as running:
            stop_ms = BTC.grid.floor(sandbox.now_ms())
            await until(lambda: not running.supervisor.surveying)
            await running.past(stop_ms)
            await until(lambda: not running.supervisor.healer.pending)
            damaged.unlink()
        found = account(running.store, sandbox, eth, start_ms, stop_ms)
        assert (found.silent, found.reasons) == (set(), {})


@side_by_side
async def test_each_market_is_owed_as_soon_as_its_time_is_known(tmp_path: Path) -> None:
    """Each market's series are expected once its time is known, even without exchangeInfo."""

    async def answer(request: web.Request) -> web.Response:
        known = request.path.endswith("/time")
        return web.json_response({"serverTime": 1_767_225_600_000}, status=200 if known else 503)

    async with (
        serve_routes(answer) as url,
        serve(options()) as sandbox,
        recording(
            sandbox,
            tmp_path / "lake",
            "spot:BTCUSDT:1m",
            "usdt_futures:BTCUSDT:1m",
            options=OPTIONS._replace(list_every_s=600.0),
            endpoints=lambda market: msgspec.structs.replace(market, rest_url=url),
        ) as running,
    ):
        await until(lambda: len(running.supervisor.watermarks) == 2)


class SlowLedger(Ledger):
    """A ledger on a slow disk."""

    writing = 0
    overtaken = False

    def write(self, changes: Changes) -> None:
        self.overtaken |= self.writing > 0
        self.writing += 1
        time.sleep(0.2)
        super().write(changes)
        self.writing -= 1


def test_the_last_save_does_not_overtake_one_that_was_cancelled(tmp_path: Path) -> None:
    """A save after a cancelled one waits for it, so the newer lines are last."""

    async def main() -> None:
        store = LakeStore.create(str(tmp_path / "lake"), "test")
        ledger = SlowLedger(open_ledger(store.root, "test").path, {}, 0)
        async with Network() as session:
            clients = MarketClients(lambda name: MARKETS[name], session, Clock())
            saver = StateSaver(store, ledger, clients)
            ledger.mark(BTC, 0, MINUTE_MS, "pending", 0)
            saving = asyncio.create_task(saver.save_ledger())
            await until(lambda: ledger.writing > 0)
            saving.cancel()
            await asyncio.gather(saving, return_exceptions=True)
            ledger.mark(BTC, 0, MINUTE_MS, "exchange_halt", 0)
            await saver.save_ledger()
        assert not ledger.overtaken
        assert [gap.reason for gap in read_gaps(store.root)] == ["exchange_halt"]
        ledger.close()

    asyncio.run(main())


@pytest.mark.parametrize("late", [False, True])
@side_by_side
async def test_what_was_missed_a_moment_before_the_stop_is_no_gap(late: bool, tmp_path: Path) -> None:
    """A stop drops gaps younger than the newest candle, and keeps gaps of several minutes."""

    # What is not late has to be stopped within a minute and a half of the exchange's time.
    async with serve(options(speed=60.0 if late else 15.0)) as sandbox:
        soon = OPTIONS._replace(grace_ms=30_000)
        async with recording(sandbox, tmp_path / "lake", "spot:BTCUSDT:1m", options=soon) as running:
            await until(lambda: running.recorder.stats.recorded > 2)
            sandbox.add_fault(Fault("missing_close"))
            sandbox.add_fault(Fault("rest_lag", value=3600))
            ledger = running.supervisor.ledger
            await until(lambda: ledger.counts()["pending"] >= (5 if late else 1))
        pending = [gap for gap in read_gaps(tmp_path / "lake") if gap.reason == "pending"]
        assert bool(pending) == late
