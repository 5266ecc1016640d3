"""`lakewriter record`: wrong usage, stops, and log lines."""

import asyncio
import contextlib
import os
import pty
import re
import signal
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from lakewriter.interval import MINUTE_MS
from lakewriter.lake.format import FORMAT_VERSION
from lakewriter.lake.unflushed import read_unflushed
from lakewriter.sandbox import Fault, SandboxOptions, serve
from support.running import PATIENCE_S, child, plain_rows, run, run_here, until

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["forex:BTCUSDT:1m"], "lakewriter: market: 'forex' is unknown"),
        (["spot:BTCUSDT:7m"], "lakewriter: interval: '7m' is unknown"),
        (["usdt_futures:BTCUSDT:1s"], "lakewriter: interval: usdt_futures has no 1s candles"),
        (["spot:BTCUSDT"], "lakewriter: subscription: 'spot:BTCUSDT' is not MARKET:SYMBOLS:INTERVALS"),
        (["spot:../etc:1m"], "lakewriter: symbol: '../etc' cannot be a symbol"),
        (["spot:,:1m"], "lakewriter: subscription: 'spot:,:1m' names no symbol or no interval"),
        (["spot:A:1m", "--flush-every", "soon"], "lakewriter: duration: 'soon' is not a duration"),
        (["spot:A:1m", "--duration", "0s"], "lakewriter: duration: '0s' is not between 1ms and 366d"),
        (
            ["spot:A:1m", "--exchange", "nowhere"],
            "lakewriter: exchange: 'nowhere' is not an http:// or https:// URL",
        ),
        *(
            (
                ["spot:A:1m", "--exchange", url],
                f"lakewriter: exchange: {url.replace('user:p', '…')!r} is not an http:// or https:// URL",
            )
            for url in (
                "http://[::1",
                "http://127.0.0.1:99999",
                "http://127.0.0.1:abc",
                "http://a..b:80",
                "http://" + "x" * 300,
                "http://127.0.0.1:1?x=1",
                "http://exa mple:1",
                "http://user:p@127.0.0.1",
            )
        ),
        (["spot:A:1m", "--duration", ""], "lakewriter: duration: '' is not a duration"),
        (["spot:A:1m", "--flush-every", ""], "lakewriter: duration: '' is not a duration"),
        (["spot:A:1m", "--lake", ""], "lakewriter: --lake: is empty"),
        (["--config", "absent.toml"], "lakewriter: absent.toml: No such file or directory"),
        ([], "lakewriter: record: nothing to record, and no lakewriter.toml here"),
    ],
)
def test_a_mistake_gets_one_clear_line(arguments: list[str], line: str, tmp_path: Path) -> None:
    """A wrong argument is refused in one line with exit 2, and creates no lake."""
    refused = run_here("record", *arguments, cwd=tmp_path)
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[0] == line
    assert "Traceback" not in refused.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_config_whose_path_is_not_utf8_is_refused(tmp_path: Path) -> None:
    """The path names the recorder in the lake's files; the refusal creates no lake."""
    config = tmp_path / os.fsdecode(b"caf\xe9.toml")
    config.write_text('subscriptions = ["spot:BTCUSDT:1m"]')
    refused = run_here("record", "--config", str(config), "--exchange", "http://127.0.0.1:9", cwd=tmp_path)
    assert refused.returncode == 2
    assert refused.stderr.splitlines() == [
        f"lakewriter: config: '{tmp_path}/caf\\udce9.toml' is not UTF-8",
        "  give a file whose path is UTF-8",
    ]
    assert list(tmp_path.iterdir()) == [config]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("lake = ", "lakewriter: lakewriter.toml: not TOML: Invalid value (at end of document)"),
        ("tomatoes = 1", "lakewriter: lakewriter.toml: Object contains unknown field `tomatoes`"),
        ('subscriptions = ["spot:A"]', "lakewriter: lakewriter.toml: subscription: 'spot:A' is not MARKET:SYMBOLS:INTERVALS"),
        ("flush_every = 5", "lakewriter: lakewriter.toml: Expected `str`, got `int` - at `$.flush_every`"),
        ('lake = "x"', "lakewriter: lakewriter.toml: has no subscriptions"),
        ('[markets.spot]\nstream_url = "x"', "lakewriter: lakewriter.toml: markets.spot.stream_url: 'x' is not a ws(s):// URL"),
    ],
)  # fmt: skip
def test_a_wrong_config_is_named(text: str, line: str, tmp_path: Path) -> None:
    """An error in lakewriter.toml is one line with the file's name, and exit 2."""
    (tmp_path / "lakewriter.toml").write_text(text)
    refused = run_here("record", cwd=tmp_path)
    assert (refused.returncode, refused.stderr.splitlines()[0]) == (2, line)


def test_a_lake_that_is_a_file_is_refused(tmp_path: Path) -> None:
    """If the lake is a file, each command prints one line and exits 1; the file stays."""
    (tmp_path / "f").write_text("mine")
    for arguments in (["record", "spot:BTCUSDT:1m"], ["compact"], ["query", "SELECT 1"]):
        refused = run_here(*arguments, "--lake", "f", cwd=tmp_path)
        assert refused.returncode == 1
        assert refused.stderr.splitlines()[0] == "lakewriter: lake: f is a file, not a directory"
    assert (tmp_path / "f").read_text() == "mine"


def test_a_lake_of_a_newer_format_is_refused(tmp_path: Path) -> None:
    """A lake of a later version is not changed, and the line has the remedy."""
    (tmp_path / "data/_lakewriter").mkdir(parents=True)
    (tmp_path / "data/_lakewriter/lake.json").write_text('{"format_version": 99, "more": []}')
    for arguments in (["record", "spot:BTCUSDT:1m"], ["compact"], ["query", "SELECT 1"]):
        refused = run_here(*arguments, cwd=tmp_path)
        assert refused.returncode == 1
        assert refused.stderr.splitlines() == [
            f"lakewriter: lake: {tmp_path.resolve()}/data has format 99, newer than {FORMAT_VERSION}",
            "  pip install --upgrade lakewriter",
        ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_cleanly(number: int, tmp_path: Path) -> None:
    """SIGINT and SIGTERM flush all candles, leave no journal, and exit 0."""
    lake = tmp_path / "lake"

    async def main() -> None:
        async with serve(SandboxOptions(speed=120)) as sandbox:
            arguments = [
                "record",
                "--log-candles",
                "spot:BTCUSDT:1m",
                "--exchange",
                sandbox.url,
                "--lake",
                str(lake),
            ]
            with child(tmp_path / "log", *arguments) as recorder:
                await until(lambda: recorder.logged().count("\nrecorded ") >= 5)
                assert await asyncio.to_thread(recorder.stop, number) == 0
                logged = recorder.logged().count("\nrecorded ")
        assert len(plain_rows(lake)) == logged
        assert [path.name for path in (lake / "_lakewriter/journal").iterdir()] == ["lock"]

    asyncio.run(main())


def test_a_recorder_does_not_import_pandas(tmp_path: Path) -> None:
    """Arrow's first array, in a flush, imports pandas otherwise: 50 MB of memory."""
    log = tmp_path / "log"

    async def main() -> None:
        async with serve(SandboxOptions(speed=120)) as sandbox:
            with log.open("wb") as stderr:
                recorder = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-X", "importtime", "-m", "lakewriter", "record", "spot:BTCUSDT:1m"),
                    *("--exchange", sandbox.url, "--lake", str(tmp_path / "lake"), "--flush-every", "1s"),
                    stderr=stderr,
                )
                try:
                    await until(lambda: " flushed " in log.read_text() or recorder.returncode is not None)
                finally:
                    with contextlib.suppress(ProcessLookupError):
                        recorder.terminate()
                    assert await recorder.wait() == 0

    asyncio.run(main())
    imported = {line.rpartition("|")[2].strip() for line in log.read_text().splitlines()}
    assert {"pyarrow", "pyarrow.parquet"} <= imported
    assert "pandas._libs" not in imported  # a failed import of pandas itself is listed too


def test_one_frame_from_ahead_is_no_candle(tmp_path: Path) -> None:
    """A frame from a year ahead is logged and causes no gap, and the real candle is healed."""
    lake = tmp_path / "lake"

    async def main() -> None:
        async with serve(SandboxOptions(speed=60)) as sandbox:
            arguments = [
                "record",
                "--log-candles",
                "spot:BTCUSDT,ETHUSDT:1m",
                "--exchange",
                sandbox.url,
                "--lake",
                str(lake),
            ]
            with child(tmp_path / "log", *arguments, "--grace", "20s") as recorder:
                await until(lambda: recorder.logged().count("recorded spot BTCUSDT") >= 1)
                at_ms = sandbox.now_ms() // MINUTE_MS * MINUTE_MS + 2 * MINUTE_MS
                year_s = 365 * 86_400
                sandbox.add_fault(
                    Fault("close_ahead", "spot", ("BTCUSDT",), "", at_ms, at_ms + 30_000, year_s)
                )
                await until(lambda: healed(at_ms))
                assert await asyncio.to_thread(recorder.stop) == 0
            begins = [row[3] for row in plain_rows(lake) if row[1] == "BTCUSDT"]
            assert begins == list(range(begins[0], begins[-1] + MINUTE_MS, MINUTE_MS))
            assert begins[-1] < sandbox.now_ms()
        assert recorder.logged().count("dropped a bad frame (ahead, 1 so far): spot BTCUSDT 1m") == 1
        assert re.search(r"fresh: 1 candles healed: half durable \d{2,6} ms", recorder.logged())
        assert run("gaps", "--lake", str(lake)).stdout.startswith("no gaps")

    def healed(at_ms: int) -> bool:
        found = read_unflushed(lake)
        return any(each.begin_ms == at_ms - MINUTE_MS and each.source == "rest" for each in found)

    asyncio.run(main())


def test_a_config_file_says_it_all(tmp_path: Path) -> None:
    """Without arguments, lakewriter.toml of the working directory sets everything, also single endpoints."""

    async def main() -> None:
        async with serve(SandboxOptions(speed=120)) as sandbox:
            ws_url = sandbox.url.replace("http", "ws")
            (tmp_path / "lakewriter.toml").write_text(
                f"""
                lake = "here"
                subscriptions = ["spot:BTCUSDT:1m", "coin_futures:BTCUSD_PERP:1m"]
                flush_every = "1s"
                [markets.spot]
                stream_url = "{ws_url}/spot/"
                rest_url = "{sandbox.url}/spot"
                [markets.coin_futures]
                stream_url = "{ws_url}/coin_futures"
                rest_url = "{sandbox.url}/coin_futures"
                """
            )
            elsewhere = tmp_path / "elsewhere"
            elsewhere.mkdir()
            with child(tmp_path / "log", "record", "--log-candles", cwd=tmp_path) as recorder:
                for name in ("spot BTCUSDT", "coin_futures BTCUSD_PERP"):
                    await asyncio.to_thread(recorder.wait_for, f"\nrecorded {name} 1m")
                assert await asyncio.to_thread(recorder.stop) == 0
            again = ("record", "--duration", "100ms", "--config", "../lakewriter.toml")
            beside = await asyncio.to_thread(run, *again, cwd=elsewhere)
            assert f"into {tmp_path / 'here'}" in beside.stderr and not list(elsewhere.iterdir())
        assert {row[0] for row in plain_rows(tmp_path / "here")} == {"spot", "coin_futures"}

    asyncio.run(main())


def test_a_corrupt_partition_keeps_its_candles_in_the_journal(tmp_path: Path) -> None:
    """An unreadable file is named and unchanged; its candles stay in the journal, all others are flushed."""
    lake = tmp_path / "lake"

    async def main() -> None:
        async with serve(SandboxOptions(speed=120, start_ms=1_719_741_600_000)) as sandbox:
            arguments = [
                "record",
                "--log-candles",
                "spot:BTCUSDT,ETHUSDT:1m",
                "--exchange",
                sandbox.url,
                "--lake",
                str(lake),
            ]
            corrupt = lake / "market=spot/symbol=BTCUSDT/interval=1m/date=2024-06-30/candles.parquet"
            corrupt.parent.mkdir(parents=True)
            corrupt.write_bytes(b"PAR1 not at all")
            with child(tmp_path / "log", *arguments, "--flush-every", "500ms") as recorder:
                await until(lambda: recorder.logged().count("stay in the journal") >= 2)
                assert await asyncio.to_thread(recorder.stop) == 1
            assert f"{corrupt}: not a readable Parquet file of candles" in recorder.logged()
            last = recorder.logged().splitlines()[-2:]
            assert "could not be flushed and stay in the journal" in last[0]
            assert corrupt.read_bytes() == b"PAR1 not at all"
            # One that came late was fetched, and then came all the same: it is one candle.
            told = re.compile(r"recorded spot BTCUSDT 1m (\S+ \S+) at ")
            kept = set(told.findall(recorder.logged()))
            corrupt.unlink()
            with child(tmp_path / "log2", *arguments) as recorder:
                await until(lambda: recorder.logged().count("\nrecorded ") >= 2)
                assert await asyncio.to_thread(recorder.stop) == 0
            kept |= set(told.findall(recorder.logged()))
            assert pq.ParquetFile(corrupt).metadata.num_rows == len(kept)

    asyncio.run(main())


def test_an_unlisted_symbol_is_recorded_with_a_warning(tmp_path: Path) -> None:
    """A symbol that the exchange does not list is subscribed to, with a warning."""

    async def main() -> None:
        async with serve(SandboxOptions(speed=60)) as sandbox:
            arguments = ["record", "--log-candles", "spot:NOSUCHUSDT,BTCUSDT:1m", "--exchange", sandbox.url]
            with child(tmp_path / "log", *arguments, "--lake", str(tmp_path / "lake")) as recorder:
                await asyncio.to_thread(recorder.wait_for, "spot does not list NOSUCHUSDT")
                await asyncio.to_thread(recorder.wait_for, "recorded spot BTCUSDT")
                assert await asyncio.to_thread(recorder.stop) == 0

    asyncio.run(main())


def test_a_glob_that_matches_nothing_is_an_error(tmp_path: Path) -> None:
    """A glob without a match exits 2, and the line has the glob and the market."""

    async def main() -> None:
        async with serve(SandboxOptions()) as sandbox:
            refused = await asyncio.to_thread(
                run, "record", "spot:*NOSUCH:1m", "--exchange", sandbox.url, "--lake", str(tmp_path / "lake")
            )
        assert refused.returncode == 2
        assert "symbol: '*NOSUCH' matches nothing that is listed on spot" in refused.stderr

    asyncio.run(main())


def test_a_recorder_waits_until_a_symbol_trades(tmp_path: Path) -> None:
    """A recorder of a market without a trading symbol records the first one that trades."""

    config = tmp_path / "some.toml"
    config.write_text('subscriptions = ["spot:*:1m"]\nuniverse_every = "2s"\n')

    async def main() -> None:
        async with serve(SandboxOptions(speed=60, symbols=2)) as sandbox:
            listed_ms = sandbox.now_ms() + 10 * MINUTE_MS
            for symbol in sandbox.symbols("spot"):
                sandbox.add_fault(Fault("new_listing", "spot", (symbol,), start_ms=listed_ms))
            arguments = ["record", "--log-candles", "--config", str(config), "--exchange", sandbox.url]
            with child(tmp_path / "log", *arguments, "--lake", str(tmp_path / "lake")) as recorder:
                await asyncio.to_thread(recorder.wait_for, "matches nothing that trades")
                await asyncio.to_thread(recorder.wait_for, "recorded spot")
                assert await asyncio.to_thread(recorder.stop) == 0

    asyncio.run(main())


def test_sighup_reads_the_config_again(tmp_path: Path) -> None:
    """SIGHUP adds and removes series by the config; an invalid config changes nothing."""

    async def main() -> None:
        async with serve(SandboxOptions(speed=60)) as sandbox:
            config = tmp_path / "some.toml"
            config.write_text('subscriptions = ["spot:BTCUSDT,ETHUSDT:1m"]')
            arguments = (
                "record",
                "--log-candles",
                "--config",
                str(config),
                "--exchange",
                sandbox.url,
                "--lake",
                str(tmp_path / "lake"),
            )
            with child(tmp_path / "log", *arguments) as recorder:
                await asyncio.to_thread(recorder.wait_for, "recorded spot BTCUSDT 1m")
                config.write_text('subscriptions = ["spot:BTCUSDT"]')
                recorder.process.send_signal(signal.SIGHUP)
                await asyncio.to_thread(
                    recorder.wait_for, "SIGHUP: nothing is changed: .*is not MARKET:SYMBOLS"
                )
                assert "restart" not in recorder.logged()
                config.write_text(
                    'flush_every = "1s"\nsubscriptions = ["spot:BTCUSDT:1m", "coin_futures:BTCUSD_PERP:1m"]'
                )
                recorder.process.send_signal(signal.SIGHUP)
                await asyncio.to_thread(recorder.wait_for, "SIGHUP: .*other changes need a restart")
                await asyncio.to_thread(recorder.wait_for, "SIGHUP: recording 2 series now")
                await asyncio.to_thread(recorder.wait_for, "recorded coin_futures BTCUSD_PERP 1m")
                after = len(recorder.logged())
                await asyncio.to_thread(
                    recorder.wait_for, "(?s)recorded spot BTCUSDT.*recorded spot BTCUSDT", after
                )
                assert "ETHUSDT" not in recorder.logged()[after:]
                assert "connection ended" not in recorder.logged()
                assert await asyncio.to_thread(recorder.stop) == 0

    asyncio.run(main())


def test_sighup_without_a_config_is_said(tmp_path: Path) -> None:
    """Without a config SIGHUP changes nothing, is logged, and does not end the recorder."""

    async def main() -> None:
        async with serve(SandboxOptions(speed=60)) as sandbox:
            arguments = (
                "record",
                "--log-candles",
                "spot:BTCUSDT:1m",
                "--exchange",
                sandbox.url,
                "--lake",
                str(tmp_path / "lake"),
            )
            with child(tmp_path / "log", *arguments) as recorder:
                await asyncio.to_thread(recorder.wait_for, "recorded spot BTCUSDT 1m")
                recorder.process.send_signal(signal.SIGHUP)
                await asyncio.to_thread(recorder.wait_for, "SIGHUP: the command line names the subscriptions")
                assert await asyncio.to_thread(recorder.stop) == 0

    asyncio.run(main())


def test_a_terminal_that_goes_away_stops_the_recorder_cleanly(tmp_path: Path) -> None:
    """A closed terminal stops the recorder, which flushes everything."""

    async def main() -> None:
        async with serve(SandboxOptions(speed=60)) as sandbox:
            lake = tmp_path / "lake"
            pid, terminal = pty.fork()
            if pid == 0:
                command = ("record", "spot:BTCUSDT:1m", "--exchange", sandbox.url, "--lake", str(lake))
                os.execv(sys.executable, [sys.executable, "-m", "lakewriter", *command])
            try:
                drained = asyncio.create_task(asyncio.to_thread(drain, terminal, b"recorded 3"))
                await asyncio.wait_for(drained, PATIENCE_S)
                os.close(terminal)
                await until(lambda: os.waitid(os.P_PID, pid, ENDED) is not None)
            finally:
                os.kill(pid, signal.SIGKILL)
                _, status = await asyncio.to_thread(os.waitpid, pid, 0)
            assert os.WIFEXITED(status), status
            assert len(plain_rows(lake)) >= 3

    asyncio.run(main())


def test_a_recorder_in_the_background_leaves_the_prompt_alone(tmp_path: Path) -> None:
    """`lakewriter record … &` in a shell logs, and draws no progress line over the shell's prompt."""

    async def main() -> None:
        async with serve(SandboxOptions(speed=60)) as sandbox:
            command = f"record spot:BTCUSDT:1m --exchange {sandbox.url} --lake {tmp_path / 'lake'}"
            python = f"{sys.executable} -m lakewriter {command}"
            shown = {}
            for name, end in (("behind", "& wait"), ("before", "")):
                shell = f"{python} --duration 3s {end}"
                shown[name] = await asyncio.to_thread(on_terminal, ["bash", "-m", "-c", shell])
            assert "stopped: " in shown["behind"] and "stopped: " in shown["before"]
            assert "series on 1 connections" in shown["before"]
            assert "series on 1 connections" not in shown["behind"]

    asyncio.run(main())


def on_terminal(command: list[str]) -> str:
    """Run a command on a terminal of its own, and return all that it shows."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvp(command[0], command)
    shown = b""
    with contextlib.suppress(OSError):  # the other end is closed
        while part := os.read(terminal, 65536):
            shown += part
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, shown
    return shown.decode()


# Look whether a child has ended, and leave it to be waited for.
ENDED = os.WEXITED | os.WNOHANG | os.WNOWAIT


def drain(terminal: int, until: bytes) -> None:
    """Read a terminal until a text has appeared."""
    shown = b""
    while until not in shown:
        shown = (shown + os.read(terminal, 4096))[-10_000:]
