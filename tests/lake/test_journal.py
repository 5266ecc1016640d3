"""The journal: each committed candle stays readable, and only committed candles are read."""

import contextlib
import math
import os
import shutil
import signal
import socket
import threading
import tracemalloc
import zlib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakewriter.candle import Candle, to_table
from lakewriter.errors import LakeError
from lakewriter.interval import TIME_MS_MAX
from lakewriter.lake.journal import DiskRefusedError, Journal, adopt_dead, create_journal
from lakewriter.lake.journal_directories import JOURNAL_DIRECTORY, living_recorders
from lakewriter.lake.journal_replay import replay_dead
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.segments import (
    SEGMENT_BYTES_MAX,
    OtherVersionError,
    Segment,
    decode_line,
    encode_line,
    read_segment,
    set_aside,
)
from lakewriter.lake.unflushed import read_unflushed
from lakewriter.partition import partition_of
from support.candles import candles, stream_candle
from support.full_disk import full_disk
from support.lengths import examples
from support.running import PATIENCE_S, python_child

ROWS = [stream_candle(minute) for minute in range(5)]


@pytest.fixture
def journal(tmp_path: Path):
    journal = create_journal(tmp_path, "host-1")
    yield journal
    if journal.directory.exists():
        journal.close()


def flushed(journal: Journal) -> list[Candle]:
    """Return the candles of the journal's closed segments, and drop these segments."""
    segments = journal.roll()
    rows = [row for segment in segments for row in read_segment(segment).candles]
    journal.drop(segments)
    return rows


def any_candle() -> st.SearchStrategy[Candle]:
    number = st.floats(allow_nan=False, allow_infinity=False)
    return st.builds(
        stream_candle,
        symbol=st.sampled_from(["BTCUSDT", "BTCUSD_PERP", "币安人生USDT", "1000SATS", "A"]),
        open=number,
        volume=number,
        trade_num=st.integers(0, 2**63 - 1),
        event_ms=st.none() | st.integers(0, TIME_MS_MAX),
        recv_us=st.integers(0, TIME_MS_MAX * 1000),
    )


@given(any_candle())
def test_line_round_trip(row):
    """A line gives back its candle, to the last bit of each double."""
    line = encode_line(row)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    again = decode_line(line[:-1])
    assert again == row
    assert again is not None
    assert math.copysign(1, again.open) == math.copysign(1, row.open)


@given(st.binary(max_size=100) | st.text('{}":,crcandle0123', max_size=60).map(str.encode))
def test_any_line(line):
    """Any other line gives no candle."""
    assert decode_line(line) is None


def test_deep_line():
    """A line of nested brackets gives no candle, at any depth."""
    assert decode_line(b'{"crc":1,"candle":' + b"[" * 100_000 + b"]" * 100_000 + b"}") is None


def test_commit_and_read(journal, tmp_path):
    """A committed candle is readable at once, and in its segment after a roll."""
    assert journal.segment_bytes == 0
    written = journal.commit(ROWS[:2]) + journal.commit(ROWS[2:])
    assert journal.segment_bytes == written
    assert read_unflushed(tmp_path) == ROWS
    (segment,) = journal.roll()
    assert segment.stat().st_size == written
    assert read_segment(segment) == Segment(segment, ROWS, torn=False, damaged={})
    assert journal.segment_bytes == 0


def test_commit_of_nothing(journal, tmp_path):
    """A commit of no candles writes nothing."""
    assert journal.commit([]) == 0
    assert read_unflushed(tmp_path) == []


def test_roll_and_drop(journal, tmp_path):
    """Closed segments stay until they are dropped, oldest first, and new ones follow them."""
    for row in ROWS:
        journal.commit([row])
        segments = journal.roll()
    assert [segment.name for segment in segments] == [f"{number:08d}.ndjson" for number in range(1, 6)]
    assert [read_segment(segment).candles for segment in segments] == [[row] for row in ROWS]
    journal.drop(segments[:3])
    journal.drop(segments[:3])
    assert journal.roll() == segments[3:]
    journal.commit([ROWS[0]])
    assert read_unflushed(tmp_path) == [*ROWS[3:], ROWS[0]]


def test_torn_last_line(journal, tmp_path):
    """A last line that is cut anywhere is dropped, and `torn` is set."""
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
    """A line that does not match its checksum is returned with its number; the others are read."""
    journal.commit(ROWS)
    (segment,) = journal.roll()
    segment.write_bytes(segment.read_bytes().replace(b'"open":60001.5', b'"open":60001.6'))
    found = read_segment(segment)
    assert found.candles == [ROWS[0], *ROWS[2:]]
    assert (found.torn, list(found.damaged)) == (False, [2])


@pytest.mark.parametrize(
    "changes",
    [
        {"begin_ms": 253_402_300_800_000, "end_ms": 253_402_300_860_000},
        {"begin_ms": -60_000, "end_ms": 0},
        {"begin_ms": 10**30, "end_ms": 10**30 + 1},
        {"end_ms": ROWS[0].begin_ms},
        {"recv_us": 2**63},
        {"recv_us": -1},
        {"event_ms": 10**18},
        {"trade_num": 2**63},
        {"trade_num": -1},
        {"interval": "7m"},
        {"interval": "../1m"},
        {"market": "moon"},
        {"symbol": ""},
        {"symbol": "../../etc"},
        {"symbol": "A" * 1000},
    ],
)
def test_line_of_no_candle(changes):
    """A line with a valid checksum is damaged if it cannot be a row of the lake."""
    assert decode_line(encode_line(stream_candle(**changes))[:-1]) is None


def other_version() -> bytes:
    """Return a line of a version with another source of candles."""
    body = msgspec.json.encode(ROWS[1]).replace(b'"stream"', b'"telegraph"')
    return b'{"crc":%d,"candle":%b}\n' % (zlib.crc32(body), body)


def test_line_of_another_version(journal, tmp_path, caplog):
    """A line of another version is counted and logged once, and the other candles are read."""
    journal.commit(ROWS[:1])
    (segment,) = journal.roll()
    with segment.open("ab") as file:
        file.write(other_version() + encode_line(ROWS[2]))
    with pytest.raises(OtherVersionError):
        decode_line(other_version()[:-1])
    assert read_segment(segment).unknown == 1
    assert read_unflushed(tmp_path) == read_unflushed(tmp_path) == [ROWS[0], ROWS[2]]
    assert [record.getMessage() for record in caplog.records] == [
        f"journal: {segment}: 1 lines of another version are left out"
    ]


# Lines as the first release wrote them. They stay as they are whatever fields a candle gets.
LINES_OF_THE_FIRST_RELEASE = (
    b'{"crc":374627138,"candle":{"market":"spot","symbol":"BTCUSDT","interval":"1m","begin_ms":1719705600000,'
    b'"end_ms":1719705660000,"open":60000.5,"high":60010.25,"low":59990.0,"close":60001.125,"volume":12.34567,'
    b'"quote_volume":740800.123,"trade_num":100,"taker_buy_base_asset_volume":6.5,'
    b'"taker_buy_quote_asset_volume":390000.25,"event_ms":1719705660004,"recv_us":1719705660050000,'
    b'"source":"stream"}}\n'
    b'{"crc":2106910627,"candle":{"market":"spot","symbol":"BTCUSDT","interval":"1m","begin_ms":1719705660000,'
    b'"end_ms":1719705720000,"open":60001.5,"high":60010.25,"low":59990.0,"close":60001.125,"volume":12.34567,'
    b'"quote_volume":740800.123,"trade_num":100,"taker_buy_base_asset_volume":6.5,'
    b'"taker_buy_quote_asset_volume":390000.25,"event_ms":null,"recv_us":1719705720050000,"source":"rest"}}\n'
)


class CandleWithAColumn(Candle, frozen=True, gc=False):
    """A candle of a later version."""

    vwap: float | None = None


def test_lines_of_the_first_release_are_replayed(tmp_path: Path) -> None:
    """A journal from before a new field is merged into its partitions."""
    store = LakeStore.create(str(tmp_path), "test")
    dead = create_journal(store.state_dir, "first-release")
    (dead.directory / "00000001.ndjson").write_bytes(LINES_OF_THE_FIRST_RELEASE)
    os.close(dead._lock_fd)
    expected = [stream_candle(0), stream_candle(1, event_ms=None, source="rest")]
    assert read_unflushed(store.state_dir) == expected
    (replayed,) = replay_dead(store)
    assert (replayed.candles, replayed.waiting, replayed.error) == (2, 0, "")
    rows = store.read(partition_of(expected[0]))
    assert rows is not None
    assert rows.equals(to_table(expected))


@pytest.mark.parametrize("line", LINES_OF_THE_FIRST_RELEASE.splitlines())
def test_a_field_with_a_default_may_be_missing(line: bytes) -> None:
    """A line without a newer field gives its default, and a line with an unknown field is read."""
    body = msgspec.json.decode(line)["candle"]
    later = msgspec.convert(body, CandleWithAColumn)
    assert later.vwap is None
    assert msgspec.structs.asdict(later) == {**msgspec.structs.asdict(decode_line(line)), "vwap": None}
    assert decode_line(encode_line(later)[:-1]) == decode_line(line)


def test_sparse_segment(journal, tmp_path, caplog):
    """A segment of 3 GB takes the memory of two largest segments, and the candles before its hole are read."""
    journal.commit(ROWS)
    (segment,) = journal.roll()
    os.truncate(segment, 3 << 30)
    tracemalloc.start()
    try:
        assert read_unflushed(tmp_path) == ROWS
        assert tracemalloc.get_traced_memory()[1] < 3 * SEGMENT_BYTES_MAX
    finally:
        tracemalloc.stop()
    assert "all after 134,217,728 bytes are left out" in caplog.text
    found = read_segment(segment)
    set_aside(found)
    assert not segment.exists()
    assert segment.with_name(segment.name + ".bad").stat().st_size == 3 << 30


def test_long_line(journal, tmp_path):
    """A line longer than the limit is damaged, and the other lines are read."""
    journal.commit(ROWS[:1])
    (segment,) = journal.roll()
    with segment.open("ab") as file:
        file.write(b"x" * 3_000_000 + b"\n" + encode_line(ROWS[1]))
    found = read_segment(segment)
    assert (found.candles, found.damaged, found.torn) == (ROWS[:2], {2: None}, False)


def test_replay_of_lines_that_are_no_candles(tmp_path):
    """A replay merges the candles, sets damaged lines aside, and keeps lines of another version."""
    store = LakeStore.create(str(tmp_path), "test")
    for name, line in (
        ("bad", encode_line(stream_candle(begin_ms=-60_000, end_ms=0))),
        ("other", other_version()),
    ):
        dead = create_journal(tmp_path, name)
        dead.commit(ROWS[:1])
        (segment,) = dead.roll()
        with segment.open("ab") as file:
            file.write(line + encode_line(ROWS[2]))
        os.close(dead._lock_fd)
    bad, other = replay_dead(store)
    assert (bad.candles, bad.damaged, bad.waiting, bad.error) == (2, 1, 0, "")
    assert (tmp_path / JOURNAL_DIRECTORY / f"{bad.name}.bad").read_bytes() == encode_line(
        stream_candle(begin_ms=-60_000, end_ms=0)
    )
    assert (other.candles, other.damaged, other.waiting) == (2, 0, 1)
    assert other.error == "1 lines of another version; pip install --upgrade lakewriter"
    assert (tmp_path / JOURNAL_DIRECTORY / other.name).exists()
    table = store.read(partition_of(ROWS[0]))
    assert table is not None
    assert table.num_rows == 2
    (again,) = replay_dead(store)
    assert again == other


@pytest.mark.parametrize("kind", ["pipe", "socket", "device", "directory", "ring", "nowhere"])
def test_odd_things_in_the_journal(tmp_path, kind, caplog):
    """Pipes, sockets, devices and links beside segments and journals, or as locks, block no reader."""
    journal = create_journal(tmp_path, "living")
    journal.commit(ROWS)
    for place in (journal.directory / "00000009.ndjson", tmp_path / JOURNAL_DIRECTORY / "odd"):
        put_odd(place, kind)
    dead = create_journal(tmp_path, "dead")
    os.close(dead._lock_fd)
    (dead.directory / "lock").unlink()
    put_odd(dead.directory / "lock", kind)
    assert read_unflushed(tmp_path) == ROWS
    assert journal.directory.name in living_recorders(tmp_path)
    adopted = {each.directory for each in adopt_dead(tmp_path)}
    assert dead.directory not in adopted or kind == "nowhere"
    journal.close()


def put_odd(path: Path, kind: str) -> None:
    """Put a pipe, socket, device, directory, circular or broken link at a path."""
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as made, contextlib.chdir(path.parent):
            made.bind(path.name)  # the path of a socket is short
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "directory":
        path.mkdir()
    elif kind == "ring":
        path.symlink_to(path.name)
    else:
        path.symlink_to(path.with_name("nowhere"))


@pytest.mark.parametrize("kind", ["pipe", "socket", "device", "directory", "ring"])
def test_odd_thing_for_the_journals_own_lock(tmp_path, kind):
    """Readers continue without the lock; a recorder that cannot take it ends with an error."""
    journal = create_journal(tmp_path, "living")
    journal.commit(ROWS)
    (tmp_path / JOURNAL_DIRECTORY / "lock").unlink()
    put_odd(tmp_path / JOURNAL_DIRECTORY / "lock", kind)
    assert read_unflushed(tmp_path) == ROWS
    assert living_recorders(tmp_path) == {journal.directory.name}
    with pytest.raises(OSError):
        create_journal(tmp_path, "next")
    journal.close()


@pytest.mark.parametrize("kind", ["pipe", "file", "nowhere"])
def test_odd_thing_for_all_journals(tmp_path, kind, caplog):
    """A file in the place of the journal's directory gives no candles and no error."""
    (tmp_path / JOURNAL_DIRECTORY).parent.mkdir()
    if kind == "file":
        (tmp_path / JOURNAL_DIRECTORY).write_text("?")
    else:
        put_odd(tmp_path / JOURNAL_DIRECTORY, kind)
    assert read_unflushed(tmp_path) == []
    assert living_recorders(tmp_path) == frozenset()
    assert ("Not a directory; its candles are left out" in caplog.text) == (kind != "nowhere")


def removed(journal: Journal, spare: Path) -> None:
    shutil.rmtree(journal.directory.parent)


def all_removed(journal: Journal, spare: Path) -> None:
    shutil.rmtree(journal.directory.parent.parent)


def moved(journal: Journal, spare: Path) -> None:
    journal.directory.parent.rename(spare)


def own_moved(journal: Journal, spare: Path) -> None:
    journal.directory.rename(spare)


def emptied(journal: Journal, spare: Path) -> None:
    for path in journal.directory.iterdir():
        path.unlink()


def unlocked(journal: Journal, spare: Path) -> None:
    (journal.directory / "lock").unlink()


def replaced_by_a_copy(journal: Journal, spare: Path) -> None:
    journal.directory.parent.rename(spare)
    shutil.copytree(spare, journal.directory.parent)


TAKEN_AWAY = [removed, all_removed, moved, own_moved, emptied, unlocked, replaced_by_a_copy]


@pytest.mark.parametrize("take_away", TAKEN_AWAY)
@pytest.mark.parametrize("noticed_by", ["commit", "check"])
def test_journal_taken_away(tmp_path, take_away, noticed_by):
    """The next commit or check notices a moved journal, and creates it again with its lock."""
    root = tmp_path / "lake"
    root.mkdir()
    journal = create_journal(root, "host-1")
    journal.commit(ROWS[:2])
    take_away(journal, tmp_path / "elsewhere")
    if noticed_by == "commit":
        with pytest.raises(DiskRefusedError, match="was deleted or moved"):
            journal.commit(ROWS[2:3])
    else:
        journal.check()
    assert journal.lost
    journal.roll()
    assert journal.lost, "until it is told otherwise"
    journal.commit(ROWS[:3])
    journal.clear_lost()
    journal.check()
    assert not journal.lost
    assert sorted(set(read_unflushed(root)), key=lambda row: row.begin_ms) == ROWS[:3]
    assert adopt_dead(root) == []
    journal.drop(journal.roll())
    journal.close()
    assert not journal.directory.exists()


def test_journal_is_not_made_in_a_lake_that_is_gone(tmp_path):
    """Without the lake's root commits are refused and create nothing; when it is back they work."""
    root = tmp_path / "lake"
    root.mkdir()
    journal = create_journal(root, "host-1")
    journal.commit(ROWS[:1])
    root.rename(tmp_path / "away")
    for match in ("was deleted or moved", "lake is gone"):
        with pytest.raises(DiskRefusedError, match=match):
            journal.commit(ROWS[1:2])
    journal.check()
    assert journal.roll() == []
    assert not root.exists()
    (tmp_path / "away").rename(root)
    journal.commit(ROWS[1:2])
    assert read_unflushed(root) == [ROWS[0], ROWS[1], ROWS[1]], "a line that was refused may be there"
    assert len(journal.roll()) == 2
    journal.close()


def test_a_journal_that_is_being_adopted_is_not_made_anew(tmp_path):
    """If another process adopts a journal whose lock was deleted, its owner waits until that ends."""
    journal = create_journal(tmp_path, "host-1")
    journal.commit(ROWS[:1])
    (journal.directory / "lock").unlink()
    (adopted,) = adopt_dead(tmp_path)
    for match in ("was deleted or moved", "is being taken over"):
        with pytest.raises(DiskRefusedError, match=match):
            journal.commit(ROWS[1:2])
    assert flushed(adopted) == ROWS[:2], "a line that was refused may be there"
    adopted.close()
    journal.commit(ROWS[1:2])
    assert journal.lost
    assert read_unflushed(tmp_path) == ROWS[1:2]
    journal.close()


def test_segment_that_cannot_be_deleted(journal, tmp_path, caplog):
    """A segment that cannot be deleted is logged, and the next roll returns it."""
    journal.commit(ROWS)
    (segment,) = journal.roll()
    segment.rename(tmp_path / "kept")
    segment.mkdir()
    journal.drop([segment])
    assert "flushed segments cannot be deleted, and stay: Is a directory" in caplog.text
    segment.rmdir()
    (tmp_path / "kept").rename(segment)
    assert flushed(journal) == ROWS
    assert not journal.lost


SEGMENT = b"".join(map(encode_line, ROWS))


@examples(100, 500)
@given(place=st.integers(0, len(SEGMENT) - 1), flip=st.integers(1, 255))
def test_changed_byte(tmp_path_factory, place, flip):
    """A changed byte loses at most the candles of its lines, and changes none."""
    changed = bytearray(SEGMENT)
    changed[place] ^= flip
    path = tmp_path_factory.getbasetemp() / "changed.ndjson"
    path.write_bytes(changed)
    found = read_segment(path)
    assert found.candles == [row for row in ROWS if row in found.candles]
    assert 3 <= len(found.candles) < 5
    assert found.torn or found.damaged


def test_segments_are_bounded(journal, tmp_path):
    """A full segment gets no more lines; the next commit opens another one."""
    journal.commit([stream_candle(symbol="A" * SEGMENT_BYTES_MAX)])
    assert journal.segment_bytes > SEGMENT_BYTES_MAX
    journal.commit([ROWS[0]])
    journal.commit([ROWS[1]])
    first, second = journal.roll()
    assert read_segment(second).candles == ROWS[:2]
    journal.drop([first])


@pytest.mark.parametrize("grown", [0, 1, 400, 1000])
def test_disk_full(journal, tmp_path, grown):
    """On a full disk no candle of the commit stays, earlier commits do, and later ones work."""
    journal.commit(ROWS[:1])
    before = journal.segment_bytes
    with full_disk(before + grown), pytest.raises(LakeError) as caught:
        journal.commit(ROWS[1:4])
    assert caught.value.what == f"journal: {journal.directory}: File too large"
    assert caught.value.hint == "nothing that was logged as recorded is lost"
    assert journal.segment_bytes == before
    assert next(journal.directory.glob("*.ndjson")).stat().st_size == before
    assert read_unflushed(tmp_path) == ROWS[:1]
    journal.commit(ROWS[4:])
    assert read_unflushed(tmp_path) == [ROWS[0], ROWS[4]]


def test_disk_full_at_the_first_commit(journal, tmp_path):
    """After a full disk at the first bytes, the journal still works."""
    with full_disk(10), pytest.raises(LakeError):
        journal.commit(ROWS)
    assert read_unflushed(tmp_path) == []
    journal.commit(ROWS)
    assert flushed(journal) == ROWS


def test_journals_apart(tmp_path):
    """Two recorders with one name have separate directories, and readers see both."""
    one, other = create_journal(tmp_path, "host-1"), create_journal(tmp_path, "host-1")
    assert one.directory != other.directory
    one.commit(ROWS[:1])
    other.commit(ROWS[1:])
    assert sorted(read_unflushed(tmp_path), key=lambda row: row.begin_ms) == ROWS
    for journal in (one, other):
        flushed(journal)
        journal.close()


def test_nothing_there(tmp_path):
    """A lake without a journal has no unflushed candles and no dead recorders."""
    assert read_unflushed(tmp_path) == []
    assert adopt_dead(tmp_path) == []


def test_other_files(journal, tmp_path):
    """Files that are no segments are ignored."""
    journal.commit(ROWS)
    (journal.directory / "notes.txt").write_text("x")
    (tmp_path / JOURNAL_DIRECTORY / "stray.ndjson").write_bytes(SEGMENT)
    assert read_unflushed(tmp_path) == ROWS
    assert len(journal.roll()) == 1


def test_close(tmp_path):
    """A flushed journal leaves no directory; an unflushed one leaves its candles."""
    empty, full = create_journal(tmp_path, "a"), create_journal(tmp_path, "b")
    empty.close()
    assert not empty.directory.exists()
    full.commit(ROWS)
    full.close()
    assert read_unflushed(tmp_path) == ROWS
    (adopted,) = adopt_dead(tmp_path)
    assert adopted.directory == full.directory
    assert flushed(adopted) == ROWS
    adopted.close()
    assert [path.name for path in (tmp_path / JOURNAL_DIRECTORY).iterdir()] == ["lock"]


def test_adopted_once(tmp_path):
    """If processes adopt dead journals at once, each journal gets one new owner; living ones are unchanged."""
    living_recorders = create_journal(tmp_path, "living")
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
    for journal in [*adopted, living_recorders]:
        journal.close()


RECORDER = """
import sys
from pathlib import Path
import msgspec
from lakewriter.candle import Candle
from lakewriter.interval import TIME_MS_MAX
from lakewriter.lake.journal import create_journal
journal = create_journal(Path(sys.argv[1]), "child")
journal.commit([msgspec.json.decode(line, type=Candle) for line in sys.argv[2:]])
print(journal.directory, flush=True)
sys.stdin.read()
"""


@pytest.mark.slow
def test_dead_recorder(tmp_path):
    """A living recorder's journal is not adopted; after kill -9 it is, with all committed candles."""
    with python_child(RECORDER, tmp_path, *(msgspec.json.encode(row).decode() for row in ROWS)) as recorder:
        assert recorder.stdout is not None
        directory = Path(recorder.stdout.readline().strip())
        assert directory.name.startswith("child-")
        assert adopt_dead(tmp_path) == []
        assert read_unflushed(tmp_path) == ROWS
        recorder.send_signal(signal.SIGKILL)
        recorder.wait(PATIENCE_S)
        (adopted,) = adopt_dead(tmp_path)
    assert adopted.directory == directory
    assert adopt_dead(tmp_path) == []
    assert read_unflushed(tmp_path) == ROWS
    assert flushed(adopted) == ROWS
    adopted.close()
    assert not directory.exists()


def test_read_while_recorders_flush(tmp_path):
    """A reader of the journal and then the lake misses no candle committed before."""
    journal = create_journal(tmp_path, "x")
    committed: list[int] = []
    merged: list[int] = []
    done = threading.Event()

    def record() -> None:
        try:
            for minute in range(150):
                journal.commit([stream_candle(minute)])
                committed.append(stream_candle(minute).begin_ms)
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
        hot = {row.begin_ms for row in read_unflushed(tmp_path)}
        assert set(promised) <= hot | set(merged)
        reads += 1
    recorder.join()
    assert len(merged) == 150
    journal.close()


@examples(15, 60)
@given(
    steps=st.lists(st.lists(candles(), max_size=4) | st.sampled_from(["roll", "flush", "die"]), max_size=20)
)
def test_loses_nothing(tmp_path_factory, steps):
    """In any order of commits, rolls, flushes and deaths, each candle is in the journal or flushed."""
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
        assert read_unflushed(root) == hot
    journal.close()
