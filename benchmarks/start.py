"""The start-up time of the command line, beside that of the imports it needs.

    lakewriter --help, lakewriter COMMAND --help   beside  import click
    lakewriter query "SELECT 1"                    beside  import duckdb, and SELECT 1

The sides take turns, and each has its best round: a busy machine only adds to a time.

python benchmarks/start.py [--rounds 20] [--quick]
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lakewriter.cli import COMMANDS
from lakewriter.lake.lake import LakeStore

LIMIT = 1.5

CLICK = "import click"
DUCKDB = "import duckdb; duckdb.sql('select 1').fetchall()"

# An installed package has bytecode files, and a checkout after its first run, unless this is set.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}

# The command as a user starts it.
PROGRAM = str(Path(sys.executable).with_name("lakewriter"))


def milliseconds(*command: str) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=ENVIRONMENT)
    return (time.perf_counter() - start) * 1000


def compare(code: str, ours: dict[str, tuple[str, ...]], rounds: int) -> None:
    """Print the best times of command lines beside that of Python code."""
    taken: dict[str, float] = {}
    least_ms = float("inf")
    for _ in range(rounds):
        least_ms = min(least_ms, milliseconds(sys.executable, "-c", code))
        for title, words in ours.items():
            taken[title] = min(taken.get(title, float("inf")), milliseconds(PROGRAM, *words))
    print(f"{f'python -c {chr(34)}{code}{chr(34)}':66}{least_ms:6.1f} ms")
    for title, ours_ms in taken.items():
        print(f"{title:66}{ours_ms:6.1f} ms  {ours_ms / least_ms:.2f} (limit {LIMIT})", flush=True)


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
        compare(DUCKDB, {'lakewriter query "SELECT 1"': ("--lake", lake, "query", "SELECT 1")}, rounds)


if __name__ == "__main__":
    main()
