"""The start-up time of the command line, beside that of the imports it needs.

    lakewriter --help              beside  import click
    lakewriter query "SELECT 1"    beside  import duckdb, pyarrow

python benchmarks/start.py [--rounds 20]
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

from lakewriter.lake.lake import LakeStore

LIMIT = 1.5


# An installed package has bytecode files, and a checkout after its first run, unless this is set.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def seconds(*command: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL, env=ENVIRONMENT)
    return time.perf_counter() - start


def compare(title: str, ours: tuple[str, ...], least: str, rounds: int) -> None:
    taken, limits = [], []
    for _ in range(rounds):
        taken.append(seconds("-m", "lakewriter", *ours))
        limits.append(seconds("-c", least))
    ours_ms, least_ms = statistics.median(taken) * 1000, statistics.median(limits) * 1000
    print(f"{title:36}{ours_ms:6.0f} ms")
    print(f"{f'python -c {chr(34)}{least}{chr(34)}':36}{least_ms:6.0f} ms")
    print(f"ratio {ours_ms / least_ms:.2f} (limit {LIMIT})", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    compare("lakewriter --help", ("--help",), "import click", options.rounds)
    with tempfile.TemporaryDirectory() as lake:
        LakeStore.create(lake, "benchmark")
        ask = ("--lake", lake, "query", "SELECT 1")
        compare('lakewriter query "SELECT 1"', ask, "import duckdb, pyarrow", options.rounds)


if __name__ == "__main__":
    main()
