"""`lakewriter forget`: its options, questions, output, record and exit codes."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from lakewriter.candle import Candle
from lakewriter.cli import cli
from lakewriter.errors import LakeError, LakewriterError, UsageError
from lakewriter.gap import Reason
from lakewriter.interval import DAY_MS
from lakewriter.lake.coverage.absences import absent_candles
from lakewriter.lake.coverage.days import coverage
from lakewriter.lake.forgotten import FORGOTTEN_FILE, read_forgotten
from lakewriter.lake.journal import create_journal
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.storage import LocalStorage
from lakewriter.partition import partition_of
from lakewriter.series import Series
from support.candles import DAY_START_MS, ETH, begin_of_minute, stream_candle
from support.lakes import files_and_bytes, merge_candles, rows_by_plain_files, write_foreign
from support.lakes import rows_of_sql as asked
from support.living_recorder import LivingRecorder, start_recorder
from support.running import run, wait_until

BTC = Series("spot", "BTCUSDT", "1m")


@pytest.fixture
def store(tmp_path: Path) -> LakeStore:
    """A lake of three minutes on each of three days, from two sources, and of another symbol."""
    store = LakeStore.create(str(tmp_path / "lake"), "test")
    merge_candles(store, rows())
    return store


def rows() -> list[Candle]:
    btc = [
        stream_candle(day * 1440 + number, source="rest" if number == 1 else "stream")
        for day in range(3)
        for number in range(3)
    ]
    return [*btc, stream_candle(0, symbol="ETHUSDT")]


def forget(store: LakeStore, *arguments: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(cli, ["forget", "--lake", str(store.root), *arguments])


def counts(result: Result) -> dict[str, object]:
    assert result.exception is None, result.exception
    found: dict[str, object] = json.loads(result.stdout)
    assert found.pop("seconds") is not None
    return found


def minutes(store: LakeStore, symbol: str = "BTCUSDT") -> list[int]:
    return sorted(
        (row.begin_ms - DAY_START_MS) // 60_000 for row in rows_by_plain_files(store) if row.symbol == symbol
    )


def test_a_dry_run_shows_what_would_go(store):
    """--dry-run prints one row per series and a sentence, and changes nothing."""
    before = files_and_bytes(store.root)
    result = forget(store, "spot:*:1m", "--since", "2024-06-30T00:01:00", "--dry-run")
    assert result.exit_code == 0
    table, rest = result.stdout.split("(1 row)\n")
    assert table.splitlines()[0].split() == [
        "market", "symbol", "interval", "start", "stop", "partitions", "candles", "bytes",
    ]  # fmt: skip
    assert re.split(r" {2,}", table.splitlines()[2].strip())[:7] == [
        "spot", "BTCUSDT", "1m", "2024-06-30 00:01:00", "2024-07-02 00:03:00", "3", "8",
    ]  # fmt: skip
    assert re.fullmatch(
        r"would remove 8 candles in 3 partitions of 1 series \(\d+\.\d kB\) in \d+\.\d s\n", rest
    )
    assert files_and_bytes(store.root) == before


@pytest.mark.parametrize(
    ("arguments", "kept"),
    [
        ((), []),
        (("--since", "2024-07-01"), [0, 1, 2]),
        (("--until", "2024-07-01"), [2880, 2881, 2882]),
        (("--since", "2024-07-01", "--until", "2024-07-01"), [0, 1, 2, 2880, 2881, 2882]),
        (("--since", "2024-07-01T00:01:00Z", "--until", "2024-07-02T00:01:00+00:00"), [0, 1, 2, 1440, 2881, 2882]),
        (("--source", "rest"), [0, 2, 1440, 1442, 2880, 2882]),
        (("--source", "rest", "--source", "stream", "--until", "2024-06-30"), [1440, 1441, 1442, 2880, 2881, 2882]),
        (("--source", "archive"), [0, 1, 2, 1440, 1441, 1442, 2880, 2881, 2882]),
        (("--older-than", "1d"), []),
        (("--older-than", "36000d"), [0, 1, 2, 1440, 1441, 1442, 2880, 2881, 2882]),
    ],
)  # fmt: skip
def test_what_is_chosen_goes(store, arguments, kept):
    """Days are whole UTC days, times are exact, sources select rows, and other series are unchanged."""
    assert forget(store, "spot:BTCUSDT:1m", *arguments, "--yes").exit_code == 0
    assert minutes(store) == kept
    assert minutes(store, "ETHUSDT") == [0]


def test_older_than_alone_is_about_the_whole_lake(store):
    """With an age no series has to be named; a dry run and a question come first all the same."""
    error = forget(store, "--older-than", "400d").exception
    assert isinstance(error, UsageError) and "cannot ask" in error.what
    assert forget(store, "--older-than", "400d", "--yes").exit_code == 0
    assert rows_by_plain_files(store) == []


def test_older_than_is_by_the_clock(store):
    """--older-than counts back from now, and younger candles stay."""
    now = datetime.now(UTC)
    begin_ms = int((now - timedelta(days=10)).timestamp() // 60 * 60_000)
    young, old = (stream_candle(0, begin_ms=begin_ms - age * DAY_MS, end_ms=0) for age in (0, 10))
    merge_candles(store, [young, old])
    forget(store, "--symbol", "BTCUSDT", "--older-than", "15d", "--yes")
    assert [row.begin_ms for row in rows_by_plain_files(store) if row.symbol == "BTCUSDT"] == [young.begin_ms]


@pytest.mark.parametrize(
    ("arguments", "gone"),
    [
        (("--market", "spot"), {"BTCUSDT", "ETHUSDT"}),
        (("--symbol", "ETHUSDT"), {"ETHUSDT"}),
        (("spot:ETH*:1m",), {"ETHUSDT"}),
        (("spot:*USDT:1m", "--symbol", "ETHUSDT"), {"ETHUSDT"}),
        (("spot:BTCUSDT,ETHUSDT:1m",), {"BTCUSDT", "ETHUSDT"}),
        (("spot:X*:1m",), set()),
    ],
)
def test_series_are_named(store, arguments, gone):
    """Subscriptions, globs and options select series; both together select the common ones."""
    assert forget(store, *arguments, "--yes").exit_code == 0
    assert {row.symbol for row in rows_by_plain_files(store)} == {"BTCUSDT", "ETHUSDT"} - gone


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ((), "forget: no series is named"),
        (("--since", "2024-06-30"), "forget: no series is named"),
        (("spot:BTCUSDT:1m",), "forget: cannot ask without a terminal"),
        (("spot:XRPUSDT:1m", "--yes"), "forget: the lake has no series that matches spot:XRPUSDT:1m"),
        (("--symbol", "XRPUSDT", "--yes"), "forget: the lake has no series that matches *:XRPUSDT:*"),
        (("spot:BTCUSDT:7m", "--yes"), "interval: '7m' is unknown"),
        (("spot:BTCUSDT:1m", "--since", "yesterday", "--yes"), "--since: 'yesterday' is not a day or time"),
        (("spot:BTCUSDT:1m", "--since", "2024-07-02", "--until", "2024-07-01"), "forget: --since is not before --until"),
        (("spot:BTCUSDT:1m", "--older-than", "soon"), "--older-than: 'soon' is not a number of hours, days or weeks"),
        (("spot:BTCUSDT:1m", "--older-than", "0d"), "--older-than: '0d' is not a number of hours, days or weeks"),
        (("spot:BTCUSDT:1m", "--since", "1066-10-14"), "--since: '1066-10-14' is before 1970"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(store, arguments, what):
    """A wrong argument is one line with exit 2; without a terminal the command needs --yes."""
    before = files_and_bytes(store.root)
    error = forget(store, *arguments).exception
    assert isinstance(error, UsageError)
    assert error.what == what
    assert error.hint
    assert files_and_bytes(store.root) == before


def test_json_is_one_object(store):
    """--json prints one object of counts; a second run has nothing to remove, and exits 0."""
    first = counts(forget(store, "spot:BTCUSDT:1m", "--until", "2024-07-01T00:01:00", "--json", "--yes"))
    assert first.pop("bytes_freed") > 0
    assert first == {
        "series": 1, "partitions": 2, "removed": 1, "candles": 4, "unflushed": 0, "failed": 0, "dry_run": False,
    }  # fmt: skip
    assert counts(forget(store, "spot:BTCUSDT:1m", "--until", "2024-07-01T00:01:00", "--json", "--yes")) == {
        **dict.fromkeys(first, 0), "bytes_freed": 0, "dry_run": False,
    }  # fmt: skip


def answered(store: LakeStore, answer: bytes, *arguments: str) -> tuple[int, str]:
    """Run the command on a terminal and answer its question; return its exit code and its output."""
    pid, terminal = pty.fork()
    if pid == 0:  # pragma: no cover - another process
        os.execv(
            sys.executable,
            [sys.executable, "-m", "lakewriter", "forget", "--lake", str(store.root), *arguments],
        )
    shown = b""
    try:
        while b"[y/N]" not in shown:
            shown += os.read(terminal, 4096)
        os.write(terminal, answer)
        while True:
            shown += os.read(terminal, 4096)
    except OSError:  # the other end is closed
        pass
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown.decode()


@pytest.mark.slow
@pytest.mark.parametrize("yes", [False, True])
def test_a_terminal_is_asked(store, yes):
    """On a terminal the command shows the candles and asks; only "yes" removes them."""
    before = files_and_bytes(store.root)
    code, shown = answered(store, b"y\n" if yes else b"\n", "spot:BTCUSDT:1m", "--since", "2024-07-01")
    assert "Remove 6 candles in 2 partitions of 1 series" in shown
    assert code == (0 if yes else 130)
    assert minutes(store) == ([0, 1, 2] if yes else [0, 1, 2, 1440, 1441, 1442, 2880, 2881, 2882])
    assert (files_and_bytes(store.root) == before) is not yes


def test_a_record_stays(store):
    """The lake and SQL have a record of the removed candles: number, time, user and reason."""
    forget(
        store, "spot:BTCUSDT:1m", "--until", "2024-06-30", "--source", "stream", "--reason", "a test", "--yes"
    )
    [line] = read_forgotten(store.root)
    assert (line.series, line.candles, line.sources, line.reason, line.runs) == (
        BTC,
        2,
        ("stream",),
        "a test",
        1,
    )
    assert line.ranges == ((begin_of_minute(0), begin_of_minute(1)), (begin_of_minute(2), begin_of_minute(3)))
    assert line.finished_ms is not None
    assert abs(line.finished_ms - datetime.now(UTC).timestamp() * 1000) < 600_000
    [row] = asked(
        store, "SELECT symbol, epoch_ms(start), epoch_ms(stop), candles, sources, reason, runs FROM forgotten"
    )
    assert row == ("BTCUSDT", begin_of_minute(0), begin_of_minute(3), 2, "stream", "a test", 1)
    [(removed_by,)] = asked(store, "SELECT removed_by FROM forgotten")
    assert "@" in removed_by


def test_the_runs_of_one_cron_line_are_one_line(store):
    """Repeated equal runs become one line of the record."""
    for day in ("2024-06-30", "2024-07-01"):
        forget(store, "spot:BTCUSDT:1m", "--until", day, "--yes", "--reason", "retention")
    forget(store, "spot:BTCUSDT:1m", "--yes", "--reason", "other")
    first, second = read_forgotten(store.root)
    assert (first.runs, first.candles, first.reason) == (2, 6, "retention")
    assert (second.runs, second.candles, second.reason) == (1, 3, "other")
    assert first.ranges == (
        (begin_of_minute(0), begin_of_minute(3)),
        (begin_of_minute(1440), begin_of_minute(1443)),
    )


def test_the_runs_of_new_containers_are_one_line(store, monkeypatch):
    """The name of a host changes with each container. Its user's runs become one line."""
    for day, host in (("2024-06-30", "4f1c"), ("2024-07-01", "9a0d")):
        monkeypatch.setattr("lakewriter.cli.runs.forget.user_and_host", lambda host=host: f"root@{host}")
        forget(store, "spot:BTCUSDT:1m", "--until", day, "--yes")
    (line,) = read_forgotten(store.root)
    assert (line.runs, line.candles, line.by) == (2, 6, "root@4f1c")


def test_ctrl_c_leaves_a_record(store, monkeypatch):
    """The day that Ctrl-C came in is on record, and days that stay are not."""
    delete = LocalStorage.delete

    def delete_then_interrupt(storage: LocalStorage, name: str) -> None:
        delete(storage, name)
        if name.endswith(".parquet"):
            raise KeyboardInterrupt

    monkeypatch.setattr(LocalStorage, "delete", delete_then_interrupt)
    assert forget(store, "spot:BTCUSDT:1m", "--yes").exit_code == 1
    assert minutes(store) == [1440, 1441, 1442, 2880, 2881, 2882]
    (line,) = read_forgotten(store.root)
    assert line.ranges == ((begin_of_minute(0), begin_of_minute(3)),)
    assert line.finished_ms is not None


@pytest.mark.parametrize("damage", [b"nonsense\n", b'{"market":"spot"}\n', b"\xff\n", b'{"v":9}\n'])
def test_lines_of_others_stay_in_the_record(store, damage):
    """Unreadable lines are left out of answers, and kept in the file."""
    path = store.root / FORGOTTEN_FILE
    path.parent.mkdir()
    path.write_bytes(damage)
    assert read_forgotten(store.root) == []
    forget(store, "spot:BTCUSDT:1m", "--yes")
    assert len(read_forgotten(store.root)) == 1
    assert damage in path.read_bytes()


def test_a_record_that_cannot_be_read_stops_it(store):
    """With an unreadable record no candle is removed."""
    (store.root / FORGOTTEN_FILE).mkdir(parents=True)
    before = minutes(store)
    error = forget(store, "spot:BTCUSDT:1m", "--yes").exception
    assert isinstance(error, LakeError)
    assert error.what.startswith(f"forget: {store.root / FORGOTTEN_FILE}")
    assert minutes(store) == before


def test_failures_are_named(store):
    """A failed partition is named on stderr, and the exit code is 1; the others are changed."""
    write_foreign(store, "part-0.parquet", [stream_candle(1)])
    result = forget(store, "spot:BTCUSDT:1m", "--since", "2024-06-30T00:01:00", "--yes", "--json")
    assert json.loads(result.stdout)["failed"] == 1
    assert "part-0.parquet is a foreign file" in result.stderr
    assert isinstance(result.exception, LakewriterError)
    assert result.exception.what == "forget: 1 partition failed"
    assert result.exception.hint.startswith("lakewriter compact")
    assert minutes(store) == [0, 1, 1, 2]


def test_candles_in_a_journal_are_told(store):
    """Candles in a journal are not forgotten, and one line announces their flush."""
    journal = create_journal(store.root, "other")
    journal.commit([stream_candle(3), stream_candle(4), stream_candle(3, symbol="ETHUSDT")])
    result = forget(store, "spot:BTCUSDT:1m", "--yes")
    assert result.exit_code == 0
    assert result.stderr == (
        "lakewriter: 2 selected candles in a journal come with the next flush; run this again after it\n"
    )
    assert minutes(store) == []
    journal.close()


def days(store: LakeStore, series: Series = BTC, until_ms: int | None = None) -> list[tuple[int, ...]]:
    return [tuple(each[2:6]) for each in coverage(store, until_ms=until_ms) if each.series == series]


def test_a_forgotten_middle_is_explained(store):
    """Forgotten candles between present ones are missing, with the user and the reason."""
    merge_candles(store, [stream_candle(number) for number in range(2880)])
    forget(store, "spot:BTCUSDT:1m", "--since", "2024-06-30T12:00", "--until", "2024-07-01T12:00", "--yes",
           "--reason", "wrong import")  # fmt: skip
    assert days(store)[:2] == [(1440, 720, 720, 720), (1440, 720, 720, 720)]
    [gap] = list(absent_candles(store))
    assert (gap.reason, gap.candles, gap.has_reason) == ("forgotten", 1440, True)
    assert gap.error.endswith(": wrong import")
    invoke = CliRunner().invoke
    assert invoke(cli, ["coverage", "--lake", str(store.root)]).exit_code == 0
    assert invoke(cli, ["gaps", "--lake", str(store.root)]).exit_code == 0
    merge_candles(store, [stream_candle(number) for number in range(720, 2160)])
    assert list(absent_candles(store)) == []
    assert days(store)[:2] == [(1440, 1440, 0, 0), (1440, 1440, 0, 0)]


def test_a_series_begins_where_its_candles_do(store):
    """After a retention the series begins later; gaps before that are not counted, later ones are."""
    recorder = LivingRecorder(store.root)
    recorder.mark(BTC, begin_of_minute(1) // 60_000, begin_of_minute(2) // 60_000, "exchange_halt")
    recorder.mark(BTC, begin_of_minute(1500) // 60_000, begin_of_minute(1502) // 60_000, "unhealable", "no")
    recorder.mark(BTC, begin_of_minute(2885) // 60_000, begin_of_minute(2886) // 60_000, "unhealable", "no")
    recorder.write()
    merge_candles(store, [stream_candle(number) for number in range(3, 2883) if not 1500 <= number < 1502])
    forget(store, "spot:BTCUSDT:1m", "--until", "2024-07-01", "--yes")
    assert days(store) == [(6, 3, 3, 1)]
    recorder.die()


def test_a_retention_moves_the_begin_of_a_subscription(store):
    """After forgotten candles at its begin, a subscribed series is expected only from there on."""
    merge_candles(store, [stream_candle(number) for number in range(2883)])
    journal = start_recorder(store, BTC, now_ms=begin_of_minute(0))
    assert days(store)[0][0] == 1440
    forget(store, "spot:BTCUSDT:1m", "--until", "2024-07-01", "--yes")
    assert days(store) == [(3, 3, 0, 0)]
    forget(store, "spot:BTCUSDT:1m", "--yes")
    assert days(store) == []
    journal.close()


def test_what_was_forgotten_whole_is_no_series(store):
    """A series without remaining candles is no longer expected, and its name is still known."""
    forget(store, "spot:ETHUSDT:1m", "--yes")
    assert days(store, ETH) == []
    assert [each for each in absent_candles(store) if each.series == ETH] == []
    assert forget(store, "spot:ETHUSDT:1m", "--yes").exit_code == 0


def test_an_absurd_candle_expects_nothing(store):
    """After the removal of a candle from the future, no candle up to it is expected."""
    merge_candles(store, [stream_candle(0, begin_ms=begin_of_minute(0) + 1000 * DAY_MS)])
    forget(store, "spot:BTCUSDT:1m", "--since", "2025-01-01", "--yes")
    assert sum(each[0] for each in days(store)) == 1440 + 1440 + 3


@pytest.mark.parametrize("reason", ["exchange_halt", "delisted", "unhealable", "pending"])
def test_reasons_beside_a_forgotten_range(store, reason: Reason):
    """An exchange's reason and a pending heal have precedence over `forgotten`."""
    merge_candles(store, [stream_candle(number) for number in range(10)])
    forget(store, "spot:BTCUSDT:1m", "--since", "2024-06-30T00:03", "--until", "2024-06-30T00:07", "--yes")
    recorder = LivingRecorder(store.root)
    recorder.mark(BTC, begin_of_minute(4) // 60_000, begin_of_minute(6) // 60_000, reason, "it says")
    recorder.write()
    found = [
        (each.reason, each.candles) for each in absent_candles(store) if each.start_ms < begin_of_minute(10)
    ]
    if reason == "unhealable":
        assert found == [("forgotten", 4)]
    else:
        assert found == [("forgotten", 1), (reason, 2), ("forgotten", 1)]
    assert all(each.has_reason for each in absent_candles(store) if each.start_ms < begin_of_minute(10))
    recorder.die()


@pytest.mark.slow
def test_killed_and_run_again(store, tmp_path):
    """After a kill at any moment each file is whole; the next run finishes, and both are on record."""
    merge_candles(store, [stream_candle(day * 1440 + number) for day in range(40) for number in range(50)])
    arguments = (
        "forget",
        "spot:BTCUSDT:1m",
        "--since",
        "2024-06-30T00:01",
        "--lake",
        str(store.root),
        "--yes",
    )
    first = store.root / partition_of(stream_candle(1440)).file
    process = subprocess.Popen([sys.executable, "-m", "lakewriter", *arguments])
    wait_until(lambda: not first.exists() or process.poll() is not None)
    process.send_signal(signal.SIGKILL)
    process.wait()
    for partition, names, _ in store.files():
        for name in names:
            pq.read_table(store.root / name, partitioning=None)
            assert partition.date is not None
    lines = read_forgotten(store.root)
    assert [line.finished_ms is None for line in lines] == [process.returncode == -signal.SIGKILL]
    gone = {day * 1440 + number for day in range(40) for number in range(50)} - set(minutes(store))
    [ranges] = [line.ranges for line in lines if line.series == BTC]
    assert all(any(start <= begin_of_minute(each) < stop for start, stop in ranges) for each in gone)
    again = run(*arguments, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert minutes(store) == [0]
    assert run("verify", "--check", "partition", "--lake", str(store.root)).returncode == 0
    assert run("coverage", "--lake", str(store.root)).returncode == 0
