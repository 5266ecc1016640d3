"""How fast `lakewriter --help` starts, beside the least it could take: `import click`.

python benchmarks/start.py [--rounds 20]
"""

import argparse
import statistics
import subprocess
import sys
import time

LIMIT = 1.5


def seconds(*command: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    helps, clicks = [], []
    for _ in range(options.rounds):
        helps.append(seconds("-m", "lakewriter", "--help"))
        clicks.append(seconds("-c", "import click"))
    helped, click = statistics.median(helps) * 1000, statistics.median(clicks) * 1000
    print(f"lakewriter --help         {helped:6.0f} ms")
    print(f'python -c "import click"  {click:6.0f} ms')
    print(f"ratio {helped / click:.2f} (limit {LIMIT})")


if __name__ == "__main__":
    main()
