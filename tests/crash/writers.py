"""The writers' test: many writers merge candles into the same partitions of a bucket at once.

    PYTHONPATH=tests python -m crash.writers --rounds 100
    PYTHONPATH=tests python -m crash.writers --rounds 15 --faults

Each round of a writer adds one candle of its own to each partition, and one that all writers
share. At the end each partition must have the candles of all writers, each once. With
`--faults` one in ten PUT requests is lost, refused, cut or stalled by a proxy.
"""

import asyncio
import contextlib
import random
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from crash import longrun
from lakewriter.candle import Candle, to_table
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.open import create_lake, open_to_read
from lakewriter.lake.prefetch import prefetch
from lakewriter.lake.remote.location import locate
from lakewriter.lake.remote.object_store import ObjectStorage
from lakewriter.lake.storage import ChangedError, Replacement
from lakewriter.partition import partition_of
from support.fault_proxy import FAULTS, FaultProxy
from support.lakes import rest_candle
from support.seaweed import REASON, Seaweed, find_program

S = TypeVar("S")
T = TypeVar("T")

# The candle that all writers merge: the last second of the day.
SHARED = 86_399

# One in so many PUT requests is disturbed; one in so many of these stalls for five seconds.
FAULT_EVERY = 10
STALL_EVERY = 50


def _candle(number: int, symbol: str = "BTCUSDT") -> Candle:
    return rest_candle(number, symbol=symbol, interval="1s")


class _Counting(ObjectStorage):
    """A bucket that counts replacements and conflicts, and has few pending merges."""

    commits = conflicts = 0
    pending = 1

    def in_parallel(self, read: Callable[[S], T], things: Iterable[S]) -> Iterator[T]:
        return prefetch(read, things, self.pending)

    def replace(self, name: str, data: bytes, expected: str | None) -> str:
        try:
            version = super().replace(name, data, expected)
        except ChangedError:
            self.conflicts += 1
            raise
        self.commits += 1
        return version

    def replace_all(self, replacements: Sequence[Replacement]) -> list[str | None]:
        versions = super().replace_all(replacements)
        self.conflicts += versions.count(None)
        self.commits += len(versions) - versions.count(None)
        return versions


class Writers:
    """Writers of the same partitions, in threads.

    Args:
        uri: the lake, as the writers reach it.
        writers, partitions, rounds: their numbers.
        pending: the number of merges that each writer does at once. All writers share one
            interpreter, so more of them mostly wait for each other.

    Attributes:
        errors: the errors of writers.
        slowest_s: the longest merge of a round, of all partitions.
    """

    def __init__(self, uri: str, *, writers: int, partitions: int, rounds: int, pending: int = 2) -> None:
        self.errors: list[Exception] = []
        self.slowest_s = self.seconds = 0.0
        self.commits = self.conflicts = 0
        self._uri = uri
        self._writers = writers
        self._rounds = rounds
        self._pending = pending
        self._symbols = [f"S{number}USDT" for number in range(partitions)]

    def run(self) -> None:
        """Merge in all threads at once, and wait for them."""
        started_s = time.monotonic()
        threads = [threading.Thread(target=self._write, args=(each,)) for each in range(self._writers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.seconds = time.monotonic() - started_s

    def _write(self, writer: int) -> None:
        try:
            lake = create_lake(self._uri, "test")
            lake.storage = counting = _Counting(locate(self._uri))
            counting.pending = self._pending
            order, symbols = random.Random(writer), list(self._symbols)
            for number in range(self._rounds):
                order.shuffle(symbols)
                own = writer * self._rounds + number
                rows = [[_candle(own, each), _candle(SHARED, each)] for each in symbols]
                began_s = time.monotonic()
                results = lake.merge_many([(partition_of(each[0]), to_table(each)) for each in rows])
                self.slowest_s = max(self.slowest_s, time.monotonic() - began_s)
                self.errors += [each for each in results if isinstance(each, Exception)]
            self.commits += counting.commits
            self.conflicts += counting.conflicts
        except Exception as error:  # noqa: BLE001 - the caller has to see it
            self.errors.append(error)

    def check(self, lake: LakeStore) -> dict[str, int]:
        """Return the number of candles that are lost, that are there twice, and that nobody wrote."""
        expected = {_candle(number).begin_ms for number in (*range(self._writers * self._rounds), SHARED)}
        found = {each.partition.symbol: each for each in lake.files()}
        counts = {"lost": 0, "doubled": 0, "strange": 0}
        for symbol in self._symbols:
            table = lake.read(found[symbol].partition) if symbol in found else None
            begins = [] if table is None else table["candle_begin_time"].cast("int64").to_pylist()
            counts["lost"] += len(expected - set(begins))
            counts["doubled"] += len(begins) - len(set(begins))
            counts["strange"] += len(set(begins) - expected)
        counts["strange"] += len(found.keys() - set(self._symbols))
        return counts


def disturb(proxy: FaultProxy, seed: int) -> None:
    """Let a proxy disturb one in ten PUT requests."""
    chance = random.Random(seed)
    quick = [fault for fault in FAULTS if fault != "stall"]

    def choose() -> str | None:
        if chance.randrange(FAULT_EVERY):
            return None
        return chance.choice(quick) if chance.randrange(STALL_EVERY) else "stall"

    proxy.choose = choose


async def main(
    directory: Path, seed: int, *, partitions: int, rounds: int, writers: int, pending: int, faults: bool
) -> bool:
    """Run the writers' test; return whether nothing was lost or doubled."""
    program = find_program()
    if program is None:
        sys.exit(REASON)
    server = Seaweed(directory, program)
    with contextlib.ExitStack() as stack:
        stack.callback(server.stop)
        bucket = server.bucket()
        proxy = FaultProxy(bucket.url)
        stack.callback(proxy.close)
        if faults:
            disturb(proxy, seed)
        work = Writers(
            bucket.uri("lake", proxy.url if faults else ""),
            writers=writers, partitions=partitions, rounds=rounds, pending=pending,
        )  # fmt: skip
        await asyncio.to_thread(work.run)
        wrong = work.check(open_to_read(bucket.uri("lake")))
    lines = [
        ("seconds", round(work.seconds)), ("commits", work.commits), ("conflicts", work.conflicts),
        ("slowest round of a writer, ms", round(work.slowest_s * 1000)),
        *((f"PUT disturbed: {fault}", proxy.met.count(fault)) for fault in sorted(set(proxy.met))),
        ("errors", len(work.errors)), *wrong.items(),
    ]  # fmt: skip
    print(longrun.block(lines))
    for error in work.errors[:10]:
        print(f"error: {error}")
    return not work.errors and not any(wrong.values())


if __name__ == "__main__":
    parser = longrun.parser_of(__doc__)
    parser.add_argument("--writers", type=int, default=16)
    parser.add_argument("--partitions", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--pending", type=int, default=2, help="merges of each writer at once")
    parser.add_argument("--faults", action="store_true", help="with a proxy that disturbs PUT requests")
    arguments = parser.parse_args()
    longrun.run(
        "writers",
        arguments,
        lambda place: main(
            place,
            arguments.seed,
            partitions=arguments.partitions,
            rounds=arguments.rounds,
            writers=arguments.writers,
            pending=arguments.pending,
            faults=arguments.faults,
        ),
    )
