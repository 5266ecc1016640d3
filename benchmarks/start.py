"""The start-up time of the command line, beside that of the imports it needs.

    lakewriter --help, lakewriter COMMAND --help   beside  import click
    lakewriter query "SELECT 1"                    beside  import duckdb, and SELECT 1
    the same                                       beside  import duckdb, pyarrow

The sides take turns, and each has its best round: a busy machine only adds to a time. CPU is
user + system time, which a busy machine changes less.

python benchmarks/start.py [--rounds 20] [--quick]
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from lakewriter.cli import COMMANDS
from lakewriter.lake.lake import LakeStore

LIMIT = 1.5

CLICK = "import click"
DUCKDB = "import duckdb; duckdb.sql('select 1').fetchall()"

BOTH = "import duckdb, pyarrow"

# An installed package has bytecode files, and a checkout after its first run, unless this is set.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}

# The command as a user starts it.
PROGRAM = str(Path(sys.executable).with_name("lakewriter"))


class Spent(NamedTuple):
    """Milliseconds of a process, its start and its end included."""

    wall_ms: float
    cpu_ms: float


def run(*command: str) -> Spent:
    started_s = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=ENVIRONMENT) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, command
    return Spent((time.perf_counter() - started_s) * 1000, (used.ru_utime + used.ru_stime) * 1000)


def compare(code: str, ours: dict[str, tuple[str, ...]], rounds: int) -> None:
    """Print the best times of command lines beside that of Python code."""
    theirs: list[Spent] = []
    taken: dict[str, list[Spent]] = {title: [] for title in ours}
    for _ in range(rounds):
        theirs.append(run(sys.executable, "-c", code))
        for title, words in ours.items():
            taken[title].append(run(PROGRAM, *words))
    limit = best(theirs)
    print(f"{f'python -c {chr(34)}{code}{chr(34)}':66}{limit.wall_ms:6.1f} ms, CPU {limit.cpu_ms:6.1f} ms")
    for title, each in taken.items():
        wall_ms, cpu_ms = best(each)
        print(
            f"{title:66}{wall_ms:6.1f} ms, CPU {cpu_ms:6.1f} ms"
            f"  {wall_ms / limit.wall_ms:.2f}, {cpu_ms / limit.cpu_ms:.2f} (limit {LIMIT})",
            flush=True,
        )


def best(rounds: list[Spent]) -> Spent:
    """Return the shortest time, and the least CPU time."""
    return Spent(min(each.wall_ms for each in rounds), min(each.cpu_ms for each in rounds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--quick", action="store_true", help="One round, to show that it works.")
    options = parser.parse_args()
    rounds = 1 if options.quick else options.rounds
    helps = {f"lakewriter {name} --help": (name, "--help") for name in COMMANDS}
    compare(CLICK, {"lakewriter --help": ("--help",), **helps}, rounds)
    with tempfile.TemporaryDirectory() as lake:
        LakeStore.create(lake, "benchmark")
        for code in (DUCKDB, BOTH):
            compare(code, {'lakewriter query "SELECT 1"': ("--lake", lake, "query", "SELECT 1")}, rounds)


if __name__ == "__main__":
    main()
