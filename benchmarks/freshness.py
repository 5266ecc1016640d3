"""Freshness: the time from a candle's end until it is durable, if thousands close in the same second.

    python benchmarks/freshness.py --series 3000 --minutes 3 [--quick]

A sandbox at real speed runs in one process, `lakewriter record` in another. A few
streams never send closing frames, so their candles are healed. The recorder logs
the age of its candles when their commit returned, by the exchange's clock. The
exchange sends a candle up to 2 s after its end on USDⓈ-M. REST fetches a missing
one after the market's grace (10 s, 15 s on the futures).
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

MARKETS = ("spot", "usdt_futures", "coin_futures")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--series", type=int, default=3000)
    parser.add_argument("--minutes", type=float, default=3)
    parser.add_argument(
        "--silent", type=int, default=30, help="symbols of each market whose closes never come"
    )
    parser.add_argument(
        "--quick", action="store_true", help="few series, an exchange at 20 times the speed: whether it works"
    )
    arguments = parser.parse_args()
    speed = 1
    if arguments.quick:
        arguments.series, arguments.minutes, arguments.silent, speed = 30, 0.1, 1, 20
    with tempfile.TemporaryDirectory(prefix="lakewriter-freshness-") as directory:
        symbols = arguments.series // len(MARKETS)
        sandbox = subprocess.Popen(
            [sys.executable, "-m", "lakewriter", "sandbox", "--port", "0", "--symbols", str(symbols),
             "--push-every", "2s", "--speed", str(speed)],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        try:
            assert sandbox.stdout is not None
            url = sandbox.stdout.readline().strip()
            if not arguments.quick:
                # Whole minutes, from shortly after one begins.
                time.sleep((65 - time.time()) % 60)
            record(url, Path(directory), arguments.minutes, arguments.silent)
        finally:
            sandbox.send_signal(signal.SIGTERM)
            sandbox.wait(30)


def record(url: str, directory: Path, minutes: float, silent: int) -> None:
    """Record for so many minutes, and print the recorder's figures."""
    for market in MARKETS:
        listed = json.load(urllib.request.urlopen(f"{url}/{market}{prefix(market)}/exchangeInfo"))["symbols"]
        names = [entry["symbol"] for entry in listed[-silent:]]
        fault = {"name": "missing_close", "market": market, "symbols": names}
        request = urllib.request.Request(f"{url}/control/faults", json.dumps(fault).encode(), method="POST")
        urllib.request.urlopen(request).read()
    subscriptions = [f"{market}:*:1m" for market in MARKETS]
    done = subprocess.run(
        [sys.executable, "-m", "lakewriter", "record", "--log-candles", *subscriptions, "--exchange", url,
         "--lake", str(directory / "lake"), "--duration", f"{minutes * 60:.0f}s"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    wanted = ("fresh:", "commits:", "healing:", "stopped:", "recording ", "WARNING", "ERROR")
    for line in done.stderr.splitlines():
        if any(word in line for word in wanted) and not line.startswith("recorded "):
            print(line)
    with urllib.request.urlopen(f"{url}/control") as answer:
        print("limits broken:", json.load(answer)["violations"] or "none")


def prefix(market: str) -> str:
    return {"spot": "/api/v3", "usdt_futures": "/fapi/v1", "coin_futures": "/dapi/v1"}[market]


if __name__ == "__main__":
    main()
