"""The arithmetic of docs/explanation/scale.md: from measured costs to a lake of 3,000 symbols.

`benchmarks/scale_costs.json` has the costs that `benchmarks/scale_costs.py` measured. The
numbers of files and candles come from the package's own periods and plans. Each table of
the page is made here, and a test compares them, so that the page cannot drift.

    python benchmarks/scale.py            # print the tables
    python benchmarks/scale.py --write    # replace them in the page
"""

import argparse
import json
import re
from collections.abc import Callable, Iterable
from datetime import date, timedelta
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from lakewriter.backfill.plan import Bounds, SeriesPlan, period_of, plan_series
from lakewriter.binance.weight_budget import BACKGROUND_SHARE, SHARE
from lakewriter.interval import INTERVALS
from lakewriter.lake.compact import STORE_COMPACTIONS_MAX, VERIFIED_BYTES_MAX
from lakewriter.lake.prefetch import PENDING_MAX
from lakewriter.market import MARKETS
from lakewriter.partition import day_start_ms
from lakewriter.recording.flushing.flusher import FLUSH_CANDLES
from lakewriter.series import Series

REPOSITORY = Path(__file__).resolve().parent.parent
COSTS = Path(__file__).with_name("scale_costs.json")
PAGE = REPOSITORY / "docs" / "explanation" / "scale.md"

SYMBOLS = 3_000
FIRST, STOP = date(2021, 1, 1), date(2026, 1, 1)
DAYS = (STOP - FIRST).days
GROUPS = {
    "1s": ("1s",),
    "1m, 3m, 5m": ("1m", "3m", "5m"),
    "15m to 2h": ("15m", "30m", "1h", "2h"),
    "4h to 1mo": ("4h", "6h", "8h", "12h", "1d", "3d", "1w", "1mo"),
}
ALL, WITHOUT_SECONDS = tuple(INTERVALS), tuple(name for name in INTERVALS if name != "1s")
FOREIGN = 3
WEIGHT_A_MINUTE = MARKETS["spot"].weight_max * SHARE * BACKGROUND_SHARE

# Intervals that were not measured, and whose costs they get.
AS = {"3d": "1d", "1w": "1d", "1mo": "1d"}

# Assumed, not measured.
CORES, EXECUTORS, EXECUTOR_CORES = 16, 20, 4
NETWORK_BYTES_S = 1.25e9  # 10 Gbit/s for each machine
REQUEST_S = 0.03  # a GET or a PUT of a store in the same region
# Prices of us-east-1, November 2026, in $.
PUT, GET = 0.005 / 1000, 0.0004 / 1000
STORED_TB_MONTH = ((50, 23.0), (450, 22.0), (float("inf"), 21.0))
DISK_TB_MONTH = 80.0
CORE_HOUR = 0.05
OUT_TB = 90.0


class Count(NamedTuple):
    """What one series of an interval has in five years.

    Args:
        partitions: its files in the lake.
        candles: its candles.
        plan: its backfill.
    """

    partitions: int
    candles: int
    plan: SeriesPlan


@cache
def costs() -> dict[str, dict[str, float]]:
    """Return the measured costs by interval."""
    found: dict[str, dict[str, float]] = json.loads(COSTS.read_text())["intervals"]
    return {name: found[AS.get(name, name)] for name in INTERVALS}


@cache
def count(interval: str) -> Count:
    """Return the counts of one series, by the package's own layout and plan."""
    series, grid = Series("spot", "BTCUSDT", interval), INTERVALS[interval]
    start_ms, stop_ms = day_start_ms(FIRST), day_start_ms(STOP)
    partitions, at_ms = 0, start_ms
    while at_ms < stop_ms:
        partitions, at_ms = partitions + 1, grid.period_stop(at_ms)
    days = [FIRST + timedelta(days=number) for number in range(DAYS)]
    period = period_of(interval)
    listed = {day: 1 for day in days if period == "daily" or day.day == 1}
    missing = [(grid.ceil(start_ms), grid.ceil(stop_ms))]
    bounds = Bounds(first_ms=start_ms, rest_first_ms=start_ms)
    plan = plan_series(
        MARKETS["spot"], series, bounds, (start_ms, stop_ms), missing, listed, period, choose_rest=True
    )
    return Count(partitions, grid.count(start_ms, stop_ms), plan)


def total(intervals: Iterable[str], of_series: Callable[[str], float]) -> float:
    """Return the sum over all series of these intervals."""
    return SYMBOLS * sum(of_series(each) for each in intervals)


def partitions(intervals: Iterable[str]) -> float:
    return total(intervals, lambda each: count(each).partitions)


def lake_bytes(intervals: Iterable[str]) -> float:
    return total(intervals, lambda each: count(each).candles * costs()[each]["row_bytes"])


def by_partition(name: str) -> Callable[[str], float]:
    """Return the function that gives a series' sum of a cost of its partitions."""
    return lambda interval: count(interval).partitions * costs()[interval][name]


def backfill_cpu_s(intervals: Iterable[str]) -> float:
    def of_series(each: str) -> float:
        cost = costs()[each]
        return cost["backfill_series_cpu_s"] * DAYS / cost["backfill_series_days"]

    return total(intervals, of_series)


def archive_bytes(intervals: Iterable[str]) -> float:
    return total(intervals, lambda each: count(each).plan.file_count * costs()[each]["archive_file_bytes"])


def stored_month(tb: float) -> float:
    """Return the price of a month of stored bytes, by the steps of its price."""
    price = 0.0
    for size, each in STORED_TB_MONTH:
        price += min(tb, size) * each
        tb -= min(tb, size)
    return price


def number(value: float) -> str:
    """Return a number with three digits that count."""
    for size, name in ((1e9, "billion"), (1e6, "million")):
        if value >= size:
            return f"{value / size:,.1f} {name}"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def size_of(count: float) -> str:
    """Return a number of bytes with its unit."""
    for size, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if count >= size:
            return f"{count / size:.3g} {name}" if count < 999 * size else f"{count / size:,.0f} {name}"
    return "0"


def hours(seconds: float) -> str:
    value = seconds / 3600
    if value < 1:
        return f"{seconds / 60:.0f} min"
    return f"{value:,.0f} h" if value >= 10 else f"{value:.1f} h"


def table(head: str, rows: Iterable[Iterable[str]]) -> str:
    names = head.split(" | ")
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def costs_table() -> str:
    """The measured inputs, in the order of the intervals."""
    rows = []
    for name in (each for each in INTERVALS if each not in AS):
        cost = costs()[name]
        days, files = cost["backfill_series_days"], count(name).plan.file_count
        backfill_s = cost["backfill_series_cpu_s"]
        by_file = backfill_s / (files * days / DAYS) * 1000 if files else 0.0
        rows.append(
            [
                name,
                f"{cost['row_bytes']:.1f}",
                f"{cost['archive_file_bytes'] / 1000:,.1f}" if files else "–",
                f"{by_file:.1f} a file" if files else f"{backfill_s * DAYS / days * 1000:,.0f} a series",
                f"{cost['merge_partition_cpu_s'] * 1000:.1f}",
                f"{cost['fold_partition_cpu_s'] * 1000:.1f}",
                f"{cost['unchanged_partition_cpu_s'] * 1000:.3f}",
                f"{cost['scan_partition_cpu_s'] * 1000:.2f}",
            ]
        )
    return table(
        "interval | bytes a candle | kB a zip | backfill, ms | merge of a candle, ms | "
        "compaction, 3 foreign files, ms | compaction, unchanged, ms | scan, ms",
        rows,
    )


def files_table() -> str:
    rows = []
    for name in INTERVALS:
        found = count(name)
        rows.append(
            [
                name,
                INTERVALS[name].file_period,
                f"3,000 × {found.partitions:,} = {number(SYMBOLS * found.partitions)}",
                f"3,000 × {found.candles:,} = {number(SYMBOLS * found.candles)}",
                size_of(lake_bytes([name])),
            ]
        )
    for name, chosen in (("all", ALL), ("all but 1s", WITHOUT_SECONDS)):
        candles = total(chosen, lambda each: count(each).candles)
        rows.append(
            [
                f"**{name}**",
                "",
                number(partitions(chosen)),
                number(candles),
                size_of(lake_bytes(chosen)),
            ]
        )
    return table("interval | a file each | files | candles | bytes", rows)


def archive_table() -> str:
    rows = []
    for name, chosen in (*GROUPS.items(), ("**all**", ALL), ("**all but 1s**", WITHOUT_SECONDS)):
        files = total(chosen, lambda each: count(each).plan.file_count)
        pages = total(chosen, lambda each: count(each).plan.pages)
        weight = total(chosen, lambda each: count(each).plan.weight)
        rows.append(
            [
                name,
                number(files),
                f"2 × {number(files)} = {number(2 * files)}",
                size_of(archive_bytes(chosen)),
                number(pages),
                f"{number(weight)} ÷ {WEIGHT_A_MINUTE:,.0f} = {weight / WEIGHT_A_MINUTE:,.0f} min",
            ]
        )
    return table("interval | zips | requests | download | pages of REST | their weight, by a minute's", rows)


def cpu_table() -> str:
    rows = []
    for name, chosen in (*GROUPS.items(), ("**all**", ALL), ("**all but 1s**", WITHOUT_SECONDS)):
        rows.append(
            [
                name,
                hours(backfill_cpu_s(chosen)),
                hours(total(chosen, by_partition("fold_partition_cpu_s"))),
                hours(total(chosen, by_partition("unchanged_partition_cpu_s"))),
                hours(total(chosen, by_partition("scan_partition_cpu_s"))),
            ]
        )
    return table(
        "interval | backfill | compaction, 3 foreign files in each partition | compaction, unchanged | scan",
        rows,
    )


def slowest(bounds: dict[str, float]) -> str:
    """Return the longest time, and its cause."""
    cause, seconds = max(bounds.items(), key=lambda item: item[1])
    return f"{hours(seconds)}, {cause}"


def times_table(chosen: tuple[str, ...]) -> str:
    files, size = partitions(chosen), lake_bytes(chosen)
    fold_s = total(chosen, by_partition("fold_partition_cpu_s"))
    scan_s = total(chosen, by_partition("scan_partition_cpu_s"))
    backfill_s, download = backfill_cpu_s(chosen), archive_bytes(chosen)
    tasks = EXECUTORS * EXECUTOR_CORES
    rest_s = 60 * total(chosen, lambda each: count(each).plan.weight) / WEIGHT_A_MINUTE
    # A fold reads our file and the foreign ones, replaces ours, and looks at and deletes each other.
    fold_requests = files * (1 + FOREIGN + 1 + 2 * FOREIGN)
    rows = [
        [
            "backfill",
            slowest({"1 core": backfill_s, "REST": rest_s}),
            slowest(
                {f"{CORES} cores": backfill_s / CORES, "network": download / NETWORK_BYTES_S, "REST": rest_s}
            ),
            slowest(
                {
                    f"{CORES} cores": backfill_s / CORES,
                    "network": (download + size) / NETWORK_BYTES_S,
                    "requests": files * REQUEST_S / PENDING_MAX / CORES,
                    "REST": rest_s,
                }
            ),
            slowest(
                {
                    f"{tasks} cores": backfill_s / tasks,
                    "network": (download + size) / NETWORK_BYTES_S / EXECUTORS,
                    "requests": files * REQUEST_S / tasks,
                    "REST": rest_s,
                }
            ),
        ],
        [
            "compaction of 3 foreign files each",
            slowest({"1 core": fold_s}),
            slowest({f"{CORES} cores": fold_s / CORES}),
            slowest(
                {
                    f"{CORES} cores": fold_s / CORES,
                    f"requests, {STORE_COMPACTIONS_MAX} partitions at once": fold_requests
                    * REQUEST_S
                    / STORE_COMPACTIONS_MAX,
                }
            ),
            slowest(
                {f"{tasks} cores": fold_s / tasks, "requests": fold_requests * REQUEST_S / tasks},
            ),
        ],
        [
            "scan of everything",
            slowest({"1 core": scan_s}),
            slowest({f"{CORES} cores": scan_s / CORES}),
            slowest(
                {
                    f"{CORES} cores": scan_s / CORES,
                    "network": size / NETWORK_BYTES_S,
                    f"requests, {PENDING_MAX} at once": files * REQUEST_S / PENDING_MAX,
                }
            ),
            slowest(
                {
                    f"{tasks} cores": scan_s / tasks,
                    "network": size / NETWORK_BYTES_S / EXECUTORS,
                    "requests": files * REQUEST_S / tasks,
                }
            ),
        ],
    ]
    return table(
        f"work | one process, disk | {CORES} processes, disk | {CORES} processes, S3 | "
        f"{EXECUTORS} executors, S3",
        rows,
    )


def money_table() -> str:
    rows = []
    for name, chosen in (("all", ALL), ("all but 1s", WITHOUT_SECONDS)):
        files, tb = partitions(chosen), lake_bytes(chosen) / 1e12
        lists = SYMBOLS * -(-sum(count(each).partitions for each in chosen) // 1000) + 1
        rows.append(
            [
                name,
                f"{size_of(tb * 1e12)}: {number(stored_month(tb))} $",
                f"{size_of(tb * 1e12)}: {number(tb * DISK_TB_MONTH)} $",
                f"{number(files)} PUT: {number(files * PUT)} $",
                f"{number(lists)} LIST, {number(files)} GET: {number(lists * PUT + files * GET)} $",
                f"{number(files)} GET: {number(files * GET)} $",
                f"{number(tb * OUT_TB)} $",
                (
                    f"{backfill_cpu_s(chosen) / 3600:,.0f} h × {CORE_HOUR} $ = "
                    f"{number(backfill_cpu_s(chosen) / 3600 * CORE_HOUR)} $"
                ),
            ]
        )
    return table(
        "lake | S3, a month | disk, a month | backfill, once | first compaction | a scan | "
        "a scan from elsewhere | cores of the backfill",
        rows,
    )


def limits_table() -> str:
    """The first limits that are met, with the number of symbols at which."""
    files_all, files = (partitions(each) / SYMBOLS for each in (ALL, WITHOUT_SECONDS))
    record = max(costs()[each]["record_partition_bytes"] for each in ALL)
    flush_s = FLUSH_CANDLES / SYMBOLS
    merge_s = SYMBOLS * costs()["1s"]["merge_partition_cpu_s"] / 2
    puts_month = SYMBOLS * 30 * 86_400 / flush_s
    known = VERIFIED_BYTES_MAX / record
    rows = [
        [
            "one recorder, 1s of 3,000 symbols",
            (
                f"it flushes at {FLUSH_CANDLES:,} candles: each {FLUSH_CANDLES:,} ÷ 3,000 = {flush_s:.0f} s. "
                f"3,000 merges into half a day take 3,000 × {costs()['1s']['merge_partition_cpu_s'] * 500:.0f} ms "
                f"= {merge_s:.0f} s of CPU. It falls behind"
            ),
            f"{number(SYMBOLS * flush_s / merge_s)} symbols for each core",
        ],
        [
            "the same on S3",
            f"3,000 PUT each {flush_s:.0f} s: {number(puts_month)} PUT = {number(puts_month * PUT)} $ a month",
            "",
        ],
        [
            "the record of compacted partitions",
            (
                f"it is ignored above {VERIFIED_BYTES_MAX / 2**20:.0f} MB; "
                f"÷ {record:.0f} bytes = {number(known)} partitions. Then each run reads each file"
            ),
            f"{number(known / files_all)} symbols, {number(known / files)} without 1s",
        ],
        [
            "inodes",
            (
                f"2 for each partition: {number(2 * partitions(ALL))}. ext4 has one for 16 kB: "
                f"a disk of {size_of(2 * partitions(ALL) * 16384)} or more"
            ),
            (
                f"with 1s never. Without it the files and directories take "
                f"{size_of(total(WITHOUT_SECONDS, by_partition('partition_disk_bytes')))}, and their inodes a "
                f"disk of {size_of(2 * partitions(WITHOUT_SECONDS) * 16384)}"
            ),
        ],
        [
            "a glob over everything, `**/*.parquet`",
            (
                "8 to 19 s for 99,645 partitions: "
                f"{partitions(ALL) / 99_645:.0f} times as many take {hours(8 * partitions(ALL) / 99_645)} "
                f"to {hours(19 * partitions(ALL) / 99_645)} before the first row"
            ),
            "",
        ],
    ]
    return table("what | why | when", rows)


TABLES: dict[str, Callable[[], str]] = {
    "costs": costs_table,
    "files": files_table,
    "archive": archive_table,
    "cpu": cpu_table,
    "times, all": lambda: times_table(ALL),
    "times, all but 1s": lambda: times_table(WITHOUT_SECONDS),
    "money": money_table,
    "limits": limits_table,
}


def with_tables(text: str) -> str:
    """Return the page's text with each table between its two marks replaced."""
    for name, made in TABLES.items():
        begin, end = f"<!-- table: {name} -->\n\n", "\n\n<!-- end -->"
        assert begin in text, name
        text = re.sub(
            f"{re.escape(begin)}.*?{re.escape(end)}",
            lambda _, made=made, b=begin, e=end: b + made() + e,
            text,
            flags=re.S,
        )
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="replace the tables in the page")
    options: Any = parser.parse_args()
    if options.write:
        PAGE.write_text(with_tables(PAGE.read_text()))
        return
    for name, made in TABLES.items():
        print(f"{name}\n\n{made()}\n")


if __name__ == "__main__":
    main()
