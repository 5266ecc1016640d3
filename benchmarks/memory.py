"""How much memory a recorder of 1,000 series holds, over some simulated minutes and flushes.

python benchmarks/memory.py [--seconds 30]
"""

import argparse
import asyncio
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from lakewriter.sandbox import SandboxOptions, serve

LIMIT_MB = 170
SERIES = 1000


def memory_mb(pid: int, field: str) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(rf"{field}:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) / 1000


async def measure(seconds: float, scratch: str) -> tuple[float, float]:
    async with serve(SandboxOptions(speed=10, symbols=SERIES)) as sandbox:
        recorder = subprocess.Popen(
            [
                *(sys.executable, "-m", "lakewriter", "record", "spot:*:1m", "--exchange", sandbox.url),
                *("--lake", f"{scratch}/lake", "--flush-every", "10s", "--quiet"),
            ]
        )
        while sandbox.streams < SERIES and recorder.poll() is None:
            await asyncio.sleep(0.1)
        await asyncio.sleep(seconds)
        now, peak = memory_mb(recorder.pid, "VmRSS"), memory_mb(recorder.pid, "VmHWM")
        recorder.terminate()
        await asyncio.to_thread(recorder.wait)
        return now, peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=30)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=".") as scratch:
        now, peak = asyncio.run(measure(options.seconds, scratch))
    print(f"recorder of {SERIES} series: {now:.0f} MB now, {peak:.0f} MB at most (limit {LIMIT_MB} MB)")


if __name__ == "__main__":
    main()
