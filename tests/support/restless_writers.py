"""Writers that change a lake all the time without changing any answer.

Each row that they write is in the lake already, or loses to a row there. Only the place
of a row changes: a journal, a partition's own file, or a foreign file beside it. So
each statement has one right answer at any time.
"""

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from lakewriter.candle import Candle, to_table
from lakewriter.lake.compact import compact_partitions
from lakewriter.lake.journal import Journal, create_journal
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.parquet import encode_next
from lakewriter.lake.partition_filter import PartitionFilter
from lakewriter.partition import Partition, by_partition
from support.compaction import plan_compaction

# A loser of the first round has so many trades; each later round has one more. Rows have a million.
_TRADES_MIN = 1

_PAUSE_S = 0.02


class Kept(NamedTuple):
    """A partition and its rows, which each answer must have."""

    partition: Partition
    rows: list[Candle]


class Plan(NamedTuple):
    """The partitions for each kind of writer.

    Args:
        planted: an own file has the rows; foreign files with the same rows,
            losing ones, or parts of them are added and compacted.
        hidden: an own file has losing rows, replaced again and again; the rows are
            in the journal, and in no file.
        folded: foreign files alone have the rows, until compaction makes an own file.
        moving: the rows are in the journal, and flushed once.
        recorded: a recorder adds losing rows; half of the rows are in the journal alone.
    """

    planted: list[Kept]
    hidden: list[Kept]
    folded: list[Kept]
    moving: list[Kept]
    recorded: list[Kept]


def kept_partitions(rows: Iterable[Candle]) -> list[Kept]:
    found = by_partition(rows)
    return [Kept(partition, found[partition]) for partition in sorted(found)]


def planned(kept: list[Candle], recorded: list[Candle], seed: int) -> Plan:
    """Return a random plan, with equally many partitions of each kind."""
    partitions = kept_partitions(kept)
    random.Random(seed).shuffle(partitions)
    return Plan(*(partitions[number::4] for number in range(4)), recorded=kept_partitions(recorded))


def losers(rows: list[Candle], turn: int) -> list[Candle]:
    """Return rows of the same keys that lose to the given rows, and win over those of earlier turns."""
    return [
        msgspec.structs.replace(one, source="rest", trade_num=_TRADES_MIN + turn, high=1e6 + turn)
        for one in rows
    ]


def half(rows: list[Candle]) -> list[Candle]:
    """Return the rows of a recorded partition that its file has from the beginning."""
    return [one for one in rows if one.begin_ms // 3_600_000 % 2]


def prepare(store: LakeStore, todo: Plan) -> None:
    """Write the files of the beginning."""
    for partition, rows in todo.planted:
        store.merge(partition, to_table(rows))
    for partition, rows in todo.hidden:
        store.merge(partition, to_table(losers(rows, 0)))
    for number, (partition, rows) in enumerate(todo.folded):
        plant(store.root, partition, to_table(rows[:1]), f"part-{number}.parquet")
        plant(store.root, partition, to_table(rows), f"part-{number}-0.parquet")
    for partition, rows in todo.recorded:
        if half(rows):
            store.merge(partition, to_table(half(rows)))


def plant(root: Path, partition: Partition, table: pa.Table, name: str) -> None:
    """Put a foreign file into a partition, atomically."""
    directory = root / partition.path
    directory.mkdir(parents=True, exist_ok=True)
    hidden = directory / f".{name}.arriving"
    pq.write_table(table, hidden)
    hidden.rename(directory / name)


class Unsettled:
    """The writers of one process.

    Args:
        count: the number of actions by name, which each action increases.
    """

    def __init__(self, store: LakeStore, todo: Plan, count: Counter[str], seed: int) -> None:
        self._store = store
        self._todo = todo
        self._count = count
        self._chance = random.Random(seed)
        self._turn = 1
        self._journal: Journal = create_journal(store.root, "unsettling")
        hidden = [one for kept in todo.hidden for one in kept.rows]
        alone = [one for kept in todo.recorded for one in kept.rows if one not in half(kept.rows)]
        self._commit([*hidden, *alone])
        self._moving = [(kept, self._commit(kept.rows)) for kept in todo.moving]
        self._repeated: list[list[Path]] = []

    def step(self) -> None:
        """Do one random action."""
        weights: dict[Callable[[], None], int] = {
            self._plant: 6,
            self._rewrite: 6,
            self._unfold: 3,
            self._repeat: 4,
            self._spell_anew: 3,
            self._compact: 2,
        }
        [chosen] = self._chance.choices(list(weights), list(weights.values()))
        chosen()
        self._count[chosen.__name__.strip("_")] += 1

    def move(self) -> None:
        """Flush one more partition whose rows are in the journal alone, if any is left."""
        if self._moving:
            (partition, rows), segments = self._moving.pop()
            self._store.merge(partition, to_table(rows))
            self._journal.drop(segments)
            self._count["move"] += 1

    def close(self) -> None:
        self._journal.close()

    def _commit(self, rows: list[Candle]) -> list[Path]:
        """Write rows as a separate segment, and return it."""
        before = set(self._journal.roll())
        self._journal.commit(rows)
        return [segment for segment in self._journal.roll() if segment not in before]

    def _in_journal_alone(self, kept: Kept) -> bool:
        """Return whether some rows are in no file, and have to stay so."""
        return kept in self._todo.hidden or kept in self._todo.recorded

    def _any(self, *kinds: list[Kept]) -> Kept:
        return self._chance.choice([kept for kind in kinds for kept in kind])

    def _plant(self) -> None:
        """Put foreign files into a partition, with its rows or with losing ones."""
        todo = self._todo
        kept = self._any(todo.planted, todo.hidden, todo.folded, todo.recorded)
        many = self._chance.randint(1, 3)
        for number in range(many):
            part = kept.rows[number::many]
            if self._in_journal_alone(kept) or self._chance.random() < 0.5:
                part = losers(part, self._turn - 1)
            if part:
                name = f"part-{self._chance.randrange(10**6)}.parquet"
                plant(self._store.root, kept.partition, to_table(part), name)

    def _rewrite(self) -> None:
        """Merge rows that win over the file's rows and lose to the journal's, in a true merge."""
        self._turn += 1
        items = self._chance.sample(self._todo.hidden, 2)
        rows = [losers(kept.rows, self._turn) for kept in items]
        segments = self._commit([one for each in rows for one in each])
        for kept, each in zip(items, rows, strict=True):
            assert self._store.merge(kept.partition, to_table(each)).written
        self._journal.drop(segments)

    def _repeat(self) -> None:
        """Add duplicates of rows to the journal, losing or equal, and drop earlier ones."""
        kept = self._any(self._todo.planted, self._todo.folded, self._todo.recorded)
        again = [] if self._in_journal_alone(kept) else kept.rows
        self._repeated.append(self._commit([*losers(kept.rows, self._turn), *again]))
        if len(self._repeated) > 5:
            self._journal.drop(self._repeated.pop(self._chance.randrange(5)))

    def _unfold(self) -> None:
        """Rename a partition's own file to a foreign name."""
        partition, _ = self._any(self._todo.folded)
        own = self._store.root / partition.file
        with self._store.storage.exclusive(partition.path):
            if own.exists():
                own.with_name(f"part-{self._chance.randrange(10**6)}.parquet").hardlink_to(own)
                own.unlink()

    def _spell_anew(self) -> None:
        """Replace an own file by the same rows in another encoding, like Spark."""
        partition, _ = self._any(self._todo.planted, self._todo.recorded)

        def once() -> None:
            found = self._store.storage.read(partition.file)
            rows = self._store.read(partition)
            if found is not None and rows is not None:
                data = encode_next(rows, partition, found.data)
                if self._chance.random() < 0.5:
                    sink = pa.BufferOutputStream()
                    pq.write_table(rows, sink, row_group_size=2, compression="snappy")
                    data = sink.getvalue().to_pybytes()
                self._store.storage.replace(partition.file, data, found.version)

        self._store.with_exclusive_retry(partition, once)

    def _compact(self) -> None:
        symbol = self._chance.choice([kept.partition.symbol for kept in self._todo.planted])
        todo = plan_compaction(self._store, PartitionFilter(symbols=(symbol,)))
        for outcome in compact_partitions(self._store, todo.work, time.time()):
            assert not outcome.error, outcome


def unsettle(
    root: str, todo: Plan, seed: int, ready: Any, stop: Any, counts: Any, moves_per_s: float
) -> None:
    """Run the writers in this process until `stop` is set, then put their counts."""
    parent = os.getppid()
    os.nice(5)
    count: Counter[str] = Counter()
    writers = Unsettled(LakeStore.open(root), todo, count, seed)
    ready.set()
    started_s = time.monotonic()
    while not stop.is_set() and os.getppid() == parent:
        writers.step()
        if count["move"] < (time.monotonic() - started_s) * moves_per_s:
            writers.move()
        time.sleep(_PAUSE_S)
    writers.close()
    counts.put(dict(count))
