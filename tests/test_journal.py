"""The journal: what was committed is there after anything; what is there was committed."""

import math
import signal
import threading
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_candle import candle, candles
from test_storage import child, full_disk

from lakewriter.candle import Candle
from lakewriter.errors import LakeError
from lakewriter.lake.journal import (
    JOURNAL_DIRECTORY,
    SEGMENT_BYTES_MAX,
    Journal,
    adopt_dead,
    create_journal,
    decode_line,
    encode_line,
    read_hot,
    read_segment,
)

ROWS = [candle(minute) for minute in range(5)]


@pytest.fixture
def journal(tmp_path: Path):
    journal = create_journal(tmp_path, "host-1")
    yield journal
    if journal.directory.exists():
        journal.close()


def flushed(journal: Journal) -> list[Candle]:
    """Return what the journal's closed segments hold, and drop them."""
    segments = journal.roll()
    rows = [row for segment in segments for row in read_segment(segment).candles]
    journal.drop(segments)
    return rows


def any_candle() -> st.SearchStrategy[Candle]:
    number = st.floats(allow_nan=False, allow_infinity=False)
    return st.builds(
        candle,
        symbol=st.text(max_size=5),
        open=number,
        volume=number,
        trade_num=st.integers(-(2**63), 2**63 - 1),
    )


@given(any_candle())
def test_line_round_trip(row):
    """Every candle survives its line, to the last bit of each double."""
    line = encode_line(row)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    again = decode_line(line[:-1])
    assert again == row
    assert again is not None
    assert math.copysign(1, again.open) == math.copysign(1, row.open)


@given(st.binary(max_size=100) | st.text('{}":,crcandle0123', max_size=60).map(str.encode))
def test_any_line(line):
    """Any other line is no candle; nothing else happens."""
    assert decode_line(line) is None


def test_deep_line():
    """A line of brackets is no candle either, however deep it goes."""
    assert decode_line(b'{"crc":1,"candle":' + b"[" * 100_000 + b"]" * 100_000 + b"}") is None


def test_commit_and_read(journal, tmp_path):
    """A committed candle is readable at once, and by segment after the roll."""
    assert journal.segment_bytes == 0
    written = journal.commit(ROWS[:2]) + journal.commit(ROWS[2:])
    assert journal.segment_bytes == written
    assert read_hot(tmp_path) == ROWS
    (segment,) = journal.roll()
    assert segment.stat().st_size == written
    assert read_segment(segment) == (segment, ROWS, False, {})
    assert journal.segment_bytes == 0


def test_commit_of_nothing(journal, tmp_path):
    """Committing nothing promises nothing and breaks nothing."""
    assert journal.commit([]) == 0
    assert read_hot(tmp_path) == []


def test_roll_and_drop(journal, tmp_path):
    """Rolled segments stay until they are dropped, oldest first; new ones come after them."""
    for row in ROWS:
        journal.commit([row])
        segments = journal.roll()
    assert [segment.name for segment in segments] == [f"{number:08d}.ndjson" for number in range(1, 6)]
    assert [read_segment(segment).candles for segment in segments] == [[row] for row in ROWS]
    journal.drop(segments[:3])
    journal.drop(segments[:3])
    assert journal.roll() == segments[3:]
    journal.commit([ROWS[0]])
    assert read_hot(tmp_path) == [*ROWS[3:], ROWS[0]]


def test_torn_last_line(journal, tmp_path):
    """A last line that was cut anywhere is dropped, and said to be torn."""
    journal.commit(ROWS[:3])
    (segment,) = journal.roll()
    whole = segment.read_bytes()
    last = len(encode_line(ROWS[2]))
    for cut in range(1, last):
        segment.write_bytes(whole[:-cut])
        found = read_segment(segment)
        assert (found.candles, found.torn, found.damaged) == (ROWS[:2], True, {})
    segment.write_bytes(whole[:-last])
    assert read_segment(segment).torn is False


def test_damaged_line(journal):
    """A line that does not match its checksum is told by its number; the others are read."""
    journal.commit(ROWS)
    (segment,) = journal.roll()
    segment.write_bytes(segment.read_bytes().replace(b'"open":60001.5', b'"open":60001.6'))
    found = read_segment(segment)
    assert found.candles == [ROWS[0], *ROWS[2:]]
    assert (found.torn, list(found.damaged)) == (False, [2])


SEGMENT = b"".join(map(encode_line, ROWS))


@settings(max_examples=300)
@given(place=st.integers(0, len(SEGMENT) - 1), flip=st.integers(1, 255))
def test_changed_byte(tmp_path_factory, place, flip):
    """One changed byte costs the candles of its lines at most; never does a candle come out different."""
    changed = bytearray(SEGMENT)
    changed[place] ^= flip
    path = tmp_path_factory.getbasetemp() / "changed.ndjson"
    path.write_bytes(changed)
    found = read_segment(path)
    assert found.candles == [row for row in ROWS if row in found.candles]
    assert 3 <= len(found.candles) < 5
    assert found.torn or found.damaged


def test_segments_are_bounded(journal, tmp_path):
    """A segment that has reached its limit gets no more; the next commit opens another."""
    large = candle(symbol="A" * SEGMENT_BYTES_MAX)
    journal.commit([large])
    assert journal.segment_bytes > SEGMENT_BYTES_MAX
    journal.commit([ROWS[0]])
    journal.commit([ROWS[1]])
    first, second = journal.roll()
    assert read_segment(second).candles == ROWS[:2]
    journal.drop([first])


@pytest.mark.parametrize("grown", [0, 1, 400, 1000])
def test_disk_full(journal, tmp_path, grown):
    """When the disk refuses, none of the commit stays, all earlier ones do, and later ones work."""
    journal.commit(ROWS[:1])
    before = journal.segment_bytes
    with full_disk(before + grown), pytest.raises(LakeError) as caught:
        journal.commit(ROWS[1:4])
    assert caught.value.what == f"journal: {journal.directory}: File too large"
    assert caught.value.hint == "nothing that was logged as recorded is lost"
    assert journal.segment_bytes == before
    assert next(journal.directory.glob("*.ndjson")).stat().st_size == before
    assert read_hot(tmp_path) == ROWS[:1]
    journal.commit(ROWS[4:])
    assert read_hot(tmp_path) == [ROWS[0], ROWS[4]]


def test_disk_full_at_the_first_commit(journal, tmp_path):
    """When the disk refuses the first bytes of all, the journal is still good for more."""
    with full_disk(10), pytest.raises(LakeError):
        journal.commit(ROWS)
    assert read_hot(tmp_path) == []
    journal.commit(ROWS)
    assert flushed(journal) == ROWS


def test_journals_apart(tmp_path):
    """Two recorders of one name have a directory each; readers see both."""
    one, other = create_journal(tmp_path, "host-1"), create_journal(tmp_path, "host-1")
    assert one.directory != other.directory
    one.commit(ROWS[:1])
    other.commit(ROWS[1:])
    assert sorted(read_hot(tmp_path), key=lambda row: row.begin_ms) == ROWS
    for journal in (one, other):
        flushed(journal)
        journal.close()


def test_nothing_there(tmp_path):
    """A lake without a journal has no hot candles and no dead recorders."""
    assert read_hot(tmp_path) == []
    assert adopt_dead(tmp_path) == []


def test_other_files(journal, tmp_path):
    """Files that are no segments are nobody's candles."""
    journal.commit(ROWS)
    (journal.directory / "notes.txt").write_text("x")
    (tmp_path / JOURNAL_DIRECTORY / "stray.ndjson").write_bytes(SEGMENT)
    assert read_hot(tmp_path) == ROWS
    assert len(journal.roll()) == 1


def test_close(tmp_path):
    """A journal that was flushed leaves no directory; one that was not leaves its candles."""
    empty, full = create_journal(tmp_path, "a"), create_journal(tmp_path, "b")
    empty.close()
    assert not empty.directory.exists()
    full.commit(ROWS)
    full.close()
    assert read_hot(tmp_path) == ROWS
    (adopted,) = adopt_dead(tmp_path)
    assert adopted.directory == full.directory
    assert flushed(adopted) == ROWS
    adopted.close()
    assert [path.name for path in (tmp_path / JOURNAL_DIRECTORY).iterdir()] == ["lock"]


def test_adopted_once(tmp_path):
    """Of those who look for dead recorders at once, one gets each journal; the living are left alone."""
    living = create_journal(tmp_path, "living")
    dead = [create_journal(tmp_path, "dead") for _ in range(5)]
    for journal in dead:
        journal.commit(ROWS)
        journal.close()
    adopted: list[Journal] = []
    threads = [threading.Thread(target=lambda: adopted.extend(adopt_dead(tmp_path))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(journal.directory for journal in adopted) == sorted(journal.directory for journal in dead)
    for journal in adopted:
        assert flushed(journal) == ROWS
    for journal in [*adopted, living]:
        journal.close()


RECORDER = """
import sys
from pathlib import Path
import msgspec
from lakewriter.candle import Candle
from lakewriter.lake.journal import create_journal
journal = create_journal(Path(sys.argv[1]), "child")
journal.commit([msgspec.json.decode(line, type=Candle) for line in sys.argv[2:]])
print(journal.directory, flush=True)
sys.stdin.read()
"""


@pytest.mark.slow
def test_dead_recorder(tmp_path):
    """A living recorder's journal is left alone; after kill -9 it is adopted, and holds every promise."""
    with child(RECORDER, tmp_path, *(msgspec.json.encode(row).decode() for row in ROWS)) as recorder:
        assert recorder.stdout is not None
        directory = Path(recorder.stdout.readline().strip())
        assert directory.name.startswith("child-")
        assert adopt_dead(tmp_path) == []
        assert read_hot(tmp_path) == ROWS
        recorder.send_signal(signal.SIGKILL)
        recorder.wait(60)
        (adopted,) = adopt_dead(tmp_path)
    assert adopted.directory == directory
    assert adopt_dead(tmp_path) == []
    assert read_hot(tmp_path) == ROWS
    assert flushed(adopted) == ROWS
    adopted.close()
    assert not directory.exists()


def test_read_while_recorders_flush(tmp_path):
    """Whoever reads the journal and then the lake misses no candle that was committed before."""
    journal = create_journal(tmp_path, "x")
    committed: list[int] = []
    merged: list[int] = []
    done = threading.Event()

    def record() -> None:
        try:
            for minute in range(150):
                journal.commit([candle(minute)])
                committed.append(candle(minute).begin_ms)
                if minute % 3 == 2:
                    segments = journal.roll()
                    merged.extend(row.begin_ms for path in segments for row in read_segment(path).candles)
                    journal.drop(segments)
        finally:
            done.set()

    recorder = threading.Thread(target=record)
    recorder.start()
    reads = 0
    while not done.is_set() or reads == 0:
        promised = list(committed)
        hot = {row.begin_ms for row in read_hot(tmp_path)}
        assert set(promised) <= hot | set(merged)
        reads += 1
    recorder.join()
    assert len(merged) == 150
    journal.close()


@settings(max_examples=30)
@given(
    steps=st.lists(st.lists(candles(), max_size=4) | st.sampled_from(["roll", "flush", "die"]), max_size=20)
)
def test_loses_nothing(tmp_path_factory, steps):
    """Any order of commits, rolls, flushes and deaths leaves every candle in the journal or flushed."""
    root = tmp_path_factory.mktemp("root")
    journal = create_journal(root, "x")
    hot: list[Candle] = []
    for step in steps:
        if step == "roll":
            journal.roll()
        elif step == "flush":
            assert flushed(journal) == hot
            hot = []
        elif step == "die":
            journal.close()
            adopted = adopt_dead(root)
            assert [row for dead in adopted for row in flushed(dead)] == hot
            for dead in adopted:
                dead.close()
            hot = []
            journal = create_journal(root, "x")
        else:
            journal.commit(step)
            hot += step
        assert read_hot(root) == hot
    journal.close()
