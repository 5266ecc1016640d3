"""Any order of commit, flush, crash, replay and compaction loses nothing and repeats nothing."""

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from crash.remains import (
    LATER_S,
    compact_all,
    journal_directories,
    key_of,
    make_candle,
    recover,
    strays,
    tables,
)
from lakewriter.candle import Candle, precedence, to_table
from lakewriter.errors import LakeError
from lakewriter.lake import compact
from lakewriter.lake.journal import adopt_dead, create_journal
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.segments import encode_line, read_segment, set_aside
from lakewriter.lake.storage import LocalStorage
from lakewriter.lake.unflushed import read_unflushed
from lakewriter.partition import FILE_NAME, partition_of
from lakewriter.recording.flushing.buffer import Batch, Buffer
from support.compaction import plan_compaction, write_verified
from support.full_disk import full_disk
from support.lengths import either
from support.running import plain_rows

pytestmark = pytest.mark.slow

RECORDERS_MAX = 2
NO_TIME = -(2**63)


class Row(NamedTuple):
    """A candle as readers see it, with the values that decide between duplicates first.

    The volume decides only where trades are unknown, which no row here has.
    """

    archive: bool
    trade_num: int
    volume: float
    recv_us: int
    open: float
    close: float


Rows = dict[tuple[str, int], Row]

candles = st.builds(
    make_candle,
    symbol=st.sampled_from(["BTCUSDT", "ETHUSDT"]),
    minute=st.sampled_from([0, 1, 2, 1438, 1439, 1440, 1441]),  # of two days
    trade_num=st.integers(1, 3),
    recv_us=st.integers(1, 3),
    source=st.sampled_from(["stream", "stream", "rest", "archive"]),
)
some_candles = st.lists(candles, min_size=1, max_size=5)


class Died(BaseException):
    """An exception that no code handles, like SIGKILL."""


class DyingStorage(LocalStorage):
    """A storage whose process dies at a deletion."""

    deletions = 0

    def delete(self, name: str) -> None:
        self._die_or_go_on()
        super().delete(name)

    def delete_unchanged(self, versions: Mapping[str, str]) -> list[str]:
        removed = []
        for each in versions.items():
            self._die_or_go_on()
            removed += super().delete_unchanged(dict([each]))
        return removed

    def _die_or_go_on(self) -> None:
        if not self.deletions:
            raise Died
        self.deletions -= 1


class SlowRecorder:
    """A recorder in single steps: at each `yield` it may die, or others may work."""

    def __init__(self, store: LakeStore) -> None:
        self.store = store
        self.journal = create_journal(store.root, "model")
        self.buffer = Buffer()
        self.refused = ""
        self.flushing: Iterator[None] | None = None
        self.replaying: Iterator[None] | None = self._replay_dead()
        self.adopted: list[int] = []

    def commit(self, group: list[Candle]) -> None:
        self.journal.commit(group)
        self.buffer.add(group, 0.0)

    def flush(self) -> Iterator[None]:
        """Flush as Recorder.flush does."""
        segments, batch = self.journal.roll(), self.buffer.seal()
        yield
        left: Batch = {}
        for partition, rows in batch.items():
            if partition.symbol == self.refused:
                left[partition] = rows
            else:
                self.store.merge(partition, to_table(rows))
            yield
        for partition in batch.keys() - left.keys():
            self.buffer.discard(partition)
        if left and len(left) == len(batch):
            return
        if left:
            self.journal.commit([candle for rows in left.values() for candle in rows])
            yield
        for segment in segments:
            self.journal.drop([segment])
            yield

    def _replay_dead(self) -> Iterator[None]:
        """Replay as replay_dead does."""
        journals = adopt_dead(self.store.root)
        self.adopted = [journal._lock_fd for journal in journals]
        yield
        for journal in journals:
            for path in journal.roll():
                segment = read_segment(path)
                buffer = Buffer()
                buffer.add(segment.candles, 0.0)
                for partition, rows in buffer.seal().items():
                    self.store.merge(partition, to_table(rows))
                    yield
                    self.store.sweep(partition)
                    yield
                if segment.damaged:
                    set_aside(segment)
                    yield
                journal.drop([path])
                yield
            journal.close()
            self.adopted.remove(journal._lock_fd)
            yield

    def stop(self) -> None:
        """Finish all pending work, like a clean stop."""
        self.refused = ""
        for steps in (self.flushing, self.flush(), self.replaying):
            for _ in steps or ():
                pass
        self.journal.close()

    def die(self) -> None:
        """Release the locks of a dead process, as the kernel does."""
        self.journal._close_segment()
        for fd in (self.journal._lock_fd, *self.adopted):
            os.close(fd)


class JournalAndLake(RuleBasedStateMachine):
    """Recorders and compactions that stop anywhere, compared with a dict of the promises."""

    def __init__(self) -> None:
        super().__init__()
        self._directory = tempfile.TemporaryDirectory()
        self.store = LakeStore.create(str(Path(self._directory.name) / "lake"), "test")
        self.root = self.store.root
        self.recorders: list[SlowRecorder] = []
        self.truth: Rows = {}
        self.foreign = 0
        self.reader: tuple[list[Candle], Rows] | None = None

    def recorder(self, number: int) -> SlowRecorder:
        return self.recorders[number % len(self.recorders)]

    def promise(self, group: list[Candle]) -> None:
        self.truth = settled([self.truth, *map(rows_of_candle, group)])

    @precondition(lambda self: len(self.recorders) < RECORDERS_MAX)
    @rule()
    def a_recorder_starts(self) -> None:
        self.recorders.append(SlowRecorder(self.store))

    @precondition(lambda self: self.recorders)
    @rule(number=st.integers(0, 1), group=some_candles)
    def a_commit(self, number: int, group: list[Candle]) -> None:
        self.recorder(number).commit(group)
        self.promise(group)

    @precondition(lambda self: self.recorders)
    @rule(number=st.integers(0, 1), group=some_candles, room_bytes=st.integers(0, 400))
    def a_commit_on_a_full_disk(self, number: int, group: list[Candle], room_bytes: int) -> None:
        """Commit on a nearly full disk: all or nothing is committed, and the journal continues."""
        recorder = self.recorder(number)
        with contextlib.suppress(LakeError), full_disk(recorder.journal.segment_bytes + room_bytes):
            recorder.commit(group)
            self.promise(group)

    @precondition(lambda self: self.recorders)
    @rule(number=st.integers(0, 1), symbol=st.sampled_from(["", "BTCUSDT"]))
    def a_partition_refuses_or_not(self, number: int, symbol: str) -> None:
        self.recorder(number).refused = symbol

    @precondition(lambda self: self.recorders)
    @rule(number=st.integers(0, 1), steps=st.integers(1, 12))
    def a_flush_goes_on(self, number: int, steps: int) -> None:
        recorder = self.recorder(number)
        if recorder.flushing is None:
            recorder.flushing = recorder.flush()
        recorder.flushing = advanced(recorder.flushing, steps)

    @precondition(lambda self: any(recorder.replaying for recorder in self.recorders))
    @rule(number=st.integers(0, 1), steps=st.integers(1, 12))
    def a_replay_goes_on(self, number: int, steps: int) -> None:
        recorder = self.recorder(number)
        recorder.replaying = advanced(recorder.replaying, steps)

    @precondition(lambda self: self.recorders)
    @rule(number=st.integers(0, 1))
    def a_recorder_dies(self, number: int) -> None:
        self.recorders.pop(number % len(self.recorders)).die()

    @precondition(lambda self: self.recorders)
    @rule(number=st.integers(0, 1), group=some_candles, part=st.floats(0, 1))
    def a_recorder_dies_in_the_middle_of_a_commit(
        self, number: int, group: list[Candle], part: float
    ) -> None:
        """Kill a recorder during a commit: whole lines are read, though not committed; the torn one is not."""
        recorder = self.recorders.pop(number % len(self.recorders))
        lines = b"".join(map(encode_line, group))
        written = lines[: int(part * len(lines))]
        os.write(recorder.journal._open_segment(), written)
        self.promise(group[: written.count(b"\n")])
        recorder.die()

    @precondition(lambda self: self.recorders)
    @rule(number=st.integers(0, 1), garbage=st.binary(min_size=1, max_size=60))
    def a_power_loss_leaves_garbage_behind_the_last_line(self, number: int, garbage: bytes) -> None:
        recorder = self.recorders.pop(number % len(self.recorders))
        os.write(recorder.journal._open_segment(), garbage)
        recorder.die()

    @precondition(lambda self: self.recorders)
    @rule(number=st.integers(0, 1))
    def a_recorder_stops(self, number: int) -> None:
        self.recorders.pop(number % len(self.recorders)).stop()

    @rule(group=some_candles, whole=st.booleans())
    def somebody_adds_a_file(self, group: list[Candle], whole: bool) -> None:
        """Add a foreign file, which may repeat rows of the lake and its own."""
        partition = partition_of(group[0])
        group = [candle for candle in group if partition_of(candle) == partition]
        # What contradicts itself is refused whole.
        group = [*{key_of(candle): candle for candle in group}.values()]
        group.append(group[0])
        if whole:
            table = to_table(group)
        else:  # what decides between duplicates is not in it, so prices may not follow from it
            bare = [make_candle(*key_of(candle), candle.trade_num) for candle in group]
            table = to_table(bare).drop_columns(["event_time", "recv_time", "source"])
        directory = self.root / partition.path
        directory.mkdir(parents=True, exist_ok=True)
        self.foreign += 1
        pq.write_table(table, directory / f"part-{self.foreign}.parquet")
        self.truth = settled([self.truth, *rows_of(partition.symbol, table)])

    @rule(candle=candles, data=st.binary(max_size=20))
    def a_writer_died_before_its_rename(self, candle: Candle, data: bytes) -> None:
        directory = self.root / partition_of(candle).path
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f".{FILE_NAME}.tmp-1-ab").write_bytes(data)

    @rule(deletions=st.none() | st.integers(0, 2))
    def compaction(self, deletions: int | None) -> None:
        """Compact completely, or die after the replacement, before all foreign files are unlinked."""
        store = LakeStore.local(self.root)
        if deletions is not None:
            store.storage = DyingStorage(self.root, self.root / "_lakewriter/locks")
            store.storage.deletions = deletions
        plan = plan_compaction(store)
        with contextlib.suppress(Died):
            outcomes = list(compact.compact_partitions(store, plan.work, LATER_S))
            assert not [outcome.error for outcome in outcomes if outcome.error]
            write_verified(store, plan.in_order + outcomes, everything=True)

    @rule()
    def a_reader_reads_the_journals(self) -> None:
        self.reader = read_unflushed(self.root), self.truth

    @precondition(lambda self: self.reader)
    @rule()
    def the_reader_reads_the_files(self) -> None:
        """Read the files: the reader sees all candles committed before it began."""
        assert self.reader is not None
        hot, promised = self.reader
        seen = settled([*map(rows_of_candle, hot), *file_rows(tables(self.root))])
        assert all(key in seen and seen[key] >= row for key, row in promised.items())
        self.reader = None

    @invariant()
    def all_that_was_promised_is_there_and_nothing_else(self) -> None:
        """Check that the lake has exactly the promised candles, and that its files are whole and unique."""
        hot = map(rows_of_candle, read_unflushed(self.root))
        found = tables(self.root)
        assert settled([*hot, *file_rows(found)]) == self.truth
        for name, table in found.items():
            if name.endswith(f"/{FILE_NAME}"):
                begins = table["candle_begin_time"].cast(pa.int64()).to_pylist()
                assert begins == sorted(set(begins))
                day = table["candle_begin_time"].cast(pa.date32()).to_pylist()
                assert {f"date={each}" for each in day} == {name.split("/")[3]}

    @invariant()
    def no_file_is_astray(self) -> None:
        assert [name for name in strays(self.root) if "/part-" not in name] == []

    def teardown(self) -> None:
        """Merge all journals and compact; then each promised candle is in a file once."""
        with self._directory:
            for recorder in self.recorders:
                recorder.die()
            recover(self.root)
            compact_all(self.root)
            assert read_unflushed(self.root) == []
            assert all(
                {path.suffix for path in directory.iterdir()} == {".bad"}
                for directory in journal_directories(self.root)
            )
            assert strays(self.root) == []
            if self.truth:
                rows = plain_rows(self.root, "symbol, epoch_ms(candle_begin_time), trade_num, open, close")
                assert rows == [
                    (*key, row.trade_num, row.open, row.close) for key, row in sorted(self.truth.items())
                ]


def advanced(steps: Iterator[None] | None, count: int) -> Iterator[None] | None:
    """Run some steps; return the rest, or None without a rest."""
    ended = object()
    for _ in range(count):
        if steps is None or next(steps, ended) is ended:
            return None
    return steps


def rows_of_candle(candle: Candle) -> Rows:
    return {(candle.symbol, candle.begin_ms): Row(*precedence(candle), candle.open, candle.close)}


def rows_of(symbol: str, table: pa.Table) -> list[Rows]:
    """Return a table's rows; a missing value is the least one."""
    begins = table["candle_begin_time"].cast(pa.int64()).to_pylist()
    nothing = [None] * table.num_rows
    recv, source = (
        table[name].cast(kind).to_pylist() if name in table.column_names else nothing
        for name, kind in (("recv_time", pa.int64()), ("source", pa.string()))
    )
    columns = (table[name].to_pylist() for name in ("trade_num", "open", "close"))
    return [
        {
            (symbol, begin_ms): Row(
                source == "archive", trade_num, 0.0, NO_TIME if at is None else at, open_, close
            )
        }
        for begin_ms, source, at, trade_num, open_, close in zip(begins, source, recv, *columns, strict=True)
    ]


def file_rows(found: dict[str, pa.Table]) -> list[Rows]:
    """Return the rows of all files."""
    return [
        row
        for name, table in found.items()
        for row in rows_of(name.split("/")[1].removeprefix("symbol="), table)
    ]


def settled(many: list[Rows]) -> Rows:
    """Return the winner of each key."""
    winners: Rows = {}
    for rows in many:
        for key, row in rows.items():
            winners[key] = max(winners.get(key, row), row)
    return winners


JournalAndLake.TestCase.settings = settings(
    max_examples=either(15, 150),
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestJournalAndLake = JournalAndLake.TestCase
