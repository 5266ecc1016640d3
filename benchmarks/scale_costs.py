"""The measured costs of one series of each interval, for the page on scale.

For each interval the archive of a sandbox is backfilled for few series and for many, by the
real command. The difference is the cost of a series, without the start of the program. On
that lake this measures the bytes, the scan by DuckDB, and the compaction of partitions with
and without three foreign files. All times are seconds of CPU, so that other programs on the
machine count little. The last line is JSON. `benchmarks/scale_costs.json` keeps it, and
`benchmarks/scale.py` derives the page from it.

    python benchmarks/scale_costs.py [--directory .] [--only 1s,1m] [--save] [--quick]
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from periods import sandbox

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from lakewriter.interval import INTERVALS
from lakewriter.lake.compact import VERIFIED_NAME, compact_partition
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.root import STATE_DIRECTORY
from support.compaction import plan_compaction, write_verified

COSTS = Path(__file__).with_name("scale_costs.json")
UNTIL = date(2025, 11, 30)
SYMBOLS = 20

# Days of each series, and the series of the two runs. The sandbox computes seconds and years slowly.
LONG_DAYS = 1826
WORK: dict[str, tuple[int, int, int]] = {
    name: (4, 1, 5)
    if name == "1s"
    else (30, 5, SYMBOLS)
    if interval.file_period == "day"
    else (61, 5, SYMBOLS)
    if name in ("15m", "30m")
    else (730, 5, SYMBOLS)
    if interval.file_period == "month"
    else (LONG_DAYS, 1, 5)
    for name, interval in INTERVALS.items()
    # The sandbox takes minutes to compute these; they have 0.2 % of the files.
    if name not in ("3d", "1w", "1mo")
}
# Partitions that get foreign files, and the share of its rows in each of them.
FOLDED_MAX, FOREIGN, FOREIGN_SHARE = 60, 3, 10
# Partitions into which a candle is merged.
MERGED_MAX = 40


def symbols_of(url: str) -> list[str]:
    with urllib.request.urlopen(f"{url}/spot/api/v3/exchangeInfo") as answer:
        return [each["symbol"] for each in json.load(answer)["symbols"]]


def backfill(url: str, lake: Path, symbols: list[str], interval: str, days: int) -> dict[str, Any]:
    """Backfill; return the command's report, with the CPU seconds of its process."""
    since = UNTIL - timedelta(days=days - 1)
    words = ["backfill", f"spot:{','.join(symbols)}:{interval}", "--since", str(since), "--until", str(UNTIL)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "lakewriter", *words, "--exchange", url, "--lake", str(lake), "-q", "--json"],
        stdout=subprocess.PIPE,
        check=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {**json.loads(done.stdout), "cpu_s": cpu_s, "rss_mb": after.ru_maxrss / 1024}


def cpu_s(work: Callable[[], object], rounds: int = 3) -> float:
    """Return the CPU seconds of this process for some work, the least of some rounds."""
    spent = []
    for _ in range(rounds):
        started_s = time.process_time()
        work()
        spent.append(time.process_time() - started_s)
    return min(spent)


def add_foreign(store: LakeStore, count: int) -> int:
    """Put three foreign files beside so many partitions' own; return how many got them."""
    chosen = [found.partition for found in store.files()][:count]
    for partition in chosen:
        own = store.root / partition.file
        rows = pq.read_table(own, partitioning=None)
        size = max(1, rows.num_rows // FOREIGN_SHARE)
        for number in range(FOREIGN):
            pq.write_table(rows.slice(number * size, size), own.with_name(f"part-{number}.parquet"))
    return len(chosen)


def cpu_s_of_merges(store: LakeStore) -> float:
    """Return the CPU seconds of a merge of one better candle into a whole partition."""
    merges = []
    for number, found in enumerate([found.partition for found in store.files()][:MERGED_MAX]):
        row = store.read(found).slice(0, 1)
        at = row.schema.get_field_index("trade_num")
        row = row.set_column(at, row.schema.field(at), pa.array([10**9 + number]))
        merges.append((found, row))

    def merge_each() -> None:
        for partition, row in merges:
            store.merge(partition, row)

    return cpu_s(merge_each, rounds=1) / len(merges)


def measure(url: str, scratch: Path, interval: str) -> dict[str, float]:
    """Return the costs of one interval: of a file, of a row, of a series."""
    days, few, many = WORK[interval]
    symbols = symbols_of(url)
    small = backfill(url, scratch / "few", symbols[:few], interval, days)
    large = backfill(url, scratch / "many", symbols[:many], interval, days)
    series = many - few
    store = LakeStore.local(scratch / "many")
    paths = [store.root / found.partition.file for found in store.files()]
    file_bytes = sum(path.stat().st_size for path in paths)
    blocks = sum(each.lstat().st_blocks * 512 for path in paths for each in (path, path.parent))
    rows = sum(pq.read_metadata(path).num_rows for path in paths)
    names = ", ".join(f"'{path}'" for path in paths)
    scan = f"SELECT max(high), sum(close), count(*) FROM read_parquet([{names}], hive_partitioning = false)"
    connection = duckdb.connect()
    scan_s = cpu_s(lambda: connection.execute(scan).fetchall())

    folded = add_foreign(store, FOLDED_MAX)
    now_s = time.time() + 1
    started_s = time.process_time()
    outcomes = [compact_partition(store, item, now_s) for item in plan_compaction(store).work]
    fold_s = time.process_time() - started_s
    assert sum(each.rewritten for each in outcomes) == folded
    write_verified(store, outcomes, everything=True)
    unchanged_s = cpu_s(lambda: plan_compaction(store))
    assert len(plan_compaction(store).in_order) == len(paths)
    record_bytes = (store.state_dir / STATE_DIRECTORY / VERIFIED_NAME).stat().st_size
    merge_s = cpu_s_of_merges(store)
    files = large["files"] - small["files"]
    return {
        "rows": rows,
        "partitions": len(paths),
        "row_bytes": round(file_bytes / rows, 2),
        "partition_disk_bytes": round(blocks / len(paths)),
        "archive_files": files,
        "archive_file_bytes": round((large["file_bytes"] - small["file_bytes"]) / files) if files else 0,
        "backfill_series_cpu_s": round((large["cpu_s"] - small["cpu_s"]) / series, 5),
        "backfill_series_days": days,
        "backfill_pages": large["pages"] - small["pages"],
        "backfill_rss_mb": round(large["rss_mb"]),
        "scan_partition_cpu_s": round(scan_s / len(paths), 7),
        "fold_partition_cpu_s": round(fold_s / folded, 6),
        "merge_partition_cpu_s": round(merge_s, 6),
        "unchanged_partition_cpu_s": round(unchanged_s / len(paths), 7),
        "record_partition_bytes": round(record_bytes / len(paths)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--directory", default=".", help="on the disk to measure")
    parser.add_argument("--only", default=",".join(WORK), help="these intervals")
    parser.add_argument("--save", action="store_true", help=f"replace these intervals in {COSTS.name}")
    parser.add_argument(
        "--quick", action="store_true", help="two days of 1m, saves nothing: whether it works"
    )
    options = parser.parse_args()
    if options.quick:
        options.only, options.save, WORK["1m"] = "1m", False, (2, 1, 2)
    known: dict[str, Any] = json.loads(COSTS.read_text()) if COSTS.exists() else {"intervals": {}}
    with sandbox(SYMBOLS) as url:
        for interval in options.only.split(","):
            with tempfile.TemporaryDirectory(dir=options.directory) as scratch:
                costs = measure(url, Path(scratch), interval)
            print(interval, costs, f"load {os.getloadavg()[0]:.1f}", flush=True)
            every = known["intervals"] | {interval: costs}
            known["intervals"] = {name: every[name] for name in WORK if name in every}
            known["measured"] = datetime.now(UTC).date().isoformat()
            if options.save:
                COSTS.write_text(json.dumps(known, indent=1) + "\n")


if __name__ == "__main__":
    main()
