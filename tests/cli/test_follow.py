"""`lakewriter follow`: lines for programs, words for people, and a place to go on from."""

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from lakewriter.lake.journal import Journal, create_journal
from support.candles import stream_candle
from support.full_disk import full_disk
from support.lakes import make_lake
from support.piped import Piped
from support.running import run, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    make_lake(tmp_path / "data", [stream_candle(minute) for minute in (0, 1)])
    with contextlib.closing(create_journal(tmp_path / "data", "test")) as journal:
        yield journal


class Follow:
    """A running `lakewriter follow`, with its stdout in a pipe and its stderr in a file."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self._err = directory / "err"
        with self._err.open("wb") as stderr:
            self.process = Piped("follow", *arguments, cwd=directory, stderr=stderr.fileno())

    def said(self) -> str:
        return self._err.read_text()

    def line(self) -> dict[str, object]:
        line: dict[str, object] = json.loads(self.process.stdout.readline())
        return line


@contextlib.contextmanager
def follow(directory: Path, *arguments: str) -> Iterator[Follow]:
    running = Follow(directory, *arguments)
    with running.process:
        try:
            yield running
        finally:
            running.process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_lines_come_until_a_signal(tmp_path: Path, journal: Journal, number: int) -> None:
    """Each candle is a line at once; a signal ends it with exit 0 and a count."""
    with follow(tmp_path, "spot:BTCUSDT:1m", "--since", "2024-06-30") as running:
        assert [running.line()["candle_begin_time"] for _ in range(2)] == ["2024-06-30T00:00:00Z", "2024-06-30T00:01:00Z"]  # fmt: skip
        journal.commit([stream_candle(5)])
        assert running.line()["candle_begin_time"] == "2024-06-30T00:05:00Z"
        journal.commit([stream_candle(4)])
        assert running.line()["late"] is True
        running.process.send_signal(number)
        assert running.process.wait(60) == 0
    assert "4 candles followed, 1 of them late; 0 corrections" in running.said()
    assert "Traceback" not in running.said()


def test_a_reader_that_goes_away_ends_it(tmp_path: Path, journal: Journal) -> None:
    """`| head -2` ends a follower, also while no candle comes."""
    with follow(tmp_path, "spot:BTCUSDT:1m", "--since", "2024-06-30") as running:
        running.line()
        running.line()
        running.process.stdout.close()
        assert running.process.wait(60) == 0
    assert "Traceback" not in running.said()


def test_a_reader_that_does_not_read_stops_nothing(tmp_path: Path, journal: Journal) -> None:
    """A follower whose reader sleeps waits; the recorder commits on, and a signal still ends the follower."""
    with follow(tmp_path, "spot:BTCUSDT:1m", "--since", "2024-06-30") as running:
        running.line()
        for first in range(0, 1400, 50):
            journal.commit([stream_candle(minute) for minute in range(first, first + 50)])
        assert running.process.poll() is None
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(60) == 0
        rest = running.process.stdout.read()
    assert rest.endswith(b"}\n")
    assert all(json.loads(line) for line in rest.splitlines())


def test_it_waits_for_a_lake_and_a_recorder(tmp_path: Path) -> None:
    """Without a lake it says so in one line, waits, and follows the lake that comes."""
    with follow(tmp_path, "spot:BTCUSDT:1m") as running:
        wait_until(lambda: running.said().count("\n") == 1)
        assert f"no lake at {tmp_path / 'data'} yet; waiting for one" in running.said()
        make_lake(tmp_path / "data")
        wait_until(lambda: "no recorder writes into" in running.said())
        with contextlib.closing(create_journal(tmp_path / "data", "test")) as journal:
            journal.commit([stream_candle(7)])
            assert running.line()["candle_begin_time"] == "2024-06-30T00:07:00Z"
            wait_until(lambda: "a recorder writes into" in running.said())
        wait_until(lambda: running.said().count("no recorder writes into") == 2)


def test_a_file_goes_on_where_it_was(tmp_path: Path, journal: Journal) -> None:
    """After a kill the file is cut at its last whole line, and goes on; nothing is there twice."""
    out, place = tmp_path / "out.ndjson", tmp_path / "place.json"
    arguments = ("spot:BTCUSDT:1m", "--since", "2024-06-30", "-o", str(out), "--resume", str(place))
    with follow(tmp_path, *arguments) as running:
        wait_until(lambda: out.exists() and out.read_bytes().count(b"\n") == 2)
        journal.commit([stream_candle(2)])
        wait_until(lambda: out.read_bytes().count(b"\n") == 3)
        refused = run("follow", *arguments, cwd=tmp_path)
        assert refused.returncode == 2 and "another follower writes into it" in refused.stderr
        running.process.kill()
    with out.open("ab") as file:
        file.write(b'{"market":"spot","sy')
    journal.commit([stream_candle(3)])
    with follow(tmp_path, *arguments) as running:
        wait_until(lambda: out.read_bytes().count(b"\n") == 4)
        running.process.terminate()
        assert running.process.wait(60) == 0
    minutes = [json.loads(line)["candle_begin_time"][14:16] for line in out.read_text().splitlines()]
    assert minutes == ["00", "01", "02", "03"]
    # Another program moves the file away, as for a rotation: the next one goes on behind it.
    out.rename(tmp_path / "old.ndjson")
    journal.commit([stream_candle(4)])
    with follow(tmp_path, *arguments):
        wait_until(lambda: out.exists() and out.read_bytes().count(b"\n") == 1)
    assert json.loads(out.read_text())["candle_begin_time"] == "2024-06-30T00:04:00Z"


def test_a_file_goes_on_after_a_full_disk(tmp_path: Path, journal: Journal) -> None:
    """A write that the disk refuses in the middle of a line leaves a file that the next run completes."""
    out = tmp_path / "out.ndjson"
    arguments = ("spot:BTCUSDT:1m", "--since", "2024-06-30", "--resume", "place.json", "-o", str(out), "-q")
    journal.commit([stream_candle(minute) for minute in range(2, 60)])
    with full_disk(9_100):
        done = run("follow", *arguments, cwd=tmp_path, fresh=True)
    assert (done.returncode, "File too large" in done.stderr) == (1, True), done.stderr
    assert out.stat().st_size == 9_100 and not out.read_bytes().endswith(b"\n")
    run("follow", *arguments, "--until", "2024-06-30T01:00", cwd=tmp_path)
    minutes = [int(json.loads(line)["candle_begin_time"][14:16]) for line in out.read_text().splitlines()]
    assert minutes == [*range(60)]


def test_duration_and_until_end_it(tmp_path: Path, journal: Journal) -> None:
    """--duration ends it after a time, --until when the series is past it."""
    done = run("follow", "spot:BTCUSDT:1m", "--duration", "200ms", "-q", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    journal.commit([stream_candle(2)])
    options = ("--since", "2024-06-30", "--until", "2024-06-30T00:02", "-q")
    done = run("follow", "spot:BTCUSDT:1m", *options, cwd=tmp_path)
    assert (done.returncode, done.stdout.count("\n")) == (0, 2)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "Missing argument"),
        (("spot:BTCUSDT",), "is not MARKET:SYMBOLS:INTERVALS"),
        (("spot:BTCUSDT:7m",), "7m"),
        (("spot:BTCUSDT:1m", "--since", "yesterday"), "--since: 'yesterday'"),
        (("spot:BTCUSDT:1m", "--lake", "s3://bucket/lake"), "is on an object store"),
        (("spot:BTCUSDT:1m", "--lake", "README"), "is a file"),
        (("spot:BTCUSDT:1m", "--resume", "README"), "is no position of a follower"),
        (("spot:BTCUSDT:1m", "--resume", "no/place.json"), "is no directory"),
        (("spot:BTCUSDT:1m", "-o", "no/out.ndjson"), "No such file or directory"),
        (("spot:BTCUSDT:1m", "-o", "pipe", "--duration", "100ms"), "is no regular file"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    """A mistake ends it with exit 2, and a line that names the thing."""
    (tmp_path / "README").write_text("hello\n")
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    done = run("follow", *arguments, cwd=tmp_path)
    os.close(reader)
    assert words in done.stderr, done.stderr
    assert (done.returncode, done.stdout) in ((2, ""), (1, ""))
    assert "Traceback" not in done.stderr
    assert (tmp_path / "README").read_text() == "hello\n"


def test_a_file_of_other_lines_is_refused(tmp_path: Path, journal: Journal) -> None:
    """A file that follow did not write is not extended, if it is to go on from it."""
    (tmp_path / "out").write_text("a,b\n1,2\n")
    (tmp_path / "place").write_text('{"lakewriter_position":1,"from":0,"series":{}}\n')
    done = run("follow", "spot:BTCUSDT:1m", "-o", "out", "--resume", "place", cwd=tmp_path)
    assert done.returncode == 2
    assert "'a,b' is no line of lakewriter follow" in done.stderr
    assert (tmp_path / "out").read_text() == "a,b\n1,2\n"
