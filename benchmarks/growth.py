"""The growth of each command's cost with the lake: CPU, wall time and peak memory of whole processes.

Lakes of several sizes are made, with whole files of 5m candles: every fiftieth day lacks a
candle. Each command runs on each of them, beside `os.walk` and `os.stat` of the same lake. The
commands take turns; medians of the rounds are printed. A command is one of these:

    flat      each further partition costs less than 2 µs
    linear    each further partition costs no more than before
    worse     a partition costs over 1.5 times as much from the second largest lake to the
              largest as it does up to there

    python benchmarks/growth.py [--sizes 1000,10000,100000] [--rounds 3] [--directory DIR]
    python benchmarks/growth.py --quick    # a tiny lake, to show that it works; judges nothing

A lake of 100,000 partitions takes 2 GB, and some minutes to make. With --directory the lakes
stay, and the next run takes them as they are.
"""

import argparse
import asyncio
import contextlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import NamedTuple

import msgspec
from made_candles import candle

from lakewriter.candle import to_table
from lakewriter.interval import INTERVALS
from lakewriter.lake.footer_crc import with_footer_crc
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.parquet import encode
from lakewriter.lake.presence_cache import CACHE_NAME
from lakewriter.lake.root import STATE_DIRECTORY
from lakewriter.partition import FILE_NAME, Partition
from lakewriter.sandbox import SandboxOptions, serve

INTERVAL = "5m"
FIRST = date(2023, 1, 1)
# A lake has so many days for each symbol; the largest one of the defaults 200 symbols and 500 days.
DAYS_A_SYMBOL = 2.5
HOLE_EVERY = 50
# Written into each file in the place of its symbol. Names of symbols have the same length.
TEMPLATE = "S0000USDT"

RECORDED = 10
RECORD_S = 5

FLAT_US = 2.0
WORSE = 1.5

WALK = "walk and stat"
WALK_CODE = """
import os, sys
for top, _, names in os.walk(sys.argv[1]):
    for name in names:
        os.stat(os.path.join(top, name))
"""

# Starts a command, and prints its CPU, its wall time and the largest resident set of its processes.
# It is small: Linux counts the memory of the process that starts another one as the other's.
LAUNCHER_CODE = """
import os, sys, time
started_s = time.monotonic()
silent = (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=[silent])
_, status, usage = os.wait4(pid, 0)
print(usage.ru_utime + usage.ru_stime, time.monotonic() - started_s, usage.ru_maxrss * 1024 / 1e6)
sys.exit(os.waitstatus_to_exitcode(status))
"""
LAUNCHER = (sys.executable, "-S", "-E", "-c", LAUNCHER_CODE)

PROGRAM = str(Path(sys.executable).with_name("lakewriter"))

# Exit codes that are answers: `coverage`, `gaps` and `status` exit 1 for a finding.
ANSWERS = (0, 1)


class Cost(NamedTuple):
    """The cost of one process, with those that it started and waited for.

    Args:
        cpu_s: user and system time.
        wall_s: its duration.
        peak_mb: the largest resident set of any of them.
    """

    cpu_s: float
    wall_s: float
    peak_mb: float


class Command(NamedTuple):
    """A command line that is measured.

    Args:
        title: its name in the table.
        words: returns its words for a lake.
        prepare: is called before each run.
        once: whether one run suffices, because it takes long or changes the lake.
    """

    title: str
    words: Callable[[Path], list[str]]
    prepare: Callable[[Path], object] = str
    once: bool = False


def shape(partitions: int) -> tuple[int, int]:
    """Return the numbers of symbols and days of a lake with about so many partitions."""
    symbols = max(1, round((partitions / DAYS_A_SYMBOL) ** 0.5))
    return symbols, max(1, partitions // symbols)


def make_lake(root: Path, partitions: int) -> int:
    """Make a lake, unless it exists; return its number of partitions."""
    symbols, days = shape(partitions)
    if root.exists():
        return symbols * days
    made = root.with_name(f"{root.name}.part")
    shutil.rmtree(made, ignore_errors=True)
    LakeStore.create(str(made), "benchmark")
    names = [f"S{number:04d}USDT" for number in range(symbols)]
    for number in range(days):
        day = FIRST + timedelta(days=number)
        data = day_file(day, has_hole=number % HOLE_EVERY == HOLE_EVERY // 2)
        for name in names:
            directory = made / Partition("spot", name, INTERVAL, day).path
            directory.mkdir(parents=True)
            file = with_footer_crc(data.replace(TEMPLATE.encode(), name.encode()))
            (directory / FILE_NAME).write_bytes(file)
    made.rename(root)
    return symbols * days


def day_file(day: date, *, has_hole: bool) -> bytes:
    """Return the file of a day of 5m candles of the symbol TEMPLATE."""
    partition = Partition("spot", TEMPLATE, INTERVAL, day)
    rows = []
    for begin_ms in INTERVALS[INTERVAL].grid(partition.start_ms, partition.stop_ms):
        end_ms = INTERVALS[INTERVAL].end(begin_ms)
        made = candle(partition, (begin_ms - partition.start_ms) // 60_000, (end_ms + 90) * 1000)
        rows.append(msgspec.structs.replace(made, end_ms=end_ms, event_ms=end_ms + 4))
    if has_hole:
        del rows[len(rows) // 3]
    return encode(to_table(rows), partition)


def commands(target: Path) -> list[Command]:
    """Return all commands, in the order in which they run.

    Args:
        target: a lake that does not exist, for the dry run of a copy.
    """

    def query(sql: str) -> Callable[[Path], list[str]]:
        return lambda root: [PROGRAM, "query", sql, "--format", "csv", "--lake", str(root)]

    def plain(*words: str) -> Callable[[Path], list[str]]:
        return lambda root: [PROGRAM, *words, "--lake", str(root)]

    def forget_presence(root: Path) -> None:
        (root / STATE_DIRECTORY / CACHE_NAME).unlink(missing_ok=True)

    one = f"market = 'spot' AND symbol = '{TEMPLATE}' AND interval = '{INTERVAL}'"
    three_days = f"candle_begin_time >= '{FIRST}' AND candle_begin_time < '{FIRST + timedelta(days=3)}'"
    return [
        Command(WALK, lambda root: [sys.executable, "-c", WALK_CODE, str(root)]),
        Command("compact, first pass", plain("compact"), once=True),
        Command("compact, nothing to do", plain("compact")),
        Command("coverage, first", plain("coverage"), forget_presence),
        Command("coverage, again", plain("coverage")),
        Command("gaps", plain("gaps")),
        Command("status", plain("status")),
        Command("views", plain("views", "--for", "duckdb")),
        Command("chart, newest candles", plain("chart", f"spot:{TEMPLATE}:{INTERVAL}")),
        Command("query, one series, 3 days", query(f"SELECT avg(close) FROM candles WHERE {one} AND {three_days}")),
        Command("query, latest()", query("SELECT count(*) FROM latest()")),
        Command("query, count(*) of partitions", query("SELECT count(*) FROM partitions")),
        Command("query, count(*) of candles", query("SELECT count(*) FROM candles")),
        Command("copy --dry-run", lambda root: [PROGRAM, "copy", str(root), str(target), "--dry-run"], once=True),
        Command("verify", plain("verify"), once=True),
    ]  # fmt: skip


def run(words: list[str]) -> Cost:
    """Run a command to its end; return its cost."""
    done = subprocess.run([*LAUNCHER, *words], capture_output=True, text=True)
    return cost_of(words, done.returncode, done.stdout, done.stderr)


def cost_of(words: list[str], code: int, printed: str, errors: str) -> Cost:
    """Return the cost that the launcher printed; exit if the command failed."""
    if code not in ANSWERS:
        sys.exit(f"{' '.join(words)}: exit {code}: {errors[-500:]}")
    return Cost(*map(float, printed.split()))


async def record(root: Path) -> tuple[Cost, float]:
    """Start a recorder of ten series; return its cost, and the seconds until all were subscribed."""
    async with serve(SandboxOptions(symbols=RECORDED)) as sandbox:
        series = f"spot:{','.join(sandbox.symbols('spot'))}:1m"
        words = [PROGRAM, "record", series, "--exchange", sandbox.url, "--lake", str(root), "--quiet"]
        started_s = time.monotonic()
        running = asyncio.create_task(asyncio.to_thread(run, [*words, "--duration", f"{RECORD_S}s"]))
        while sandbox.streams < RECORDED and not running.done():
            await asyncio.sleep(0.01)
        connected_s = time.monotonic() - started_s
        return await running, connected_s


def measure(roots: list[Path], rounds: int, scratch: Path) -> dict[str, list[Cost]]:
    """Return the median costs of each command, one for each lake."""
    found: dict[str, list[Cost]] = {}
    for root in roots:
        costs: dict[str, list[Cost]] = {}
        for number in range(rounds):
            for command in commands(scratch / "target"):
                if number and command.once:
                    continue
                command.prepare(root)
                costs.setdefault(command.title, []).append(run(command.words(root)))
        recorded, connected_s = asyncio.run(record(root))
        costs[f"record, {RECORDED} series, {RECORD_S} s"] = [recorded]
        print(f"{root.name}: {RECORDED} series were subscribed after {connected_s:.2f} s", flush=True)
        for title, each in costs.items():
            found.setdefault(title, []).append(Cost(*map(statistics.median, zip(*each, strict=True))))
    return found


def verdict(cpu_s: list[float], partitions: list[int]) -> str:
    """Return "flat", "linear" or "worse" for the CPU at each size."""
    if len(cpu_s) < 3:
        return ""
    slopes_us = [
        (cpu_s[at] - cpu_s[at - 1]) / (partitions[at] - partitions[at - 1]) * 1e6
        for at in range(1, len(cpu_s))
    ]
    if slopes_us[-1] < FLAT_US:
        return "flat"
    return "worse" if slopes_us[-1] > WORSE * max(slopes_us[-2], FLAT_US) else "linear"


def report(found: dict[str, list[Cost]], partitions: list[int], *, judge: bool) -> None:
    """Print a row for each command."""
    walk_s = found[WALK][-1].cpu_s

    def joined(values: Iterator[float], form: str) -> str:
        return " / ".join(format(value, form) for value in values)

    sizes = " / ".join(f"{number:,}" for number in partitions)
    print(f"\nat {sizes} partitions: | CPU s | growth | µs each | of the walk | wall s | peak MB | verdict")
    for title, costs in found.items():
        cpu_s = [each.cpu_s for each in costs]
        growth = (cpu_s[at] / cpu_s[at - 1] for at in range(1, len(cpu_s)))
        each_us = (cpu_s[-1] - cpu_s[0]) / max(1, partitions[-1] - partitions[0]) * 1e6
        cells = [
            title,
            joined(iter(cpu_s), ".2f"),
            joined(growth, ".1f"),
            f"{each_us:.1f}",
            f"{cpu_s[-1] / walk_s:.2f}",
            joined((each.wall_s for each in costs), ".2f"),
            joined((each.peak_mb for each in costs), ".0f"),
            verdict(cpu_s, partitions) if judge else "",
        ]
        print(" | ".join(cells), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="1000,10000,100000", help="numbers of partitions, ascending")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--directory", type=Path, help="keeps the lakes; default: a temporary one")
    parser.add_argument("--quick", action="store_true", help="a tiny lake and one round; judges nothing")
    options = parser.parse_args()
    sizes = [20] if options.quick else [int(size) for size in options.sizes.split(",")]
    rounds = 1 if options.quick else options.rounds
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=".")))
        directory = options.directory or scratch
        directory.mkdir(parents=True, exist_ok=True)
        roots = [directory / f"growth-{size}" for size in sizes]
        partitions = [make_lake(root, size) for root, size in zip(roots, sizes, strict=True)]
        report(measure(roots, rounds, scratch), partitions, judge=not options.quick)


if __name__ == "__main__":
    main()
