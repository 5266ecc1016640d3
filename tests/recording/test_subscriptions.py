"""Real recorders and the lake's record of their subscriptions: changes, restarts, deaths, mistakes."""

import asyncio
import contextlib
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lakewriter.interval import DAY_MS, MINUTE_MS
from lakewriter.lake.coverage.absences import absent_candles
from lakewriter.lake.coverage.days import series_coverage
from lakewriter.lake.coverage.facts import CoverageMoment
from lakewriter.lake.gaps.ledger import save
from lakewriter.lake.gaps.ledgers import open_ledger
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.subscriptions import read_periods
from lakewriter.recording.supervisor import SupervisorOptions
from lakewriter.sandbox.faults.table import Fault
from lakewriter.sandbox.server import SandboxOptions, serve
from lakewriter.series import Series
from lakewriter.subscribed_period import SubscribedPeriod, owed_since_ms
from lakewriter.subscription import parse_subscription
from support.recording import account, recording
from support.running import Child, child, run, until
from support.side_by_side import side_by_side

pytestmark = pytest.mark.slow

BTC, ETH, BNB = (Series("spot", symbol, "1m") for symbol in ("BTCUSDT", "ETHUSDT", "BNBUSDT"))
OPTIONS = SupervisorOptions(grace_ms=6 * MINUTE_MS, list_every_s=1.5)


def options(**changes: object) -> SandboxOptions:
    return SandboxOptions(**{"speed": 300.0, "push_every_ms": 200, "symbols": 30, **changes})


def periods(lake: Path, series: Series) -> list[SubscribedPeriod]:
    """Return a series' subscribed periods in the lake."""
    return [each for each in read_periods(lake) if each.series == series]


@side_by_side
async def test_a_change_is_known_at_once(tmp_path: Path) -> None:
    """A change at run time has the exchange's time; a stop sets the last confirmation, and ends no period."""
    async with serve(options()) as sandbox:
        began_ms = sandbox.now_ms()
        async with recording(sandbox, tmp_path, "spot:BTCUSDT,ETHUSDT:1m", options=OPTIONS) as running:
            await until(lambda: len(read_periods(tmp_path)) == 2 and running.recorder.stats.recorded > 4)
            running.supervisor.change([parse_subscription("spot:BTCUSDT,BNBUSDT:1m")])
            changed_ms = sandbox.now_ms()
            await until(lambda: len(read_periods(tmp_path)) == 3)
            [bnb], [eth] = periods(tmp_path, BNB), periods(tmp_path, ETH)
            assert changed_ms - MINUTE_MS <= bnb.start_ms <= sandbox.now_ms()
            assert eth.stop_ms == eth.seen_ms == bnb.start_ms
            assert began_ms <= eth.start_ms < eth.stop_ms
            before_stop_ms = sandbox.now_ms()
        for [period] in (periods(tmp_path, BTC), periods(tmp_path, BNB)):
            assert period.is_open
            assert before_stop_ms - MINUTE_MS <= period.seen_ms <= sandbox.now_ms()


@side_by_side
async def test_what_is_left_is_fetched_up_to_its_last_closed_candle(tmp_path: Path) -> None:
    """An unsubscribed series is healed up to its last candle that closed before."""
    async with serve(options()) as sandbox:
        async with recording(sandbox, tmp_path, "spot:BTCUSDT,ETHUSDT:1m", options=OPTIONS) as running:
            await until(lambda: running.recorder.stats.recorded > 4 and bool(periods(tmp_path, ETH)))
            sandbox.add_fault(Fault("silent_stream", symbols=("ETHUSDT",)))
            silent_ms = sandbox.now_ms()
            await until(lambda: sandbox.now_ms() > silent_ms + 3 * MINUTE_MS)
            running.supervisor.change([parse_subscription("spot:BTCUSDT:1m")])
            await until(lambda: not periods(tmp_path, ETH)[0].is_open)
            await until(lambda: not running.supervisor.healer.pending)
        [period] = periods(tmp_path, ETH)
        assert period.stop_ms is not None
        start_ms, stop_ms = ETH.grid.ceil(period.start_ms), ETH.grid.floor(period.stop_ms)
        found = account(LakeStore.open(str(tmp_path)), sandbox, ETH, start_ms, stop_ms)
        assert (found.silent, found.reasons) == (set(), {})


@side_by_side
async def test_symbols_of_a_glob_that_do_not_trade_are_not_left_on_purpose(tmp_path: Path) -> None:
    """A symbol that stops trading stays subscribed by its glob, also after a restart."""
    async with serve(options()) as sandbox:
        async with recording(sandbox, tmp_path, "spot:ETH*:1m", options=OPTIONS) as running:
            await until(lambda: bool(periods(tmp_path, ETH)))
            sandbox.add_fault(Fault("delisting", symbols=("ETHUSDT",), start_ms=sandbox.now_ms()))
            await until(lambda: ETH not in running.supervisor.listeners["spot"].series)
        [period] = periods(tmp_path, ETH)
        assert period.is_open
        async with recording(sandbox, tmp_path, "spot:ETH*,BTCUSDT:1m", options=OPTIONS):
            await until(lambda: bool(periods(tmp_path, BTC)))
        assert [each.is_open for each in periods(tmp_path, ETH)] == [True]


@side_by_side
async def test_without_the_exchanges_time_the_wall_clock_dates(tmp_path: Path) -> None:
    """Without answers of the exchange, subscriptions get the wall clock's time."""
    async with serve(options()) as sandbox:
        sandbox.add_fault(Fault("rest_status", value=503))
        sandbox.add_fault(Fault("refuse_handshake", value=503))
        async with recording(sandbox, tmp_path, "spot:BTCUSDT:1m", options=OPTIONS, owed=False):
            await until(lambda: bool(periods(tmp_path, BTC)))


@side_by_side
async def test_a_disk_that_refuses_stops_no_recording(tmp_path: Path) -> None:
    """While the disk refuses the subscriptions, recording continues, and later they are written."""
    async with serve(options()) as sandbox:
        LakeStore.create(str(tmp_path), "test")
        blocking = tmp_path / "_lakewriter" / "subscriptions"
        blocking.write_text("not a directory")
        async with recording(sandbox, tmp_path, "spot:BTCUSDT:1m", options=OPTIONS) as running:
            await until(lambda: running.recorder.stats.flushed > 3)
            blocking.unlink()
            await until(lambda: bool(periods(tmp_path, BTC)))


@side_by_side
async def test_a_series_is_owed_since_its_subscription(tmp_path: Path) -> None:
    """If a recorder dies before the first candle, the next one heals from its subscription on."""
    async with serve(options(speed=60.0)) as sandbox:
        silent = sandbox.add_fault(Fault("silent_stream"))
        patient = OPTIONS._replace(grace_ms=DAY_MS)
        async with recording(sandbox, tmp_path, "spot:BTCUSDT,BTCUSD:1m", options=patient):
            await until(lambda: owed_since_ms(periods(tmp_path, BTC)) is not None)
        began_ms = BTC.grid.floor(owed_since_ms(periods(tmp_path, BTC)) or 0)
        assert owed_since_ms(read_periods(tmp_path)[:1]) is None, "BTCUSD is not listed"
        store = LakeStore.open(str(tmp_path))
        assert not store.series()
        await until(lambda: sandbox.now_ms() > began_ms + 5 * MINUTE_MS)
        assert all(each.never_came for each in absent_candles(store))
        sandbox.remove_fault(silent)
        async with recording(sandbox, tmp_path, "spot:BTCUSDT,BTCUSD:1m", options=OPTIONS) as running:
            stop_ms = BTC.grid.floor(sandbox.now_ms())
            await running.past(stop_ms)
        found = account(store, sandbox, BTC, began_ms, stop_ms)
        assert (found.silent, found.reasons) == (set(), {})
        days = [day for each in series_coverage(store) if each.series == BTC for day in each.days]
        assert sum(day.without_reason for day in days) == 0
        assert sum(day.expected for day in days) >= (stop_ms - began_ms) // MINUTE_MS


@side_by_side
async def test_what_a_dead_recorder_lacked_is_fetched_though_the_series_is_left(tmp_path: Path) -> None:
    """A gap within a subscribed period is healed even if the series is no longer subscribed to."""
    async with serve(options()) as sandbox:
        async with recording(sandbox, tmp_path, "spot:BTCUSDT,ETHUSDT:1m", options=OPTIONS) as running:
            await until(lambda: running.recorder.stats.recorded > 4)
        store = LakeStore.open(str(tmp_path))
        start_ms = ETH.grid.floor(sandbox.now_ms()) - 30 * MINUTE_MS
        dead = open_ledger(store.root, "dead")
        dead.mark(ETH, start_ms, start_ms + 5 * MINUTE_MS, "pending", sandbox.now_ms())
        await save(dead)
        dead.close()
        async with recording(sandbox, tmp_path, "spot:BTCUSDT:1m", options=OPTIONS) as running:
            await until(
                lambda: not running.supervisor.ledger.gaps(ETH) and running.supervisor.healer.stats.healed > 0
            )
        found = account(store, sandbox, ETH, start_ms, start_ms + 5 * MINUTE_MS)
        assert (found.silent, found.reasons) == (set(), {})


def test_what_a_person_sees(tmp_path: Path) -> None:
    """`coverage` and `gaps` for two subscribed, one removed, one misspelled and one killed subscription."""
    lake = tmp_path / "lake"
    wrong = Series("spot", "BTCUSD", "1m")

    async def main() -> None:
        async with serve(options(speed=60.0)) as sandbox:
            record = ("record", "--log-candles", "--exchange", sandbox.url, "--lake", str(lake))

            def moment_ms() -> int:
                return sandbox.now_ms() - 90_000

            def without_reason(until_ms: int) -> int:
                found = series_coverage(LakeStore.open(str(lake)), moment=CoverageMoment(until_ms))
                return sum(day.without_reason for each in found for day in each.days)

            async def see(command: str, until_ms: int) -> "subprocess.CompletedProcess[str]":
                moment = datetime.fromtimestamp(until_ms / 1000, UTC).isoformat()
                return await asyncio.to_thread(run, command, "--until", moment, "--lake", str(lake))

            with child(tmp_path / "log", *record, "spot:BTCUSDT,ETHUSDT:1m") as recorder:
                await asyncio.to_thread(recorder.wait_for, "(?s)recorded spot BTC.*recorded spot ETH")
                assert await asyncio.to_thread(recorder.stop) == 0
            stopped_ms = sandbox.now_ms()
            await until(lambda: sandbox.now_ms() > stopped_ms + 4 * MINUTE_MS)
            assert {
                each.series
                for each in absent_candles(LakeStore.open(str(lake)), moment=CoverageMoment(moment_ms()))
            } == {
                BTC,
                ETH,
            }, "a stop leaves nothing on purpose"
            with child(tmp_path / "log", *record, "spot:BTCUSDT,BTCUSD:1m") as recorder:
                await asyncio.to_thread(recorder.wait_for, "no longer subscribed to.*: spot ETHUSDT 1m")
                assert not periods(lake, ETH)[0].is_open
                await until(
                    lambda: bool(periods(lake, wrong)) and moment_ms() > periods(lake, wrong)[0].start_ms
                )
                await until((lake / "_lakewriter/instruments/spot.ndjson").exists)
                for command in ("coverage", "gaps"):
                    misspelt = await see(command, moment_ms())
                    assert misspelt.returncode == 1, misspelt.stdout
                    assert "spot BTCUSD 1m: subscribed to since" in misspelt.stderr
                    assert "never a candle came: spot does not list BTCUSD, but BTCUSDT\n" in misspelt.stderr
                    assert "symbol = '" in misspelt.stderr
                recorder.kill()
            with child(tmp_path / "log", *record, "spot:BTCUSDT:1m") as recorder:
                await until(lambda: not periods(lake, wrong)[0].is_open)
                until_ms = moment_ms()
                await until(lambda: without_reason(until_ms) == 0)
                for command, word in (("coverage", "left_at"), ("gaps", "left")):
                    seen = await see(command, until_ms)
                    assert seen.returncode == 0, seen.stdout + seen.stderr
                    assert word in seen.stdout
                recorder.kill()
            killed_ms = sandbox.now_ms()
            await until(lambda: sandbox.now_ms() > killed_ms + 4 * MINUTE_MS)
            dead = await see("coverage", moment_ms())
            assert dead.returncode == 1, dead.stdout
            assert "of 1 series are missing without a reason\n  lakewriter gaps --until" in dead.stderr

    asyncio.run(main())


def test_two_recorders_with_different_subscriptions(tmp_path: Path) -> None:
    """A restart ends only its own recorder's periods, whether the other one lives or not."""
    lake = tmp_path / "lake"
    for name, symbol in (("one", "BTCUSDT"), ("two", "ETHUSDT")):
        (tmp_path / f"{name}.toml").write_text(f'subscriptions = ["spot:{symbol},BNBUSDT:1m"]')

    async def main() -> None:
        async with serve(options(speed=60.0)) as sandbox:

            def start(name: str) -> contextlib.AbstractContextManager[Child]:
                config = ("--config", str(tmp_path / f"{name}.toml"))
                return child(
                    tmp_path / name,
                    "record",
                    "--log-candles",
                    *config,
                    "--exchange",
                    sandbox.url,
                    "--lake",
                    str(lake),
                )

            with start("two") as second:
                with start("one") as first:
                    await until(lambda: len(read_periods(lake)) == 4)
                    first.kill()
                (tmp_path / "one.toml").write_text('subscriptions = ["spot:SOLUSDT:1m"]')
                with start("one"):
                    await until(lambda: not periods(lake, BTC)[0].is_open)
                    assert [each.is_open for each in periods(lake, BNB)].count(True) == 1
                    assert [each.is_open for each in periods(lake, ETH)] == [True]
                    second.kill()
                with start("one"):
                    before = {each.journal for each in read_periods(lake) if each.symbol == "SOLUSDT"}
                    await until(
                        lambda: (
                            {each.journal for each in read_periods(lake) if each.symbol == "SOLUSDT"}
                            != before
                        )
                    )
                    assert [each.is_open for each in periods(lake, ETH)] == [True]
                    assert [each.is_open for each in periods(lake, BNB)].count(True) == 1

    asyncio.run(main())
