"""`lakewriter doctor`: one line for each check, what to do, and exit 1 only for failures."""

import asyncio
import json
import resource
import time
from pathlib import Path
from typing import Any

import pytest

from lakewriter.cli.checks.exchange import probed_symbols
from lakewriter.cli.checks.lake_state import check_lake
from lakewriter.cli.checks.machine import FILES_SPARE, check_open_files
from lakewriter.lake.condition import check_locks, leftovers
from lakewriter.lake.lake import LakeStore
from lakewriter.sandbox import Fault, SandboxOptions, serve
from lakewriter.subscription import parse_subscription
from support.candles import stream_candle
from support.living_recorder import LivingRecorder
from support.running import run

pytestmark = pytest.mark.slow

ALL = [f"{market} {name}" for market in ("spot", "usdt_futures", "coin_futures") for name in ("rest", "stream", "archive list", "archive")]  # fmt: skip


def told(*arguments: str, cwd: Path) -> tuple[int, dict[str, dict[str, str]], dict[str, Any]]:
    """Run the doctor; return its exit code, its checks by name and its report."""
    done = run("doctor", "--json", *arguments, cwd=cwd)
    report = json.loads(done.stdout)
    return done.returncode, {each["check"]: each for each in report["checks"]}, report


def test_a_sound_machine_passes(tmp_path: Path) -> None:
    """With a good exchange all checks pass, every endpoint is among them, and no lake is made."""

    async def main() -> None:
        async with serve(SandboxOptions()) as sandbox:
            code, checks, report = await asyncio.to_thread(told, "--exchange", sandbox.url, cwd=tmp_path)
            assert code == 0 and report["failures"] == 0, report
            assert set(ALL) < set(checks)
            assert {checks[name]["level"] for name in ALL} == {"ok"}, report
            assert report["ok"] + report["warnings"] == len(report["checks"])
            shown = await asyncio.to_thread(
                run, "doctor", "spot:ETHUSDT:1m", "--exchange", sandbox.url, cwd=tmp_path
            )
            assert shown.returncode == 0, shown.stdout
            assert "sends ETHUSDT 1m" in shown.stdout and "usdt_futures" not in shown.stdout
            assert shown.stdout.splitlines()[-1].endswith(" 0 failures")

    asyncio.run(main())
    assert list(tmp_path.iterdir()) == []


def test_each_blocked_endpoint_is_named_with_its_cause(tmp_path: Path) -> None:
    """A refused region fails on the stream, not on the others; a missing archive is a warning."""

    async def main() -> None:
        async with serve(SandboxOptions()) as sandbox:
            sandbox.add_fault(Fault("refuse_handshake", "spot", value=451))
            sandbox.add_fault(Fault("archive_list_status", value=403))
            arguments = ("spot:BTCUSDT:1m", "usdt_futures:BTCUSDT:1m", "--exchange", sandbox.url)
            code, checks, report = await asyncio.to_thread(told, *arguments, cwd=tmp_path)
            assert (code, report["failures"]) == (1, 1), report
            assert checks["spot stream"]["level"] == "fail" and "HTTP 451" in checks["spot stream"]["what"]
            assert "[markets.spot] stream_url" in checks["spot stream"]["advice"]
            assert checks["spot rest"]["level"] == checks["usdt_futures stream"]["level"] == "ok"
            assert checks["spot archive list"]["level"] == "warn"
            assert "only backfill and verify" in checks["spot archive list"]["advice"]

    asyncio.run(main())


def test_a_wrong_clock_is_a_warning(tmp_path: Path) -> None:
    """An exchange whose time is an hour ahead: the host is that much behind."""

    async def main() -> None:
        async with serve(SandboxOptions(start_ms=int(time.time() * 1000))) as sandbox:
            arguments = ("spot:BTCUSDT:1m", "--exchange", sandbox.url)
            _, checks, _ = await asyncio.to_thread(told, *arguments, cwd=tmp_path)
            assert checks["clock"]["level"] == "ok", checks["clock"]
            sandbox.add_fault(Fault("time_off", value=3600))
            code, checks, _ = await asyncio.to_thread(told, *arguments, cwd=tmp_path)
            assert code == 0 and checks["clock"]["level"] == "warn"
            assert "the host is 3,600 s behind the exchange" in checks["clock"]["what"]

    asyncio.run(main())


def test_silence_ends_at_the_timeout(tmp_path: Path) -> None:
    """A server that accepts and never answers: four failures or warnings, at the timeout, with what to do."""

    async def main() -> None:
        held: list[asyncio.StreamWriter] = []
        server = await asyncio.start_server(lambda _, writer: held.append(writer), "127.0.0.1", 0)
        async with server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            arguments = ("spot:BTCUSDT:1m", "--exchange", url, "--timeout", "1s")
            code, checks, report = await asyncio.to_thread(told, *arguments, cwd=tmp_path)
            for writer in held:
                writer.close()
        assert code == 1 and report["failures"] == 2, report
        for name in ALL[:4]:
            assert "no answer in time" in checks[name]["what"] and "443" in checks[name]["advice"]
        assert checks["clock"]["level"] == "warn"

    asyncio.run(main())


def test_a_broken_config_is_a_finding_and_not_the_end(tmp_path: Path) -> None:
    """A wrong config fails its own check; all others run."""
    (tmp_path / "lakewriter.toml").write_text("tomatoes = 1")
    code, checks, _ = told(
        "spot:BTCUSDT:1m", "--exchange", "http://127.0.0.1:9", "--timeout", "2s", cwd=tmp_path
    )
    assert code == 1 and "unknown field `tomatoes`" in checks["config"]["what"]
    assert checks["lake"]["level"] == "ok" and "refused" in checks["spot rest"]["what"]


def test_the_config_names_lake_and_markets(tmp_path: Path) -> None:
    """Without arguments the config's lake, markets and endpoints are checked."""
    (tmp_path / "lakewriter.toml").write_text(
        'lake = "here"\nsubscriptions = ["coin_futures:BTCUSD_PERP:1m"]\nexchange = "http://127.0.0.1:9"'
    )
    _, checks, _ = told("--timeout", "2s", cwd=tmp_path)
    assert f"{tmp_path / 'here'} does not exist yet" in checks["lake"]["what"]
    assert "coin_futures rest" in checks and "spot rest" not in checks
    assert checks["config"]["what"] == "lakewriter.toml: 1 subscription"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--timeout", "2h"], "lakewriter: --timeout: 2h is more than 60s"),
        (["--timeout", "soon"], "lakewriter: duration: 'soon' is not a duration"),
        (["spot:BTCUSDT"], "lakewriter: subscription: 'spot:BTCUSDT' is not MARKET:SYMBOLS:INTERVALS"),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], line: str, tmp_path: Path) -> None:
    """Wrong usage exits 2 with one line."""
    refused = run("doctor", *arguments, cwd=tmp_path)
    assert (refused.returncode, refused.stderr.splitlines()[0]) == (2, line)


def test_the_lake_is_examined(tmp_path: Path) -> None:
    """A lake with a living and a dead recorder, a lake that is a file, and a newer one are told apart."""
    root = tmp_path / "lake"
    LakeStore.create(str(root), "test")
    living, dead = LivingRecorder(root, "living"), LivingRecorder(root, "dead")
    dead.journal.commit([stream_candle()])
    levels = {each.check: each for each in check_lake(str(root))}
    assert [each.level for each in levels.values()] == ["ok"] * len(levels), levels
    assert levels["recorders"].what.startswith("2 at work")
    dead.die()
    recorders = next(each for each in check_lake(str(root)) if each.check == "recorders")
    assert recorders.level == "warn" and "1 at work; 1 dead left " in recorders.what
    assert recorders.advice.startswith(f"lakewriter flush --lake {root}")
    found = leftovers(root)
    assert found.living == (living.journal.directory.name,) and found.dead == (dead.journal.directory.name,)
    living.die()
    (tmp_path / "file").write_text("mine")
    assert [each.level for each in check_lake(str(tmp_path / "file"))] == ["fail"]
    (root / "_lakewriter/lake.json").write_text('{"format_version": 99}')
    [newer] = check_lake(str(root))
    assert newer.level == "fail" and newer.advice == "pip install --upgrade lakewriter"
    assert not list(root.rglob("*probe*"))


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")
def test_a_read_only_place_fails(tmp_path: Path) -> None:
    """A place where no file can be written fails the check of writes, with the reason."""
    findings = {each.check: each for each in check_lake("/proc/nowhere/lake")}
    assert findings["writes"].level == "fail" and "/proc: " in findings["writes"].what, findings


def test_locks_exclude_here(tmp_path: Path) -> None:
    """On this file system locks exclude, and no file of the check remains."""
    check_locks(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_open_files_are_counted() -> None:
    """Below the need the check fails with a limit that suffices; an unlimited process passes."""
    few = check_open_files(400, (256, 4096))
    assert few.level == "fail" and "256 allowed, about 928 needed for 400 connections" in few.what
    assert "ulimit -n 1856" in few.advice and "hard limit" not in few.advice
    assert "the hard limit is 512" in check_open_files(400, (256, 512)).advice
    assert check_open_files(1, (2 + FILES_SPARE, 2 + FILES_SPARE)).level == "ok"
    assert check_open_files(10**6, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)).level == "ok"


def test_a_named_symbol_is_probed() -> None:
    """The first symbol that is named in full is probed; for globs alone it is a well-known one."""
    wanted = [*map(parse_subscription, ("spot:*USDT:1m", "usdt_futures:*,ETHUSDT:1m"))]
    assert probed_symbols(wanted) == {"spot": "BTCUSDT", "usdt_futures": "ETHUSDT"}
