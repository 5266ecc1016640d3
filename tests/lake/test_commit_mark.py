"""The commit mark: what followers may read of a living recorder's journal."""

import os
from pathlib import Path

import pytest

from lakewriter.lake.commit_mark import CommitMark, read_mark, write_mark
from lakewriter.lake.journal import DiskRefusedError, Journal, create_journal
from support.candles import stream_candle


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return create_journal(tmp_path, "test")


def mark_of(journal: Journal) -> CommitMark | None:
    return read_mark(journal.directory / "lock")


def test_each_commit_marks_its_bytes(journal: Journal) -> None:
    """The mark is the open segment and its size; the next segment begins anew."""
    assert mark_of(journal) is None
    first = journal.commit([stream_candle(0)])
    assert mark_of(journal) == (1, first)
    second = journal.commit([stream_candle(1), stream_candle(2)])
    assert mark_of(journal) == (1, first + second)
    journal.roll()
    third = journal.commit([stream_candle(3)])
    assert mark_of(journal) == (2, third)


def test_a_refused_commit_marks_nothing(journal: Journal) -> None:
    """A commit that the disk refused leaves the mark where it was."""
    size = journal.commit([stream_candle(0)])
    assert journal._fd is not None
    read_only = os.open(journal.directory / "00000001.ndjson", os.O_RDONLY)
    os.dup2(read_only, journal._fd)
    os.close(read_only)
    with pytest.raises(DiskRefusedError):
        journal.commit([stream_candle(1)])
    assert mark_of(journal) == (1, size)


@pytest.mark.parametrize("cut", range(28))
def test_a_torn_mark_is_none(tmp_path: Path, cut: int) -> None:
    """A mark that is read while it is written is no mark, not a wrong one."""
    path = tmp_path / "lock"
    with path.open("wb") as file:
        write_mark(file.fileno(), CommitMark(1, 9_999))
    old = path.read_bytes()
    with path.open("r+b") as file:
        write_mark(file.fileno(), CommitMark(1, 10_450))
    new = path.read_bytes()
    path.write_bytes(new[:cut] + old[cut:])
    assert read_mark(path) in (None, (1, 9_999), (1, 10_450))
    path.write_bytes(new[:cut])
    assert read_mark(path) is None


def test_a_restored_lock_is_marked_by_the_next_commit(journal: Journal) -> None:
    """A recorder whose lock file was deleted marks its next commit in the new one."""
    journal.commit([stream_candle(0)])
    (journal.directory / "lock").unlink()
    journal.check()
    size = journal.commit([stream_candle(1)])
    assert mark_of(journal) == (2, size)
