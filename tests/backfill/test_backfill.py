"""Backfills from a real sandbox: the lake becomes complete and true, despite faults of archive and REST."""

import asyncio
import threading
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest

from lakewriter.backfill.archive_import import PENDING_BYTES_MAX, FileImport
from lakewriter.backfill.plan import PlannedFile
from lakewriter.backfill.planner import BackfillOptions
from lakewriter.backfill.progress import Progress
from lakewriter.binance.archive import ArchiveClient
from lakewriter.binance.archive_files import ArchiveFile
from lakewriter.clock import Clock
from lakewriter.interval import DAY_MS, HOUR_MS, MINUTE_MS
from lakewriter.lake.coverage.days import coverage
from lakewriter.lake.gaps.ledger import Changes, Ledger, save
from lakewriter.lake.gaps.ledgers import read_gaps
from lakewriter.lake.lake import LakeStore
from lakewriter.market import MARKETS, served_at
from lakewriter.partition import day_of, partition_at
from lakewriter.recording.supervisor import SupervisorOptions
from lakewriter.sandbox.faults.table import Fault
from lakewriter.sandbox.server import Sandbox
from lakewriter.series import Series
from support.backfilling import START_MS, against_sandbox, run_backfill
from support.lengths import either
from support.recording import account, recording
from support.running import PATIENCE_S, until

pytestmark = pytest.mark.slow

TODAY_MS = START_MS // DAY_MS * DAY_MS
SINCE_MS = TODAY_MS - 3 * DAY_MS
OPTIONS = BackfillOptions(since_ms=SINCE_MS)
BTC = Series("spot", "BTCUSDT", "1m")
COIN_HOURS = Series("coin_futures", "BTCUSD_PERP", "1h")


def complete(sandbox: Sandbox, store: LakeStore, series: Series, since_ms: int = SINCE_MS) -> None:
    """Assert that every candle of the truth is in the lake, except those of the newest half minute."""
    stop_ms = series.grid.floor(START_MS - 30_000)
    found = account(store, sandbox, series, series.grid.ceil(since_ms), stop_ms)
    assert (found.silent, found.reasons) == (set(), {})


def test_history_is_complete_and_true(tmp_path: Path) -> None:
    """Finished days come from the archive, today comes from REST, and all candles equal the truth."""

    async def scenario(sandbox: Sandbox) -> None:
        filled = await run_backfill(
            sandbox, tmp_path, "spot:BTCUSDT:1m,1h,1d", "usdt_futures:ETHUSDT:5m", "coin_futures:BTCUSD_PERP:1m",
            options=OPTIONS,
        )  # fmt: skip
        for each in filled.plan.series:
            complete(sandbox, filled.store, each.series)
        assert filled.done.series == 5
        assert filled.done.from_archive >= 2 * 3 * 1440 + 3 * 288
        assert filled.done.from_rest < 1440
        again = await run_backfill(sandbox, tmp_path, "spot:BTCUSDT:1m", options=OPTIONS)
        assert (again.done.files, again.done.from_rest) == (0, 0)

    against_sandbox(scenario)


def test_who_is_stopped_goes_on_at_the_next_file(tmp_path: Path) -> None:
    """A stopped backfill continues; files that it imported are not fetched again."""

    async def scenario(sandbox: Sandbox) -> None:
        days, done_first = either(20, 40), either(5, 10)
        wanted = BackfillOptions(since_ms=TODAY_MS - days * DAY_MS, downloads=2)
        first = await run_backfill(
            sandbox, tmp_path, "spot:BTCUSDT:1m", options=wanted, until=lambda done: done.files >= done_first
        )
        assert done_first <= first.done.files < days
        second = await run_backfill(sandbox, tmp_path, "spot:BTCUSDT:1m", options=wanted)
        assert len(second.plan.series[0].files) <= days - first.done.files
        complete(sandbox, second.store, BTC, TODAY_MS - days * DAY_MS)

    against_sandbox(scenario)


@pytest.mark.parametrize(
    ("fault", "refused"),
    [
        (Fault("archive_wrong_checksum"), "checksum"),
        (Fault("archive_missing_checksum"), "checksum"),
        (Fault("archive_corrupt_zip"), "checksum"),
        (Fault("archive_corrupt_zip", value=1), "zip"),
        (Fault("archive_missing_file"), ""),
        (Fault("archive_status", value=451, interval="1m"), "refused"),
        (Fault("archive_list_status"), ""),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value.name}-{value.value:g}",
)
def test_files_that_cannot_be_used_are_replaced_by_rest(fault: Fault, refused: str, tmp_path: Path) -> None:
    """Unusable files are fetched again, then given up and logged; REST serves their candles."""

    async def scenario(sandbox: Sandbox) -> None:
        short = OPTIONS._replace(since_ms=TODAY_MS - DAY_MS)
        filled = await run_backfill(sandbox, tmp_path, "spot:BTCUSDT:1m", options=short)
        assert dict(filled.done.refused) == ({refused: 1} if refused else {})
        assert filled.done.from_archive == 0
        complete(sandbox, filled.store, BTC, TODAY_MS - DAY_MS)

    against_sandbox(scenario, fault)


def test_a_share_of_bad_files_is_mixed_with_good_ones(tmp_path: Path) -> None:
    """REST is requested only for the candles of bad files."""
    faults = [Fault("archive_wrong_checksum", share=0.3), Fault("archive_missing_rows", share=0.3)]

    async def scenario(sandbox: Sandbox) -> None:
        wanted = BackfillOptions(since_ms=TODAY_MS - 12 * DAY_MS)
        filled = await run_backfill(sandbox, tmp_path, "spot:BTCUSDT:5m", options=wanted)
        complete(sandbox, filled.store, Series("spot", "BTCUSDT", "5m"), TODAY_MS - 12 * DAY_MS)
        assert filled.done.from_archive and filled.done.from_rest

    against_sandbox(scenario, *faults)


def test_a_day_that_is_short_is_checked_and_explained(tmp_path: Path) -> None:
    """A candle that neither archive nor REST has, between present ones, is explained as a halt."""
    halt = Fault("exchange_halt", start_ms=SINCE_MS + HOUR_MS, stop_ms=SINCE_MS + 2 * HOUR_MS)

    async def scenario(sandbox: Sandbox) -> None:
        filled = await run_backfill(sandbox, tmp_path, "spot:BTCUSDT:1m", options=OPTIONS)
        found = account(filled.store, sandbox, BTC, SINCE_MS, BTC.grid.floor(START_MS - 30_000))
        assert found.silent == set()
        assert set(found.reasons.values()) == {"exchange_halt"}
        assert len(found.reasons) == 60
        assert all(not day.without_reason for day in coverage(filled.store))
        again = await run_backfill(sandbox, tmp_path, "spot:BTCUSDT:1m", options=OPTIONS)
        assert (again.plan.series[0].missing, again.done.pages) == ([], 0)

    against_sandbox(scenario, halt)


def test_rows_that_the_archive_lacks_come_from_rest(tmp_path: Path) -> None:
    """REST fills the rows that a short file lacks; a short file is no evidence of a halt."""
    lack = Fault("archive_missing_rows", start_ms=SINCE_MS + HOUR_MS, stop_ms=SINCE_MS + 3 * HOUR_MS)

    async def scenario(sandbox: Sandbox) -> None:
        filled = await run_backfill(sandbox, tmp_path, "spot:BTCUSDT:1m", options=OPTIONS)
        complete(sandbox, filled.store, BTC)
        assert filled.done.explained == 0

    against_sandbox(scenario, lack)


def test_a_month_file_with_short_days_is_not_believed(tmp_path: Path) -> None:
    """Days with fewer rows than their grid are fetched by REST."""
    since_ms = TODAY_MS - 35 * DAY_MS
    lack = Fault("archive_missing_rows", start_ms=since_ms + DAY_MS, stop_ms=since_ms + DAY_MS + 3 * HOUR_MS)

    async def scenario(sandbox: Sandbox) -> None:
        filled = await run_backfill(
            sandbox, tmp_path, "spot:BTCUSDT:1h", options=BackfillOptions(since_ms=since_ms)
        )
        assert filled.done.files == 2
        # The rest of February, and 24 hours of the day with three lacking.
        complete(sandbox, filled.store, Series("spot", "BTCUSDT", "1h"), since_ms)
        assert filled.done.from_rest >= 3

    against_sandbox(scenario, lack)


def test_a_page_that_ends_early_is_not_the_end(tmp_path: Path) -> None:
    """If REST leaves out rows inside a page, the backfill still requests the rest."""
    lack = Fault(
        "rest_missing_rows", start_ms=SINCE_MS + HOUR_MS, stop_ms=SINCE_MS + HOUR_MS + 10 * MINUTE_MS
    )

    async def scenario(sandbox: Sandbox) -> None:
        series = Series("usdt_futures", "BTCUSDT", "1m")
        filled = await run_backfill(
            sandbox, tmp_path, "usdt_futures:BTCUSDT:1m", options=OPTIONS._replace(files="none")
        )
        found = account(filled.store, sandbox, series, SINCE_MS, series.grid.floor(START_MS - 30_000))
        assert (len(found.reasons), found.silent) == (10, set())

    against_sandbox(scenario, lack)


def test_rest_that_says_wait_is_waited_for(tmp_path: Path) -> None:
    """429 and 418 with Retry-After, and server errors, only delay the backfill."""

    async def scenario(sandbox: Sandbox) -> None:
        fault = sandbox.add_fault(Fault("rest_status", value=429, retry_after_s=1))

        async def over() -> None:
            await until(lambda: sandbox.requests.total() >= 2)
            sandbox.remove_fault(fault)

        ending = asyncio.create_task(over())
        filled = await run_backfill(sandbox, tmp_path, "spot:BTCUSDT:1m", options=OPTIONS)
        await ending
        complete(sandbox, filled.store, BTC)

    against_sandbox(scenario)


def test_a_candle_that_closed_after_the_request_is_no_halt(tmp_path: Path) -> None:
    """A candle that closes during a slow request gets no reason, because the request did not cover it."""
    # A thousandth of a real second is a simulated one, so a request takes ten minutes.
    slow = Fault("slow_rest", "spot", value=0.6)

    async def scenario(sandbox: Sandbox) -> None:
        filled = await run_backfill(sandbox, tmp_path, "spot:BTCUSDT:1m", options=OPTIONS)
        assert sandbox.now_ms() > START_MS + HOUR_MS
        complete(sandbox, filled.store, BTC)
        assert read_gaps(tmp_path) == []

    against_sandbox(scenario, slow, speed=1000)


def test_before_its_first_candle_a_series_was_not_listed(tmp_path: Path) -> None:
    """Candles from before the listing have their reason, and are not requested."""
    listing = Fault("new_listing", "spot", ("BTCUSDT",), start_ms=SINCE_MS + 6 * HOUR_MS)

    async def scenario(sandbox: Sandbox) -> None:
        filled = await run_backfill(sandbox, tmp_path, "spot:BTCUSDT:1m", options=OPTIONS)
        found = account(filled.store, sandbox, BTC, SINCE_MS, BTC.grid.floor(START_MS - 30_000))
        assert (len(found.reasons), set(found.reasons.values())) == (360, {"not_listed"})
        assert found.silent == set()

    against_sandbox(scenario, listing)


@pytest.mark.parametrize("vanished", [0, 1])
def test_after_its_last_candle_a_series_was_delisted(vanished: int, tmp_path: Path) -> None:
    """Old files of a delisted symbol are imported, and later candles get the reason "delisted"."""
    end = Fault("delisting", "spot", ("BTCUSDT",), start_ms=TODAY_MS - DAY_MS + 6 * HOUR_MS, value=vanished)

    async def scenario(sandbox: Sandbox) -> None:
        filled = await run_backfill(sandbox, tmp_path, "spot:BTCUSDT:1m", options=OPTIONS)
        stop_ms = START_MS // MINUTE_MS * MINUTE_MS - 10 * MINUTE_MS
        found = account(filled.store, sandbox, BTC, SINCE_MS, stop_ms)
        assert found.silent == set()
        assert set(found.reasons.values()) == {"delisted"}
        assert len(found.present) == 2 * 1440 + 360
        days = list(coverage(filled.store, until_ms=START_MS))
        assert not any(day.without_reason for day in days)

    against_sandbox(scenario, end)


def vanishing(stop_ms: int) -> Fault:
    return Fault("delisting", "coin_futures", ("BTCUSD_PERP",), start_ms=stop_ms, value=1)


def test_of_a_symbol_that_vanished_a_short_day_is_taken(tmp_path: Path) -> None:
    """The hours of a vanished symbol's last day come from the monthly file, their only source."""
    since_ms, stop_ms = TODAY_MS - 22 * DAY_MS, TODAY_MS - 12 * DAY_MS + 6 * HOUR_MS

    async def scenario(sandbox: Sandbox) -> None:
        wanted = BackfillOptions(since_ms=since_ms)
        filled = await run_backfill(sandbox, tmp_path, "coin_futures:BTCUSD_PERP:1h", options=wanted)
        found = account(filled.store, sandbox, COIN_HOURS, since_ms, TODAY_MS)
        assert (len(found.present), found.silent) == (10 * 24 + 6, set())
        assert set(found.reasons.values()) == {"delisted"}

    against_sandbox(scenario, vanishing(stop_ms))


def test_of_a_symbol_that_vanished_a_file_may_come_yet(tmp_path: Path) -> None:
    """Candles of a vanished symbol get no final reason until their monthly file is overdue."""
    month_ms = TODAY_MS - DAY_MS  # the first of February

    async def scenario(sandbox: Sandbox) -> None:
        filled = await run_backfill(sandbox, tmp_path, "coin_futures:BTCUSD_PERP:1h", options=OPTIONS)
        found = account(filled.store, sandbox, COIN_HOURS, SINCE_MS, TODAY_MS)
        assert (min(found.silent), len(found.silent), found.reasons) == (month_ms, 24, {})

    against_sandbox(scenario, vanishing(month_ms + 12 * HOUR_MS))


def test_of_a_symbol_that_vanished_a_file_that_cannot_be_used_proves_nothing(tmp_path: Path) -> None:
    """Candles of a delisted symbol's unusable file stay without a reason; a repaired file is imported."""
    coin = COIN_HOURS._replace(interval="1m")
    stop_ms = TODAY_MS - DAY_MS + 6 * HOUR_MS

    async def scenario(sandbox: Sandbox) -> None:
        fault = sandbox.add_fault(Fault("archive_corrupt_zip", value=1))
        filled = await run_backfill(sandbox, tmp_path, "coin_futures:BTCUSD_PERP:1m", options=OPTIONS)
        found = account(filled.store, sandbox, coin, SINCE_MS, TODAY_MS)
        assert set(found.reasons.values()) == {"unhealable"}
        assert filled.done.unhealable == len(found.reasons) == 3 * 1440
        sandbox.remove_fault(fault)
        filled = await run_backfill(sandbox, tmp_path, "coin_futures:BTCUSD_PERP:1m", options=OPTIONS)
        found = account(filled.store, sandbox, coin, SINCE_MS, TODAY_MS)
        assert (len(found.present), found.silent) == ((stop_ms - SINCE_MS) // MINUTE_MS, set())
        assert set(found.reasons.values()) == {"delisted"}

    against_sandbox(scenario, vanishing(stop_ms))


def test_a_symbol_that_nobody_knows_is_said(tmp_path: Path) -> None:
    """An unknown symbol is reported as such in the plan, and no gap is written."""

    async def scenario(sandbox: Sandbox) -> None:
        filled = await run_backfill(sandbox, tmp_path, "spot:NOSUCHUSDT,BTCUSDT:1d", options=OPTIONS)
        assert filled.plan.unknown == [Series("spot", "NOSUCHUSDT", "1d")]
        assert [each.series.symbol for each in filled.plan.series] == ["BTCUSDT"]
        assert not (filled.store.root / "market=spot/symbol=NOSUCHUSDT").exists()

    against_sandbox(scenario)


def test_a_file_that_cannot_be_read_holds_up_its_own_series_only(tmp_path: Path) -> None:
    """An unreadable partition is named and unchanged; the other series are filled."""
    broken = tmp_path / partition_at(BTC, SINCE_MS).file

    async def scenario(sandbox: Sandbox) -> None:
        filled = await run_backfill(sandbox, tmp_path, "spot:BTCUSDT,ETHUSDT:1m", options=OPTIONS)
        assert filled.done.unreadable == {BTC}
        assert [each.series.symbol for each in filled.plan.series] == ["ETHUSDT"]
        complete(sandbox, filled.store, Series("spot", "ETHUSDT", "1m"))

    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"no parquet")
    against_sandbox(scenario)
    assert broken.read_bytes() == b"no parquet"


def test_who_is_cancelled_has_written(tmp_path: Path) -> None:
    """After a cancelled save, a later save or close waits for the thread that still writes."""
    begun, go_on = threading.Event(), threading.Event()
    writing: list[bool] = []
    path = tmp_path / "gaps.ndjson"
    path.touch()

    class SlowLedger(Ledger):
        def write(self, changes: Changes) -> None:
            begun.set()
            go_on.wait(PATIENCE_S)
            super().write(changes)
            writing.append(True)

    async def main() -> None:
        ledger = SlowLedger(path, {}, 0)
        ledger.mark(BTC, SINCE_MS, TODAY_MS, "exchange_halt", TODAY_MS)
        saving = asyncio.create_task(save(ledger))
        await until(begun.is_set)
        saving.cancel()
        asyncio.get_running_loop().call_later(0.2, go_on.set)
        with pytest.raises(asyncio.CancelledError):
            await saving
        assert writing == [True]
        assert ledger.take_changes() is None
        ledger.close()

    asyncio.run(main())


def test_globs_stand_for_what_is_listed_or_ever_was(tmp_path: Path) -> None:
    """With the option, a glob also matches symbols that only the archive lists."""
    gone = Fault("delisting", "spot", ("ETHUSDT",), start_ms=TODAY_MS - DAY_MS, value=1)

    async def scenario(sandbox: Sandbox) -> None:
        short = OPTIONS._replace(since_ms=TODAY_MS - 2 * DAY_MS)
        listed = await run_backfill(sandbox, tmp_path, "spot:*THUSDT:1d", options=short)
        assert [each.series.symbol for each in listed.plan.series] == []
        ever = await run_backfill(sandbox, tmp_path, "spot:*THUSDT:1d", options=short._replace(delisted=True))
        assert [each.series.symbol for each in ever.plan.series] == ["ETHUSDT"]

    against_sandbox(scenario, gone)


def test_a_recorder_that_starts_meanwhile_leaves_no_seam(tmp_path: Path) -> None:
    """A backfill and a recorder that starts during it leave no candle out."""

    async def scenario(sandbox: Sandbox) -> None:
        wanted = BackfillOptions(since_ms=TODAY_MS - 20 * DAY_MS, downloads=1)
        filling = asyncio.create_task(
            run_backfill(sandbox, tmp_path, "spot:BTCUSDT,ETHUSDT:1m", options=wanted)
        )
        await until(lambda: (tmp_path / "market=spot").is_dir())
        watching = SupervisorOptions(grace_ms=3 * MINUTE_MS, heal_limit_ms=DAY_MS)
        async with recording(sandbox, tmp_path, "spot:BTCUSDT,ETHUSDT:1m", options=watching) as running:
            filled = await filling
            stop_ms = sandbox.now_ms() // MINUTE_MS * MINUTE_MS + 3 * MINUTE_MS
            await running.past(stop_ms)
        for symbol in ("BTCUSDT", "ETHUSDT"):
            series = Series("spot", symbol, "1m")
            found = account(filled.store, sandbox, series, TODAY_MS - 20 * DAY_MS, stop_ms)
            assert (found.silent, found.reasons) == (set(), {})
        assert all(not day.without_reason for day in coverage(filled.store, until_ms=stop_ms))

    against_sandbox(scenario, speed=60.0)


class _Counting(ArchiveClient):
    """Counts concurrent downloads."""

    under_way = 0
    most = 0

    async def fetch(self, file: ArchiveFile) -> bytes:
        type(self).under_way += 1
        type(self).most = max(self.most, self.under_way)
        try:
            return await super().fetch(file)
        finally:
            type(self).under_way -= 1


@pytest.mark.parametrize(
    ("claimed_bytes", "most"), [(PENDING_BYTES_MAX, 1), (PENDING_BYTES_MAX // 3, 3), (1, 8)]
)
def test_large_files_go_alone(claimed_bytes: int, most: int, tmp_path: Path) -> None:
    """The total size of pending downloads has a limit, besides their number."""

    async def scenario(sandbox: Sandbox) -> None:
        market = served_at(MARKETS["spot"], sandbox.url)
        first = day_of(TODAY_MS - 20 * DAY_MS)
        files = [ArchiveFile(BTC, "daily", first + timedelta(days=number)) for number in range(20)]
        planned = [PlannedFile(each, claimed_bytes, each.start_ms, each.stop_ms) for each in files]
        done: list[PlannedFile] = []

        async def count(each: PlannedFile) -> None:
            done.append(each)

        class Counting(_Counting):
            pass

        store = LakeStore.create(str(tmp_path), "test")
        async with aiohttp.ClientSession() as session:
            archive = Counting(market, session, Clock())
            await FileImport(store, lambda _: archive, Progress(), count, Clock()).run(iter(planned))
        assert len(done) == 20
        assert Counting.most == most

    against_sandbox(scenario, Fault("slow_archive", value=0.02))


def test_what_was_recorded_gives_way_to_the_archive(tmp_path: Path) -> None:
    """A partly recorded day is imported whole; the archive's rows win and are counted."""

    async def scenario(sandbox: Sandbox) -> None:
        none = OPTIONS._replace(files="none")
        await run_backfill(
            sandbox, tmp_path, "spot:BTCUSDT:1m", options=none._replace(until_ms=SINCE_MS + HOUR_MS)
        )
        filled = await run_backfill(sandbox, tmp_path, "spot:BTCUSDT:1m", options=OPTIONS)
        complete(sandbox, filled.store, BTC)
        assert filled.done.files == 3
        assert filled.done.corrections == 0  # both said the same

    against_sandbox(scenario)
