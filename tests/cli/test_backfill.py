"""`lakewriter backfill` and `record --since`, with correct and wrong arguments."""

import asyncio
import json
import signal
import subprocess
import sys
from itertools import product
from pathlib import Path

import aiohttp
import pytest

from lakewriter.sandbox.faults.table import Fault
from lakewriter.sandbox.server import Sandbox
from support.backfilling import START_MS, against_sandbox
from support.lengths import LONG
from support.running import child, run, run_here, until

pytestmark = pytest.mark.slow


def test_a_plan_is_printed_and_nothing_is_changed(tmp_path: Path) -> None:
    """--dry-run prints files, bytes, requests, weight and time, and creates no lake."""

    async def scenario(sandbox: Sandbox) -> None:
        where = (
            "--exchange",
            sandbox.url,
            "--lake",
            str(tmp_path / "lake"),
            "--since",
            "2026-01-30",
            "--dry-run",
        )
        told = await asyncio.to_thread(run, "backfill", "spot:BTCUSDT:1m", *where)
        assert told.returncode == 0, told.stderr
        assert "spot    BTCUSDT  1m        2026-01-30" in told.stdout
        assert "1 series lack 4,479 candles: 3 files (" in told.stdout
        assert ", 1 pages of REST; about " in told.stdout
        told = await asyncio.to_thread(run, "backfill", "spot:BTCUSDT:1m", *where, "--json")
        [series] = json.loads(told.stdout)["series"]
        assert series["files"][0] == "/data/spot/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2026-01-30.zip"
        assert (series["pages"], series["weight"]) == (1, 2)
        assert series["missing"] == [["2026-01-30T00:00:00Z", "2026-02-02T02:39:00Z"]]
        assert not (tmp_path / "lake").exists()

    against_sandbox(scenario)


def test_it_says_what_it_did(tmp_path: Path) -> None:
    """It prints a sentence or one JSON object; then coverage is clean and a second run fetches nothing."""

    async def scenario(sandbox: Sandbox) -> None:
        lake = ("--lake", str(tmp_path / "lake"))
        where = ("--exchange", sandbox.url, *lake, "--since", "2026-02-01")
        told = await asyncio.to_thread(run, "backfill", "spot:BTCUSDT:1m", "usdt_futures:BTCUSDT:1h", *where)
        assert told.returncode == 0, told.stderr
        assert told.stdout.startswith("2 series: 1,440 candles of 1 files, ")
        assert "2 series lack" in told.stderr
        told = await asyncio.to_thread(run, "backfill", "spot:BTCUSDT:1m", *where, "--json")
        assert json.loads(told.stdout)["candles_from_archive"] == 0
        covered = await asyncio.to_thread(run, "coverage", *lake)
        assert covered.returncode == 0, covered.stderr

    against_sandbox(scenario)


CLOSED, KINDS = (">&-", "2>&-", ">&- 2>&-", "| true"), ("", "--dry-run", "--dry-run --json")


# A short run has each of both once.
@pytest.mark.parametrize(
    ("closed", "kind"), [*product(CLOSED, KINDS)] if LONG else [*zip(CLOSED, (*KINDS, ""), strict=True)]
)
def test_who_does_not_listen_changes_nothing(closed: str, kind: str, tmp_path: Path) -> None:
    """With a closed output or a reader that leaves, the work is done with exit 0 and no traceback."""

    async def scenario(sandbox: Sandbox) -> None:
        command = (
            f"backfill spot:BTCUSDT:1d --since 2026-01-01 --exchange {sandbox.url} --lake {tmp_path}/lake"
        )
        script = f"set -o pipefail; {sys.executable} -m lakewriter {command} {kind} {closed}"
        told = await asyncio.to_thread(
            subprocess.run, ["bash", "-c", script], capture_output=True, text=True, check=False
        )
        assert (told.returncode, "Traceback" in told.stderr) == (0, False), told.stderr

    against_sandbox(scenario)
    assert bool(list(tmp_path.glob("lake/market=*"))) is not bool(kind)


def test_a_symbol_that_vanished_is_nothing_to_compare(tmp_path: Path) -> None:
    """`verify --against rest` skips symbols that the market no longer lists."""
    end = Fault("delisting", "spot", ("ETHUSDT",), start_ms=START_MS - 30 * 3_600_000, value=1)

    async def scenario(sandbox: Sandbox) -> None:
        where = ("--exchange", sandbox.url, "--lake", str(tmp_path / "lake"))
        command = ("backfill", "spot:ETHUSDT,BTCUSDT:1m", "--since", "2026-01-31")
        told = await asyncio.to_thread(run, *command, *where)
        assert told.returncode == 0, told.stderr
        told = await asyncio.to_thread(run, "verify", "--against", "rest", *where, "--jumps", "0")
        assert (told.returncode, told.stderr) == (0, "")
        assert (
            len([line for line in told.stdout.splitlines() if "against" in line and "BTCUSDT" in line]) == 1
        )

    against_sandbox(scenario, end)


def test_what_cannot_be_had_is_exit_1(tmp_path: Path) -> None:
    """An unknown symbol is named with exit 1; the other series are fetched."""

    async def scenario(sandbox: Sandbox) -> None:
        where = ("--exchange", sandbox.url, "--lake", str(tmp_path / "lake"), "--since", "2026-02-01")
        told = await asyncio.to_thread(run, "backfill", "spot:BTCUSD,BTCUSDT:1h", *where)
        assert told.returncode == 1
        assert told.stderr.endswith(
            "lakewriter: backfill: no source knows spot BTCUSD 1h\n  check the spelling\n"
        )
        assert "1 series: " in told.stdout

    against_sandbox(scenario)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["spot:BTCUSDT:1m", "--since", "yesterday"], "--since: 'yesterday' is not a day"),
        (
            ["spot:BTCUSDT:1m", "--since", "2026-01-02", "--until", "2026-01-01"],
            "--until: 2026-01-01 is before",
        ),
        ([], "backfill: nothing to fetch"),
        (["spot:BTCUSDT"], "is not MARKET:SYMBOLS:INTERVALS"),
        (
            ["spot:BTCUSDT:1m", "--exchange", "nowhere"],
            "exchange: 'nowhere' is not an http:// or https:// URL",
        ),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], error: str, tmp_path: Path) -> None:
    """A wrong argument is one line with exit 2, and creates nothing."""
    told = run_here("backfill", *arguments, "--lake", str(tmp_path / "lake"), cwd=tmp_path)
    assert told.returncode == 2
    assert error in told.stderr
    assert not (tmp_path / "lake").exists()


def test_ctrl_c_stops_at_once_and_the_next_goes_on(tmp_path: Path) -> None:
    """Imported candles stay after Ctrl-C, and the second run fetches the rest."""

    async def scenario(sandbox: Sandbox) -> None:
        lake = tmp_path / "lake"
        arguments = ["backfill", "spot:BTCUSDT:1m", "--since", "2025-12-01", "--exchange", sandbox.url]
        arguments += ["--lake", str(lake), "--downloads", "2"]
        slow = sandbox.add_fault(Fault("slow_archive", value=0.05))
        with child(tmp_path / "log", *arguments) as filling:
            await until(lambda: len(list(lake.glob("market=*/*/*/date=*"))) > 5)
            sandbox.remove_fault(slow)
            # Downloads that would not end while this test waits are not waited for.
            hanging = sandbox.add_fault(Fault("slow_archive", value=3600))
            assert await asyncio.to_thread(filling.stop, signal.SIGINT) == 130
            assert "run the same command again to resume" in filling.logged()
        sandbox.remove_fault(hanging)
        there = len(list(lake.glob("market=*/*/*/date=*")))
        told = await asyncio.to_thread(run, *arguments, "--json")
        assert told.returncode == 0, told.stderr
        assert json.loads(told.stdout)["files"] == 63 - there

    against_sandbox(scenario)


def test_record_since_does_both(tmp_path: Path) -> None:
    """`record --since` fetches history and records in one process, without a gap between them."""

    async def scenario(sandbox: Sandbox) -> None:
        lake = tmp_path / "lake"
        arguments = [
            "record",
            "--log-candles",
            "spot:BTCUSDT:1m",
            "--since",
            "2026-01-20",
            "--exchange",
            sandbox.url,
        ]
        arguments += ["--lake", str(lake), "--flush-every", "500ms", "--grace", "3m"]
        with child(tmp_path / "log", *arguments) as recorder:
            await asyncio.to_thread(
                recorder.wait_for, "history: 1 series complete, 18720 candles of 13 files"
            )
            await until(lambda: recorder.logged().count("\nrecorded ") >= 3)
            told = await asyncio.to_thread(run, "coverage", "--lake", str(lake))
            assert told.returncode == 0, told.stdout + told.stderr
            assert await asyncio.to_thread(recorder.stop) == 0
        told = await asyncio.to_thread(run, "coverage", "--lake", str(lake), "--json")
        row, _ = map(json.loads, told.stdout.splitlines())
        assert (row["first"], row["missing"]) == ("2026-01-20", 0)

    against_sandbox(scenario, speed=60.0)


def test_a_recorder_outlives_a_history_that_fails(tmp_path: Path) -> None:
    """If REST and archive fail, live candles are recorded, and the backfill is retried."""

    async def scenario(sandbox: Sandbox) -> None:
        arguments = [
            "record",
            "--log-candles",
            "spot:BTCUSDT:1m",
            "--since",
            "2026-01-31",
            "--exchange",
            sandbox.url,
        ]
        arguments += ["--lake", str(tmp_path / "lake"), "--grace", "3m"]
        with child(tmp_path / "log", *arguments) as recorder:
            await until(lambda: recorder.logged().count("\nrecorded ") >= 2)
            assert await asyncio.to_thread(recorder.stop) == 0

    against_sandbox(scenario, Fault("rest_status", value=503), Fault("archive_status"), speed=60.0)


def test_what_the_user_has_already_is_not_fetched(tmp_path: Path) -> None:
    """--from-dir imports files of the wanted series, and ignores others."""
    have = tmp_path / "have"

    async def scenario(sandbox: Sandbox) -> None:
        async with aiohttp.ClientSession() as session:
            for symbol in ("BTCUSDT", "ETHUSDT"):
                for day in ("2026-01-30", "2026-01-31"):
                    name = f"{symbol}-1m-{day}.zip"
                    url = f"{sandbox.url}/data/spot/daily/klines/{symbol}/1m/{name}"
                    async with session.get(url) as answer:
                        have.mkdir(exist_ok=True)
                        (have / name).write_bytes(await answer.read())
        arguments = ["backfill", "spot:BTCUSDT:1m", "--since", "2026-01-30", "--exchange", sandbox.url]
        arguments += ["--lake", str(tmp_path / "lake"), "--from-dir", str(have), "--json"]
        told = await asyncio.to_thread(run, *arguments)
        assert told.returncode == 0, told.stderr
        assert "2 of its 4 files are of these series, 2880 candles" in told.stderr
        assert json.loads(told.stdout)["files"] == 1
        assert not (tmp_path / "lake/market=spot/symbol=ETHUSDT").exists()

    against_sandbox(scenario)
