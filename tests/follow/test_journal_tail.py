"""The tail of the journals: durable candles, each once, while segments grow, roll and are deleted."""

import os
from pathlib import Path

import pytest

from lakewriter.follow import journal_tail
from lakewriter.follow.journal_tail import JournalTail
from lakewriter.lake.journal import Journal, create_journal
from lakewriter.lake.segments import encode_line
from support.candles import stream_candle
from support.living_recorder import kill_recorder


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return create_journal(tmp_path, "test")


@pytest.fixture
def tail(tmp_path: Path) -> JournalTail:
    return JournalTail(tmp_path)


def read(tail: JournalTail) -> tuple[list[int], bool]:
    """Return the minutes that came, and whether some were missed."""
    minutes: list[int] = []
    missed = False
    tail.check_living()
    while True:
        appended = tail.read()
        minutes += [candle.begin_ms // 60_000 % 1440 for candle in appended.candles]
        missed |= appended.missed
        if not appended.more:
            return minutes, missed


def commit(journal: Journal, *minutes: int) -> None:
    journal.commit([stream_candle(minute) for minute in minutes])


def write_unsynced(journal: Journal, data: bytes) -> None:
    """Write to the open segment without a commit."""
    assert journal._fd is not None
    os.write(journal._fd, data)


def test_each_commit_is_read_once(journal: Journal, tail: JournalTail) -> None:
    commit(journal, 0, 1)
    assert read(tail) == ([0, 1], False)
    assert read(tail) == ([], False)
    commit(journal, 2)
    assert read(tail) == ([2], False)


def test_lines_before_their_sync_are_not_read(journal: Journal, tail: JournalTail) -> None:
    """A whole or a torn line that is not synced yet is not read."""
    commit(journal, 0)
    write_unsynced(journal, encode_line(stream_candle(1)) + b'{"crc":1')
    assert read(tail) == ([0], False)
    assert read(tail) == ([], False)


def test_whole_lines_of_a_dead_recorder_are_read(journal: Journal, tail: JournalTail) -> None:
    """A killed recorder leaves lines without a commit. A replay would merge the whole ones, so they are read."""
    commit(journal, 0)
    write_unsynced(journal, encode_line(stream_candle(1)) + b'{"crc":1')
    assert read(tail) == ([0], False)
    kill_recorder(journal)
    assert read(tail) == ([1], False)
    assert read(tail) == ([], False)


def test_segments_that_roll_are_read_in_order(journal: Journal, tail: JournalTail) -> None:
    commit(journal, 0)
    assert read(tail) == ([0], False)
    commit(journal, 1)
    journal.roll()
    commit(journal, 2)
    journal.roll()
    commit(journal, 3)
    assert read(tail) == ([1, 2, 3], False)


def test_a_deleted_segment_is_read_to_its_end_if_it_was_open(journal: Journal, tail: JournalTail) -> None:
    """A flush deletes the segment that a slow reader is in: its rest still comes."""
    commit(journal, 0)
    assert read(tail) == ([0], False)
    commit(journal, 1)
    journal.drop(journal.roll())
    commit(journal, 2)
    assert read(tail) == ([1, 2], False)


def test_a_deleted_segment_that_was_never_open_is_missed(journal: Journal, tail: JournalTail) -> None:
    commit(journal, 0)
    assert read(tail) == ([0], False)
    journal.roll()
    commit(journal, 1)
    journal.drop(journal.roll())
    assert read(tail) == ([], True)
    commit(journal, 2)
    assert read(tail) == ([2], False)


def test_a_recorder_that_stopped_cleanly_is_missed_or_read(journal: Journal, tail: JournalTail) -> None:
    """A clean stop removes the journal. What a reader had open comes; what it had not is reported."""
    commit(journal, 0)
    assert read(tail) == ([0], False)
    commit(journal, 1)
    journal.drop(journal.roll())
    journal.close()
    minutes, missed = read(tail)
    assert minutes == [1] and missed
    assert read(tail) == ([], False)


def test_two_recorders(tmp_path: Path, journal: Journal, tail: JournalTail) -> None:
    other = create_journal(tmp_path, "other")
    commit(journal, 0)
    commit(other, 1)
    assert sorted(read(tail)[0]) == [0, 1]
    assert tail.living == 2
    kill_recorder(other)
    commit(journal, 2)
    assert read(tail) == ([2], False)
    assert tail.living == 1


def test_a_long_segment_comes_in_parts(
    journal: Journal, tail: JournalTail, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader far behind reads a bounded part at a time, and loses nothing at the borders."""
    monkeypatch.setattr(journal_tail, "PART_BYTES", 3_000)
    commit(journal, *range(100))
    first = tail.read()
    assert 0 < len(first.candles) < 10 and first.more
    assert [candle.begin_ms // 60_000 % 1440 for candle in first.candles] + read(tail)[0] == list(range(100))
    kill_recorder(journal)
    assert read(tail) == ([], False)


def test_a_journal_that_is_moved_away_and_restored(
    journal: Journal, tail: JournalTail, tmp_path: Path
) -> None:
    """The restored journal goes on; what was only in the lost part is in memory, and recommitted by the recorder."""
    commit(journal, 0)
    assert read(tail) == ([0], False)
    journal.directory.rename(tmp_path / "away")
    journal.check()
    assert journal.lost
    commit(journal, 0, 1)
    minutes, _ = read(tail)
    assert minutes == [0, 1]


def test_damaged_lines_are_left_out(journal: Journal, tail: JournalTail) -> None:
    commit(journal, 0, 1)
    path = journal.directory / "00000001.ndjson"
    path.write_bytes(path.read_bytes().replace(b'"crc":', b'"crc":9', 1))
    kill_recorder(journal)
    assert read(tail) == ([1], False)


def test_no_lake_is_no_journal(tmp_path: Path) -> None:
    assert read(JournalTail(tmp_path / "nothing")) == ([], False)
