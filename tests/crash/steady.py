"""A child that commits, merges and drops until its disk fails, and reports each promise at once.

Usage: steady.py ROOT PROMISES SEED KIND
"""

import os
import random
import sys
import time
from collections.abc import Iterable
from itertools import count
from pathlib import Path

from crash.remains import key_of, make_candle
from lakewriter.candle import Candle, to_table
from lakewriter.lake.durable import make_directories, sync_directory
from lakewriter.lake.journal import Journal, create_journal
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.segments import encode_line
from lakewriter.lake.storage import ChangedError, LocalStorage
from lakewriter.partition import by_partition


class NoFileSync(LocalStorage):
    """A faulty storage that renames a file before its bytes are on the disk."""

    def replace(self, name: str, data: bytes, expected: str | None) -> str:
        version = _rename_over(self, name, data, expected, sync=False)
        sync_directory((self.root / name).parent)
        return version


class NoDirectorySync(LocalStorage):
    """A faulty storage that returns before the new name is on the disk."""

    def replace(self, name: str, data: bytes, expected: str | None) -> str:
        return _rename_over(self, name, data, expected, sync=True)


def _rename_over(storage: LocalStorage, name: str, data: bytes, expected: str | None, *, sync: bool) -> str:
    target = storage.root / name
    make_directories(storage.root, target.parent)
    temporary = target.with_name(".careless.tmp-1")
    with temporary.open("wb", buffering=0) as file:
        file.write(data)
        if sync:
            os.fsync(file.fileno())
    if storage.version(name) != expected:
        raise ChangedError(name)
    temporary.rename(target)
    version = storage.version(name)
    assert version is not None
    return version


class NoJournalSync(Journal):
    """A faulty writer: it reports a promise after the write, without a sync."""

    def commit(self, candles: Iterable[Candle]) -> int:
        written = os.write(self._open_segment(), b"".join(map(encode_line, candles)))
        self._bytes += written
        return written


STORAGES = {"no-file-sync": NoFileSync, "no-directory-sync": NoDirectorySync}


def main(root: Path, promises: str, seed: str, kind: str = "whole") -> None:
    chance = random.Random(seed)
    log = os.open(promises, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def tell(what: str, candles: list[Candle]) -> None:
        keys = " ".join("{}:{}".format(*key_of(candle)) for candle in candles)
        os.write(log, f"{what} {keys}\n".encode())
        time.sleep(chance.choice([0, 0, 0.002, 0.02]))  # so that each state is sometimes met

    store = LakeStore.create(str(root), "test")
    store.storage = STORAGES.get(kind, LocalStorage)(root, root / "_lakewriter/locks")
    journal = create_journal(root, "child")
    if kind == "no-journal-sync":
        journal = NoJournalSync(journal.directory, journal._lock_fd)
    minutes = count(chance.randrange(10_000))
    while True:
        committed: list[Candle] = []
        for _ in range(chance.randint(1, 4)):
            group = [make_candle(symbol, next(minutes)) for symbol in ("BTCUSDT", "ETHUSDT", "BTCUSDT")]
            journal.commit(group)
            tell("committed", group)
            committed += group
        segments = journal.roll()
        partitions = by_partition(committed)
        if kind == "whole" and chance.random() < 0.5:
            items = [(partition, to_table(candles)) for partition, candles in partitions.items()]
            for result in store.merge_many(items):
                if isinstance(result, Exception):
                    raise result
            tell("merged", [candle for candles in partitions.values() for candle in candles])
        else:
            for partition, candles in partitions.items():
                store.merge(partition, to_table(candles))
                tell("merged", candles)
        journal.drop(segments)
        tell("dropped", [])
        if chance.random() < 0.3:  # another day: directories are made
            minutes = count(chance.randrange(100_000))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
