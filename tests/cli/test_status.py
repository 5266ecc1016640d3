"""`lakewriter status`: the report, its width, its exit code, JSON, and `--watch`."""

import asyncio
import json
import os
import pty
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from lakewriter.cli.runs.status_report import attention_text, status_text
from lakewriter.lake.journal import create_journal
from lakewriter.query.output.text import text_width
from lakewriter.recording.status import FlushRecord, OverdueSeries
from lakewriter.sandbox.server import SandboxOptions, serve
from lakewriter.status.attention import attention
from lakewriter.status.facts import DiskState, LakeStatus
from lakewriter.status.open_gaps import OpenGaps
from lakewriter.status.recorders import RemoteRecorder, read_recorders
from support.candles import stream_candle
from support.lakes import make_lake
from support.living_recorder import kill_recorder
from support.piped import Piped
from support.running import PATIENCE_S, child, run, until
from support.side_by_side import side_by_side
from support.statuses import NOW_MS, a_lake_status, lake_size, recorder_facts, recorder_status
from support.terminals import on_terminal


def shown(status: LakeStatus, width: int = 80) -> str:
    """Return the report and what needs a person, as a terminal of a width shows them."""
    from rich.console import Console

    console = Console(width=width, highlight=False)
    with console.capture() as captured:
        console.print(status_text(status))
        console.print(attention_text(status.attention))
    return captured.get()


def dead_lake(root: Path) -> Path:
    """Create a lake with candles, and a dead recorder's journal of three candles."""
    make_lake(root, map(stream_candle, range(10)))
    journal = create_journal(root, "host-1")
    journal.commit(map(stream_candle, range(10, 13)))
    kill_recorder(journal)
    return root


def test_a_report_has_the_numbers() -> None:
    """The report names each number that an operator needs, once."""
    own = recorder_status(
        recorded=9_000,
        last_flush=FlushRecord(NOW_MS - 120_000, 15_012, 3_000, 1.25),
    )
    status = a_lake_status(
        recorder_facts(status=own),
        series=3_012,
        live_series=3_009,
        polled_series=2,
        silent_series=1,
        overdue_series=4,
        most_overdue=OverdueSeries("spot", "BTCUSDT", "1m", NOW_MS - 240_000, 180_000),
        lag_ms=412,
        candles_today=1_204_331,
        buffered=8_120,
        journal_bytes=3_600_000,
        last_flush=own.last_flush,
        clock_offset_ms=-20,
        gaps=OpenGaps(healing_candles=12, healing_series=3),
        size=lake_size(files=10_240, file_bytes=1_234_000_000, rows=14_234_567, rows_are_estimated=True),
        disk=DiskState(
            free_bytes=57 * 10**9,
            total_bytes=252 * 10**9,
            free_files=None,
            total_files=None,
            growth_bytes_a_day=140_000_000,
            growth_is_measured=True,
            days_until_full=407.1,
        ),
    )
    assert [line.rstrip() for line in shown(status).splitlines()] == [
        "lake       /srv/candles",
        "time       2026-11-30 12:00:00 UTC",
        "recorder   /etc/lakewriter.toml: recording for 60 min, process 812, 1 connection",
        "series     3,012: 3,009 live, 2 polled, 1 silent, 4 overdue",
        "           spot BTCUSDT 1m: 2026-11-30 11:56:00 is 3 min late",
        "lag        the newest candle was durable 412 ms after its end",
        "today      1,204,331 candles",
        "journal    8,120 candles to flush, 3.6 MB of journal",
        "flushed    2 min ago: 15,012 candles into 3,000 files in 1.2 s",
        "clock      0.02 s behind the exchange",
        "gaps       12 candles of 3 series being healed",
        "compacted  never",
        "size       1.2 GB: about 14,200,000 candles in 10,240 files of 2 series",
        "disk       57.0 GB of 252.0 GB free; full in 407 days at 140.0 MB a day",
        "nothing known needs you",
    ]


def test_a_report_has_the_recorders_of_other_hosts() -> None:
    """Each says when it was published; one that is silent for long is in red."""
    one = RemoteRecorder(
        host="db2-5a0c11f2",
        journal="db2-7-abc",
        state="recording",
        status=recorder_status(overdue_series=1),
        published_at_ms=NOW_MS - 12_000,
    )
    two = msgspec.structs.replace(one, host="db3-01020304", state="silent", published_at_ms=NOW_MS - 180_000)
    lines = [line.rstrip() for line in shown(a_lake_status(remote_recorders=(one, two))).splitlines()]
    assert lines[2:5] == [
        "recorder   none on this host",
        "elsewhere  db2-5a0c11f2: recording, 2 series, 1 overdue; published 12 s ago",
        "elsewhere  db3-01020304: silent for 3 min",
    ]


@pytest.mark.parametrize("width", [40, 80])
def test_a_report_fits_the_terminal(width: int) -> None:
    """Long names are wrapped; no line is wider than the terminal, and no markup is read from them."""
    own = recorder_status(recorder="/home/[bold]candles[/bold]/" + "very-long-name/" * 9 + "lakewriter.toml")
    status = a_lake_status(recorder_facts(status=own), recorder_facts("dead", status=own, journal_candles=5))
    status = msgspec.structs.replace(status, attention=attention(status, "/mnt/" + "candles" * 20))
    text = shown(status, width)
    assert max(text_width(line) for line in text.splitlines()) <= width
    assert "[bold]" in text


def test_a_lake_without_a_recorder_is_exit_0(tmp_path: Path) -> None:
    """The report of a lake that nothing records, in a pipe: no error, no trailing spaces, no colours."""
    make_lake(tmp_path, map(stream_candle, range(10)))
    done = run("status", "--lake", str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert "recorder   none on this host\n" in done.stdout
    assert "10 candles in 1 file of 1 series\n" in done.stdout
    assert "gaps       none open in the ledgers\n" in done.stdout
    assert done.stdout.endswith("\nnothing known needs you\n")
    assert all(line == line.rstrip() and len(line) <= 80 for line in done.stdout.splitlines())
    assert "\x1b" not in done.stdout


def test_what_needs_a_person_is_exit_1(tmp_path: Path) -> None:
    """Standard error has the sentence and the command; the command mends it."""
    dead_lake(tmp_path)
    done = run("status", "--lake", str(tmp_path))
    assert done.returncode == 1
    journal = next(tmp_path.glob("_lakewriter/journal/host-1-*")).name
    assert done.stderr.splitlines() == [
        f"lakewriter: the recorder {journal} died; 3 candles of its journal are not in the lake's files yet",
        f"  lakewriter flush --lake {tmp_path}",
    ]
    assert f"{journal}: dead for " in done.stdout
    assert "nothing known needs you" not in done.stdout
    assert run(*done.stderr.split()[-4:][1:]).returncode == 0
    assert run("status", "--lake", str(tmp_path)).returncode == 0


def test_json_is_one_object_with_the_findings(tmp_path: Path) -> None:
    """`--json` prints the whole status in one line, and exits as the report does."""
    dead_lake(tmp_path)
    done = run("status", "--json", "--lake", str(tmp_path))
    assert done.returncode == 1
    (line,) = done.stdout.splitlines()
    status = msgspec.json.decode(line, type=LakeStatus)
    assert [each.kind for each in status.attention] == ["dead_recorder"]
    assert (status.size.rows, status.buffered) == (10, 3)
    assert json.loads(line)["recorders"][0]["state"] == "dead"


def test_a_compaction_is_shown(tmp_path: Path) -> None:
    """After `lakewriter compact`, the report says when and what; a dry run leaves no record."""
    make_lake(tmp_path, map(stream_candle, range(10)))
    assert run("compact", "--dry-run", "--lake", str(tmp_path)).returncode == 0
    assert "compacted  never\n" in run("status", "--lake", str(tmp_path)).stdout
    assert run("compact", "--lake", str(tmp_path)).returncode == 0
    assert " ago: 0 of 1 partition rewritten in " in run("status", "--lake", str(tmp_path)).stdout


def test_a_wrong_lake_is_one_line(tmp_path: Path) -> None:
    """A lake that does not exist is an error with a hint."""
    done = run("status", "--lake", str(tmp_path / "none"))
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.splitlines()[0] == f"lakewriter: lake: {tmp_path}/none does not exist"


def test_watch_needs_a_terminal(tmp_path: Path) -> None:
    """`--watch` in a pipe names the option that works there."""
    make_lake(tmp_path)
    done = run("status", "--watch", "--lake", str(tmp_path))
    assert done.returncode == 2
    assert "--watch --json" in done.stderr


def test_findings_follow_the_report_on_a_terminal(tmp_path: Path) -> None:
    """On a terminal of 80 columns each line of the report fits."""
    dead_lake(tmp_path)
    code, text = on_terminal("status", "--lake", str(tmp_path), TERM="dumb")
    assert code == 1
    report, _, findings = text.partition("lakewriter: ")
    assert all(text_width(line) <= 80 for line in report.splitlines())
    assert "lakewriter flush" in findings


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[tuple["subprocess.Popen[bytes]", int]]:
    """A `status --watch` on a terminal of 80 columns, and the other end of the terminal."""
    dead_lake(tmp_path)
    parent, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 80))
    command = [sys.executable, "-m", "lakewriter", "status", "--watch", "--lake", str(tmp_path)]
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
    process = subprocess.Popen(
        command, stdin=terminal, stdout=terminal, stderr=terminal, env=environment, start_new_session=True
    )
    os.close(terminal)
    yield process, parent
    process.kill()
    process.wait()
    os.close(parent)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_watch_refreshes_until_it_is_stopped(
    watched: "tuple[subprocess.Popen[bytes], int]", number: signal.Signals
) -> None:
    """The report is drawn again in place; a signal ends it without a traceback, and shows the cursor again."""
    process, parent = watched
    text = b""
    while text.count(b"UTC") < 2:
        text += os.read(parent, 65536)
    assert b"\x1b[1A" in text  # the cursor moves up
    process.send_signal(number)
    try:
        while part := os.read(parent, 65536):
            text += part
    except OSError:
        pass  # the other end closed
    assert process.wait(PATIENCE_S) == 1
    assert text.rindex(b"\x1b[?25h") > text.rindex(b"\x1b[?25l")
    assert b"Traceback" not in text
    assert b"the recorder host-1-" in text


@pytest.mark.slow
def test_watch_prints_an_object_a_refresh(tmp_path: Path) -> None:
    """`--watch --json` prints one line a refresh, and ends when its reader does."""
    make_lake(tmp_path, map(stream_candle, range(10)))
    with Piped("status", "--watch", "--json", "--lake", str(tmp_path)) as process:
        times = [json.loads(process.stdout.readline())["at_ms"] for _ in range(2)]
        assert times[0] < times[1]
        process.stdout.close()
        assert process.wait(PATIENCE_S) == 0
        assert process.stderr.read() == b""


@pytest.mark.slow
@side_by_side
async def test_a_recorder_is_reported(tmp_path: Path) -> None:
    """The command sees a recorder of another process; after its clean stop there is none."""
    lake = tmp_path / "lake"
    async with serve(SandboxOptions(speed=60, symbols=10)) as sandbox:
        arguments = ["record", "spot:BTCUSDT:1m", "--exchange", sandbox.url, "--lake", str(lake)]
        with child(tmp_path / "log", *arguments) as recorder:
            await until(
                lambda: (
                    lake.exists()
                    and any((fact.status and fact.status.recorded > 1) for fact in read_recorders(lake))
                )
            )
            done = await asyncio.to_thread(run, "status", "--lake", str(lake))
            assert done.returncode == 0, done.stderr
            assert ": recording for " in done.stdout
            assert "series     1: 1 live, 0 polled, 0 silent, 0 overdue\n" in done.stdout
            assert await asyncio.to_thread(recorder.stop) == 0
        done = await asyncio.to_thread(run, "status", "--lake", str(lake))
        assert (done.returncode, done.stderr) == (0, "")
        assert "recorder   none on this host; 1 subscribed series is not recorded\n" in done.stdout
