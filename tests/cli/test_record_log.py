"""The log of `lakewriter record`: summaries, JSON, and lines of single candles only on request."""

import asyncio
import json
import logging
import os
import pty
import re
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from lakewriter.cli.json_log import JsonFormatter
from lakewriter.recording.histogram import Histogram
from lakewriter.sandbox import SandboxOptions, serve
from support.running import PATIENCE_S, child, plain_rows, run, until

pytestmark = pytest.mark.slow


def config_of(directory: Path, exchange: str, more: str = "") -> Path:
    """Write a config with two series, and return its path."""
    path = directory / "lakewriter.toml"
    path.write_text(
        f'lake = "lake"\nsubscriptions = ["spot:BTCUSDT,ETHUSDT:1m"]\nexchange = "{exchange}"\n{more}'
    )
    return path


def lines(logged: str) -> list[dict[str, object]]:
    """Parse a log of which each line must be a JSON object."""
    return [json.loads(line) for line in logged.splitlines()]


def test_summaries_replace_the_lines_of_candles(tmp_path: Path) -> None:
    """Without a request no candle has a line; each period has a summary, and its counts add up to the rows."""

    async def main() -> None:
        async with serve(SandboxOptions(speed=120)) as sandbox:
            config = config_of(tmp_path, sandbox.url, 'summary_every = "1s"')
            with child(tmp_path / "log", "record", "--config", str(config)) as recorder:
                await until(
                    lambda: (
                        len(re.findall(r"INFO summary of .* [1-9]\d* candles rec", recorder.logged())) >= 2
                    )
                )
                assert await asyncio.to_thread(recorder.stop) == 0
        logged = recorder.logged()
        assert "recorded spot" not in logged
        counts = [int(found) for found in re.findall(r"summary of \S+ min: (\d+) candles recorded", logged)]
        assert sum(counts) <= len(plain_rows(tmp_path / "lake"))
        assert "; 2 series on 1 connections; 99% durable within " in logged
        assert re.search(r"; \d+\.\d GB free$", logged, re.MULTILINE)

    asyncio.run(main())


def test_each_line_is_a_json_object(tmp_path: Path) -> None:
    """With JSON and candles each row of the lake has its object, and other objects have their numbers."""

    async def main() -> None:
        async with serve(SandboxOptions(speed=120)) as sandbox:
            config = config_of(
                tmp_path, sandbox.url, 'log_format = "json"\nlog_candles = true\nsummary_every = "1s"'
            )
            with child(tmp_path / "log", "record", "--config", str(config)) as recorder:
                await until(lambda: recorder.logged().count('"message":"recorded ') >= 4)
                await until(lambda: '"message":"summary of ' in recorder.logged())
                assert await asyncio.to_thread(recorder.stop) == 0
        objects = lines(recorder.logged())
        for each in objects:
            assert datetime.fromisoformat(str(each["time"])).utcoffset() is not None
            assert {"level", "logger", "message"} <= each.keys()
        candles = {
            (each["market"], each["symbol"], each["interval"], int(datetime.fromisoformat(str(each["candle_begin_time"])).timestamp() * 1000))
            for each in objects
            if each["logger"] == "lakewriter.recorded"
        }  # fmt: skip
        assert candles == set(plain_rows(tmp_path / "lake"))
        [stopped] = [each for each in objects if "flushed" in each and each["logger"].endswith("record")]  # type: ignore[attr-defined]
        assert (stopped["recorded"], stopped["flushed"]) == (len(candles), len(candles))
        summary = next(each for each in objects if "durable_ms_99" in each)
        assert summary["series"] == 2 and isinstance(summary["free_bytes"], int)

    asyncio.run(main())


def test_an_error_at_the_start_is_an_object(tmp_path: Path) -> None:
    """A fault that ends the recorder is one object, with its hint and exit code; the option wins over the config."""
    (tmp_path / "f").write_text("mine")
    refused = run("record", "spot:BTCUSDT:1m", "--lake", "f", "--log-format", "json", cwd=tmp_path)
    [error] = lines(refused.stderr)
    assert (error["level"], error["message"], error["exit_code"]) == (
        "ERROR",
        "lake: f is a file, not a directory",
        refused.returncode,
    )
    nothing = run("record", "--log-format", "json", cwd=tmp_path)
    [error] = lines(nothing.stderr)
    assert nothing.returncode == error["exit_code"] == 2 and "lakewriter init" in str(error["hint"])
    wrong = run("record", "spot:BTCUSDT:1m", "--log-format", "xml", cwd=tmp_path)
    assert wrong.returncode == 2 and "'xml' is not one of 'text', 'json'" in wrong.stderr
    (tmp_path / "lakewriter.toml").write_text('log_format = "xml"')
    wrong = run("record", cwd=tmp_path)
    assert wrong.stderr == "lakewriter: lakewriter.toml: log_format: 'xml' is not one of text, json\n"


def test_a_terminal_shows_candles_if_asked(tmp_path: Path) -> None:
    """On a terminal the progress line counts; with --log-candles the candles have lines above it."""

    async def main() -> None:
        async with serve(SandboxOptions(speed=120)) as sandbox:
            for flags, sign in (((), b"recorded 3"), (("--log-candles",), b"recorded spot BTCUSDT 1m")):
                shown = await asyncio.to_thread(on_terminal, sign, config_of(tmp_path, sandbox.url), *flags)
                assert (b"recorded spot" in shown) == bool(flags)

    asyncio.run(main())


def on_terminal(sign: bytes, config: Path, *flags: str) -> bytes:
    """Record on a terminal until a text is shown; return all that was shown."""
    parent, terminal = pty.openpty()
    command = [sys.executable, "-m", "lakewriter", "record", "--config", str(config), *flags]
    recorder = subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, cwd=config.parent)
    os.close(terminal)
    shown = b""
    try:
        while sign not in shown:
            shown += os.read(parent, 4096)
        recorder.send_signal(signal.SIGTERM)
        while recorder.poll() is None:
            try:
                shown += os.read(parent, 4096)
            except OSError:
                recorder.wait(PATIENCE_S)
    finally:
        recorder.kill()
        recorder.wait()
        os.close(parent)
    return shown


def test_passwords_and_control_characters_stay_out_of_json() -> None:
    """Messages, fields and tracebacks have no password of a URL and no control character."""
    try:
        raise ValueError("http://user:secret@host/")
    except ValueError as error:
        record = logging.LogRecord(
            "lakewriter.x", logging.ERROR, "", 1, "%(url)s: \x1b[31m", ({"url": "http://user:secret@host/", "time": 5},),
            (type(error), error, error.__traceback__),
        )  # fmt: skip
    line = JsonFormatter().format(record)
    assert "secret" not in line and "\x1b" not in line and "\\u001b[" not in line.replace("\\\\u001b", "")
    found = json.loads(line)
    assert found["message"] == "http://…@host/: \\u001b[31m" and found["time"] != 5
    assert found["traceback"].splitlines()[-1] == "ValueError: http://…@host/"


def test_a_histogram_knows_its_latest_values() -> None:
    """The difference of two moments has only the values between them."""
    histogram = Histogram()
    for value in (5, 5, 900):
        histogram.add(value)
    before = histogram.copy()
    for value in (5, 7, 9):
        histogram.add(value)
    later = histogram.since(before)
    assert (later.count, later.at_most(0.5), later.at_most(1.0)) == (3, 7, 9)
    assert (before.count, before.most) == (3, 900)
    assert histogram.since(histogram.copy()).at_most(0.99) == 0
