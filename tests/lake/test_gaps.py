"""The gap ledger keeps each gap with its reason, even if a recorder dies."""

import os
import shutil
import signal
import time
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakewriter.errors import LakeError
from lakewriter.gap import FINAL, REASONS, Gap, Reason
from lakewriter.lake.gaps.ledger import SPARE_LINES
from lakewriter.lake.gaps.ledgers import (
    GAPS_DIRECTORY,
    ORPHANED,
    ReportedGap,
    open_ledger,
    read_gaps,
    read_reported,
)
from lakewriter.lake.journal import adopt_dead
from lakewriter.lake.journal_directories import living_recorders
from lakewriter.series import Series
from support.full_disk import full_disk
from support.lengths import examples
from support.living_recorder import MINUTE_MS, NOW_MS, LivingRecorder
from support.running import TESTS, python_child

BTC = Series("spot", "BTCUSDT", "1m")
ETH = Series("usdt_futures", "ETHUSDT", "1m")


@pytest.fixture
def recorder(tmp_path: Path) -> LivingRecorder:
    return LivingRecorder(tmp_path)


def told(found: list[Gap]) -> dict[tuple[Series, int], tuple[Reason, str]]:
    """Return the reason and error of each absent minute."""
    said: dict[tuple[Series, int], tuple[Reason, str]] = {}
    for gap in found:
        for begin_ms in range(gap.start_ms, gap.stop_ms, MINUTE_MS):
            key = (gap.series, begin_ms // MINUTE_MS)
            assert key not in said, "told twice"
            said[key] = (gap.reason, gap.error)
    return said


def ledgers(root: Path) -> list[str]:
    return sorted(path.name for path in (root / GAPS_DIRECTORY).iterdir())


def test_marked_written_and_read(recorder: LivingRecorder, tmp_path: Path) -> None:
    """A written gap is read back with all its fields."""
    recorder.mark(BTC, 3, 5)
    recorder.mark(ETH, 7, 8, "exchange_halt")
    assert read_gaps(tmp_path) == []
    recorder.write()
    assert read_gaps(tmp_path) == [
        Gap("spot", "BTCUSDT", "1m", 3 * MINUTE_MS, 5 * MINUTE_MS, "pending", NOW_MS),
        Gap("usdt_futures", "ETHUSDT", "1m", 7 * MINUTE_MS, 8 * MINUTE_MS, "exchange_halt", NOW_MS, NOW_MS),
    ]
    assert recorder.ledger.gaps() == read_gaps(tmp_path)
    assert recorder.ledger.gaps(BTC) == read_gaps(tmp_path)[:1]
    assert recorder.ledger.take_changes() is None


def test_a_mark_overrides_and_keeps_the_detection(recorder: LivingRecorder) -> None:
    """A new reason keeps the time of detection, and the gap around it is unchanged."""
    ledger = recorder.ledger
    ledger.mark(BTC, 0, 5, "pending", 100)
    ledger.mark(BTC, 1, 3, "delisted", 200)
    assert ledger.gaps() == [
        Gap(*BTC, 0, 1, "pending", 100),
        Gap(*BTC, 1, 3, "delisted", 100, 200),
        Gap(*BTC, 3, 5, "pending", 100),
    ]
    assert ledger.final_ranges(BTC) == [(1, 3)]
    ledger.mark(BTC, 2, 3, "delisted", 300)
    assert ledger.gaps()[1] == Gap(*BTC, 1, 3, "delisted", 100, 200), "the same said again"


def test_neighbours_that_agree_are_one(recorder: LivingRecorder) -> None:
    """Adjacent ranges with equal reason and error are merged; others stay separate."""
    ledger = recorder.ledger
    ledger.mark(BTC, 0, 2, "pending", 100)
    ledger.mark(BTC, 4, 6, "pending", 50)
    ledger.mark(BTC, 6, 8, "pending", 50, "HTTP 500")
    ledger.mark(BTC, 2, 4, "pending", 200)
    assert ledger.gaps() == [
        Gap(*BTC, 0, 6, "pending", 50),
        Gap(*BTC, 6, 8, "pending", 50, None, "HTTP 500"),
    ]
    ledger.clear(BTC, 1, 7)
    assert [(gap.start_ms, gap.stop_ms) for gap in ledger.gaps()] == [(0, 1), (7, 8)]


def test_empty_ranges_are_nothing(recorder: LivingRecorder) -> None:
    """An empty or reversed range marks and clears nothing."""
    recorder.mark(BTC, 0, 3)
    recorder.mark(BTC, 2, 2, "delisted")
    recorder.mark(BTC, 3, 1, "delisted")
    recorder.ledger.clear(BTC, 2 * MINUTE_MS, MINUTE_MS)
    recorder.ledger.clear(ETH, 0, MINUTE_MS)
    assert len(recorder.ledger.gaps()) == 1


def test_counts_are_candles(recorder: LivingRecorder) -> None:
    """The counts by reason follow each change, in candles, also for days and months."""
    recorder.mark(BTC, 0, 10)
    recorder.mark(BTC, 2, 5, "delisted")
    month = Series("spot", "BTCUSDT", "1mo")
    recorder.ledger.mark(month, 1_704_067_200_000, 1_709_251_200_000, "pending", NOW_MS)
    three = Series("spot", "BTCUSDT", "3d")
    recorder.ledger.mark(three, 86_400_000, 7 * 86_400_000, "pending", NOW_MS)
    assert recorder.ledger.counts() == {"pending": 7 + 2 + 2, "delisted": 3}
    assert recorder.ledger.counts()["pending"] == 11
    recorder.ledger.clear(BTC, 0, 10 * MINUTE_MS)
    assert recorder.ledger.counts() == {"pending": 4}


def test_what_came_and_went_is_not_written(recorder: LivingRecorder) -> None:
    """A gap that closes before a write adds no line."""
    recorder.mark(BTC, 0, 10)
    recorder.ledger.clear(BTC, 0, 10 * MINUTE_MS)
    assert recorder.ledger.take_changes() is None
    recorder.mark(BTC, 0, 10)
    recorder.write()
    size = recorder.ledger.path.stat().st_size
    recorder.ledger.clear(BTC, 3 * MINUTE_MS, 10 * MINUTE_MS)
    recorder.mark(BTC, 3, 10)
    assert recorder.ledger.take_changes() is None
    assert recorder.ledger.path.stat().st_size == size


def test_a_long_file_is_written_anew(recorder: LivingRecorder, tmp_path: Path) -> None:
    """A file with many more lines than gaps is rewritten with one line per gap."""
    every = [Series("spot", f"S{number}USDT", "1m") for number in range(SPARE_LINES // 2 + 1)]
    for series in every:
        recorder.mark(series, 0, 1)
    recorder.write()
    for series in every[1:]:
        recorder.ledger.clear(series, 0, MINUTE_MS)
    recorder.write()
    assert len(recorder.ledger.path.read_bytes().splitlines()) == SPARE_LINES + 1
    recorder.mark(every[0], 1, 2)
    recorder.write()
    recorder.mark(every[0], 2, 3)
    recorder.write()
    assert len(recorder.ledger.path.read_bytes().splitlines()) == 1
    recorder.mark(BTC, 0, 1, "delisted")
    recorder.write()
    assert len(recorder.ledger.path.read_bytes().splitlines()) == 2
    assert read_gaps(tmp_path) == recorder.ledger.gaps()


def test_full_disk_loses_nothing(recorder: LivingRecorder, tmp_path: Path) -> None:
    """Changes that could not be written are written later, even after a partial write."""
    recorder.mark(BTC, 0, 2)
    recorder.write()
    recorder.mark(BTC, 5, 9, "unhealable", "x" * 300)
    with full_disk(recorder.ledger.path.stat().st_size + 100), pytest.raises(OSError, match="File too large"):
        recorder.write()
    assert told(read_gaps(tmp_path)) == {(BTC, 0): ("pending", ""), (BTC, 1): ("pending", "")}
    recorder.ledger.clear(BTC, 0, 2 * MINUTE_MS)
    with full_disk(100), pytest.raises(OSError, match="File too large"):
        recorder.write()
    recorder.write()
    assert told(read_gaps(tmp_path)) == told(recorder.ledger.gaps())
    assert ledgers(tmp_path) == [recorder.ledger.path.name]


def test_a_deleted_file_is_made_anew(recorder: LivingRecorder, tmp_path: Path) -> None:
    """After its file was deleted, a write reports an error, and the next write restores everything."""
    recorder.mark(BTC, 0, 2)
    recorder.write()
    recorder.ledger.path.unlink()
    recorder.mark(ETH, 0, 2)
    with pytest.raises(LakeError, match="it was deleted or moved"):
        recorder.write()
    recorder.write()
    assert told(read_gaps(tmp_path)) == told(recorder.ledger.gaps())


@pytest.mark.parametrize("cut", [1, 10, 60])
def test_torn_and_damaged_lines_are_passed_over(recorder: LivingRecorder, tmp_path: Path, cut: int) -> None:
    """Damaged lines and a torn last line are skipped, and all others count."""
    recorder.mark(BTC, 0, 2)
    recorder.write()
    whole = recorder.ledger.path.read_bytes()
    recorder.mark(ETH, 0, 2)
    recorder.write()
    data = recorder.ledger.path.read_bytes()
    recorder.ledger.path.write_bytes(data[:-cut])
    assert told(read_gaps(tmp_path)) == {(BTC, 0): ("pending", ""), (BTC, 1): ("pending", "")}
    recorder.ledger.path.write_bytes(whole.replace(b"BTCUSDT", b"BTCUSDX") + b"\xff\n\n{}\n" + data)
    assert told(read_gaps(tmp_path)) == told(recorder.ledger.gaps())
    recorder.die()
    assert len(told(LivingRecorder(tmp_path).ledger.gaps())) == 4


def changed_line(ledger: Path, old: bytes, new: bytes) -> bytes:
    """Return a ledger's first line with another text and a valid checksum."""
    known = ledger.read_bytes().partition(b"\n")[0]
    body = known[known.index(b'"change":') + 9 : -1].replace(old, new)
    return b'{"crc":%d,"change":%b}\n' % (zlib.crc32(body), body)


def test_a_newer_versions_line_is_left_out_and_kept(
    recorder: LivingRecorder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A newer version's line is skipped, and the file stays for that version."""
    recorder.mark(BTC, 0, 1)
    recorder.write()
    path = recorder.ledger.path
    with path.open("ab") as file:
        file.write(changed_line(path, b"pending", b"aliens"))
    assert told(read_gaps(tmp_path)) == told(recorder.ledger.gaps())
    assert f"{path}: 1 lines of another version are left out" in caplog.text
    recorder.die()
    heir = LivingRecorder(tmp_path)
    assert len(told(heir.ledger.gaps())) == 1
    assert b"aliens" in path.read_bytes()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"stop_ms":', b'"stop_ms":99999999'),
        (b'"start_ms":', b'"start_ms":-'),
        (b'"stop_ms":', b'"stop_ms":999999999999999999999'),
        (b'"detected_ms":', b'"detected_ms":99999999'),
        (b'"1m"', b'"17m"'),
        (b'"BTCUSDT"', b'"../../BTC"'),
        (b'"spot"', b'"moon"'),
    ],
)
def test_a_line_of_no_gap_is_left_out(
    recorder: LivingRecorder, tmp_path: Path, old: bytes, new: bytes
) -> None:
    """Impossible times and names with a valid checksum count as damaged; other lines are read."""
    recorder.mark(BTC, 1, 3)
    recorder.write()
    path = recorder.ledger.path
    with path.open("ab") as file:
        file.write(changed_line(path, old, new))
    assert told(read_gaps(tmp_path)) == told(recorder.ledger.gaps())
    recorder.die()
    heir = LivingRecorder(tmp_path)
    assert len(told(heir.ledger.gaps())) == 2
    assert ledgers(tmp_path) == sorted([heir.ledger.path.name, f"{path.name}.bad"])


def test_a_sparse_ledger_is_set_aside(recorder: LivingRecorder, tmp_path: Path) -> None:
    """A line of 3 GB is not loaded; the gaps before it are taken over."""
    recorder.mark(BTC, 1, 3)
    recorder.write()
    path = recorder.ledger.path
    os.truncate(path, 3 << 30)
    tracemalloc.start()
    try:
        assert len(told(read_gaps(tmp_path))) == 2
        assert tracemalloc.get_traced_memory()[1] < 1 << 24
    finally:
        tracemalloc.stop()
    recorder.die()
    assert len(told(LivingRecorder(tmp_path).ledger.gaps())) == 2
    assert path.with_name(f"{path.name}.bad").stat().st_size == 3 << 30


@pytest.mark.parametrize("take_away", [shutil.rmtree, lambda path: path.rename(path.with_name("elsewhere"))])
def test_a_directory_that_is_taken_away_is_made_anew(
    recorder: LivingRecorder, tmp_path: Path, take_away: Callable[[Path], object]
) -> None:
    """If its directory is deleted or moved, the ledger is written again as a whole."""
    recorder.mark(BTC, 0, 1)
    recorder.write()
    take_away(recorder.ledger.path.parent)
    recorder.mark(ETH, 0, 1)
    with pytest.raises(LakeError, match="it was deleted or moved"):
        recorder.write()
    recorder.write()
    assert told(read_gaps(tmp_path)) == told(recorder.ledger.gaps())


def test_an_empty_ledger_leaves_no_file(recorder: LivingRecorder, tmp_path: Path) -> None:
    """A ledger without gaps leaves no file; one with gaps stays for the next recorder."""
    other = LivingRecorder(tmp_path)
    other.mark(BTC, 0, 1, "delisted")
    other.write()
    other.ledger.close()
    other.ledger.close()
    recorder.ledger.close()
    assert ledgers(tmp_path) == [other.ledger.path.name]


def test_dead_ledgers_are_taken_over(recorder: LivingRecorder, tmp_path: Path) -> None:
    """The next recorder takes over the gaps of a dead one; pending ones are to be healed again."""
    recorder.mark(BTC, 0, 2)
    recorder.mark(BTC, 4, 5, "exchange_halt")
    recorder.write()
    assert read_reported(tmp_path)[0].alive
    recorder.die()
    assert [told.alive for told in read_reported(tmp_path)] == [False, True]
    heir = LivingRecorder(tmp_path)
    assert ledgers(tmp_path) == [heir.ledger.path.name]
    assert (
        read_gaps(tmp_path)
        == heir.ledger.gaps()
        == [
            Gap(*BTC, 0, 2 * MINUTE_MS, "unhealable", NOW_MS, None, ORPHANED),
            Gap(*BTC, 4 * MINUTE_MS, 5 * MINUTE_MS, "exchange_halt", NOW_MS, NOW_MS),
        ]
    )
    heir.mark(BTC, 0, 2)
    assert heir.ledger.gaps(BTC)[0].error == ""


def test_living_ledgers_are_left_alone(recorder: LivingRecorder, tmp_path: Path) -> None:
    """Two recorders have one ledger each, and both are read."""
    recorder.mark(BTC, 0, 2)
    recorder.write()
    other = LivingRecorder(tmp_path)
    other.mark(BTC, 1, 3, "delisted")
    other.write()
    assert len(ledgers(tmp_path)) == 2
    assert told(read_gaps(tmp_path)) == {
        (BTC, 0): ("pending", ""),
        (BTC, 1): ("delisted", ""),
        (BTC, 2): ("delisted", ""),
    }


def test_the_more_final_reason_wins(tmp_path: Path) -> None:
    """A final reason has precedence over others, and a living recorder's pending over a dead one's."""
    dead, unable, sure, alive = (LivingRecorder(tmp_path, name) for name in "dusa")
    dead.mark(BTC, 0, 8)
    unable.mark(BTC, 0, 4, "unhealable", "no")
    sure.mark(BTC, 0, 2, "not_listed")
    alive.mark(BTC, 3, 6)
    for each in (dead, unable, sure, alive):
        each.write()
    dead.die()
    found = read_reported(tmp_path)
    assert [(each.gap.start_ms // MINUTE_MS, each.gap.stop_ms // MINUTE_MS, each.gap.reason, each.alive) for each in found] == [
        (0, 2, "not_listed", True),
        (2, 4, "unhealable", True),
        (4, 6, "pending", True),
        (6, 8, "pending", False),
    ]  # fmt: skip


def test_killed_between_own_write_and_unlink(recorder: LivingRecorder, tmp_path: Path) -> None:
    """A second take-over of the same ledger changes nothing."""
    recorder.mark(BTC, 0, 2)
    recorder.mark(BTC, 2, 3, "exchange_halt")
    recorder.write()
    recorder.die()
    outside = recorder.ledger.path.read_bytes()
    heir = LivingRecorder(tmp_path)
    expected = heir.ledger.gaps()
    recorder.ledger.path.write_bytes(outside)  # as if it had died before the unlink
    assert read_gaps(tmp_path) == expected
    heir.die()
    second = LivingRecorder(tmp_path)
    assert second.ledger.gaps() == expected
    assert ledgers(tmp_path) == [second.ledger.path.name]


def test_killed_before_its_own_write(recorder: LivingRecorder, tmp_path: Path) -> None:
    """A dead recorder's temporary file is removed; a living recorder's stays."""
    directory = tmp_path / GAPS_DIRECTORY
    (directory / ".dead-1.ndjson.tmp-99-ab").write_bytes(b"torn")
    mine = directory / f".{recorder.ledger.path.name}.tmp-99-ab"
    mine.write_bytes(b"being written")
    heir = LivingRecorder(tmp_path)
    assert ledgers(tmp_path) == sorted([mine.name, recorder.ledger.path.name, heir.ledger.path.name])


def test_oddities_stop_nobody(recorder: LivingRecorder, tmp_path: Path) -> None:
    """A directory named like a ledger, and files of other tools, are ignored."""
    directory = tmp_path / GAPS_DIRECTORY
    (directory / "odd.ndjson").mkdir()
    os.mkfifo(directory / "pipe.ndjson")
    (directory / "device.ndjson").symlink_to("/dev/zero")
    (directory / "ring.ndjson").symlink_to("ring.ndjson")
    (directory / "nowhere.ndjson").symlink_to("gone")
    (directory / "notes.txt").write_text("keep")
    LivingRecorder(tmp_path)
    assert read_gaps(tmp_path) == []
    assert (directory / "notes.txt").exists()


def test_no_lake_no_gaps(tmp_path: Path) -> None:
    """A lake without ledgers has no gaps, and reading creates no file."""
    assert read_gaps(tmp_path) == []
    assert living_recorders(tmp_path) == frozenset()
    assert list(tmp_path.iterdir()) == []


def test_living_changes_nothing(tmp_path: Path) -> None:
    """`living_recorders` distinguishes locked journals, and leaves neither a file nor a lock."""
    alive, dead = LivingRecorder(tmp_path, "alive"), LivingRecorder(tmp_path, "dead")
    dead.die()
    bare = alive.journal.directory.parent / "bare"
    bare.mkdir()
    before = sorted(tmp_path.rglob("*"))
    assert living_recorders(tmp_path) == {alive.journal.directory.name}
    assert sorted(tmp_path.rglob("*")) == before
    assert len(adopt_dead(tmp_path)) == 2


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_living_on_a_lake_one_may_only_read(tmp_path: Path) -> None:
    """`living_recorders` works with read access alone."""
    alive = LivingRecorder(tmp_path)
    paths = [tmp_path, *tmp_path.rglob("*")]
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        assert living_recorders(tmp_path) == {alive.journal.directory.name}
        assert read_gaps(tmp_path) == []
    finally:
        for path in paths:
            path.chmod(0o755)


STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("mark"), st.sampled_from([BTC, ETH]), st.integers(0, 12), st.integers(0, 12),
            st.sampled_from(REASONS), st.sampled_from(["", "HTTP 500"]),
        ),
        st.tuples(st.just("clear"), st.sampled_from([BTC, ETH]), st.integers(0, 12), st.integers(0, 12)),
        st.sampled_from([("take",), ("write",), ("fail",), ("reopen",), ("die",)]),
    ),
    max_size=40,
)  # fmt: skip


@examples(30, 200)
@given(STEPS)
def test_like_a_dict(tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[object, ...]]) -> None:
    """After any order of marks, clears, writes, failures and deaths, a reader finds the state of a dict."""
    root = tmp_path_factory.mktemp("ledger")
    recorder = LivingRecorder(root)
    model: dict[tuple[Series, int], tuple[str, str]] = {}
    written: dict[tuple[Series, int], tuple[str, str]] = {}
    for step, *arguments in steps:
        if step in ("mark", "clear"):
            series, start, stop, *said = arguments
            keys = [(series, minute) for minute in range(start, stop)]  # type: ignore[call-overload]
            if said:
                recorder.mark(series, start, stop, *said)  # type: ignore[arg-type]
                model |= dict.fromkeys(keys, tuple(said))  # type: ignore[arg-type]
            else:
                recorder.ledger.clear(series, start * MINUTE_MS, stop * MINUTE_MS)  # type: ignore[arg-type, operator]
                model = {key: value for key, value in model.items() if key not in keys}
        elif step == "take":
            recorder.ledger.take_changes()  # and it is never written
        elif step == "write":
            recorder.write()
            written = dict(model)
        elif step == "fail":
            changes = recorder.ledger.take_changes()
            if changes is not None and changes.whole and not changes.after:
                recorder.ledger.write(changes)  # no line is left to write, so no disk is too full for it
                written = dict(model)
            elif changes is not None:
                room = 0 if changes.whole else recorder.ledger.path.stat().st_size
                with full_disk(room), pytest.raises(OSError, match="large"):
                    recorder.ledger.write(changes)
        elif step == "reopen":
            os.close(recorder.ledger._fd)  # type: ignore[arg-type]
            recorder.ledger = open_ledger(root, recorder.ledger.path.stem)
            model = dict(written)
        else:
            recorder.die()
            recorder = LivingRecorder(root)
            written = {
                key: ("unhealable", ORPHANED) if said[0] == "pending" else said
                for key, said in written.items()
            }
            model = dict(written)
        assert told(recorder.ledger.gaps()) == model
        assert told(read_gaps(root)) == written
        assert sum(recorder.ledger.counts().values()) == len(model)
        for series in (BTC, ETH):
            assert sum(
                stop - start for start, stop in recorder.ledger.final_ranges(series)
            ) == MINUTE_MS * sum(key[0] == series and said[0] in FINAL for key, said in model.items())
    recorder.write()
    assert read_gaps(root) == recorder.ledger.gaps()


@pytest.mark.slow
def test_thousands_of_changes_a_second(recorder: LivingRecorder) -> None:
    """3,000 series with a gap each take far more than a thousand changes per second."""
    every = [Series("spot", f"S{number}USDT", "1m") for number in range(3000)]
    started_s = time.thread_time()
    for minute in range(5):
        for series in every:
            recorder.mark(series, minute, minute + 1)
        recorder.write()
        for series in every:
            recorder.ledger.clear(series, 0, (minute + 1) * MINUTE_MS)
        recorder.write()
    changes_per_s = 30_000 / (time.thread_time() - started_s)
    print(f"{changes_per_s:.0f} changes/s")
    assert changes_per_s > 5_000


@pytest.mark.slow
def test_kill_9_while_writing(tmp_path: Path) -> None:
    """After a kill at any moment, the next recorder reads a state that was written."""
    code = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from support.candles import BTC
from support.living_recorder import LivingRecorder
recorder = LivingRecorder(Path(sys.argv[1]))
minute = 0
while True:
    recorder.mark(BTC, 2 * minute, 2 * minute + 1, "delisted", str(minute))
    recorder.write()
    print(minute, flush=True)
    minute += 1
"""
    with python_child(code, tmp_path, TESTS) as process:
        assert process.stdout is not None
        last = 0
        for line in process.stdout:
            last = int(line)
            if last >= 50:
                break
        process.send_signal(signal.SIGKILL)
        process.wait()
        last = max([last, *(int(line) for line in process.stdout if line.endswith("\n"))])
    heir = LivingRecorder(tmp_path)
    minutes = [gap.start_ms // MINUTE_MS // 2 for gap in heir.ledger.gaps()]
    assert minutes == list(range(len(minutes)))
    assert len(minutes) in (last + 1, last + 2)
    assert read_reported(tmp_path) == [ReportedGap(gap, True) for gap in heir.ledger.gaps()]
