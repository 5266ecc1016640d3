"""Make the pictures of the docs from a run of the sandbox. The same seed makes the same pictures.

    python docs/pictures/make.py [DIRECTORY]

The pages of the docs show them, and quote the texts. It needs `pip install 'lakewriter[charts]'`, and takes about a minute.
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

START = "2026-06-30T12:00:30Z"

# No further candle closes meanwhile, however long the run takes.
SPEED = "0.01"

# A halt of one symbol, a halt of a market, and a symbol that was listed later.
FAULTS = (
    "exchange_halt:market=spot,symbols=BTCUSDT,start=2026-06-29T02:10:00Z,stop=2026-06-29T05:40:00Z",
    "exchange_halt:market=usdt_futures,start=2026-06-12T00:00:00Z,stop=2026-06-12T18:00:00Z",
    "new_listing:market=spot,symbols=SOLUSDT,start=2026-05-20T08:00:00Z",
)
HISTORY = (
    ("2026-05-01", "spot:BTCUSDT,ETHUSDT,SOLUSDT:1m", "usdt_futures:BTCUSDT,ETHUSDT:1m"),
    ("2026-05-14", "spot:BNBUSDT:1m", "coin_futures:BTCUSD_PERP:3m"),
)

# The removed candles are gaps, too.
FORGOTTEN = (
    ("spot:BTCUSDT:1m", "2026-06-26T08:00", "2026-06-26T13:17"),
    ("spot:BNBUSDT:1m", "2026-05-20T00:00", "2026-05-20T19:00"),
    ("coin_futures:BTCUSD_PERP:3m", "2026-05-28T00:00", "2026-06-02T00:00"),
)

PICTURES = (
    ("chart.png", ("chart", "spot:BTCUSDT:1h", "--last", "7d")),
    ("chart-dark.png", ("chart", "usdt_futures:ETHUSDT:4h", "--last", "30d", "--dark")),
    ("coverage.png", ("coverage",)),
)
TEXTS = (
    ("chart.txt", ("chart", "spot:BTCUSDT:1h", "--last", "7d")),
    ("coverage.txt", ("coverage", "--heatmap")),
)


def main(directory: Path) -> None:
    """Write all pictures and texts to a directory."""
    with tempfile.TemporaryDirectory(prefix="lakewriter-pictures-") as place:
        lake = str(Path(place) / "data")
        with sandbox() as url:
            for since, *subscriptions in HISTORY:
                run("backfill", *subscriptions, "--since", since, "--exchange", url, "--lake", lake)
        for series, since, until in FORGOTTEN:
            run("forget", series, "--since", since, "--until", until, "--yes", "--lake", lake)
        for name, command in PICTURES:
            run(*command, "-o", str(directory / name), "--force", "--lake", lake)
        for name, command in TEXTS:
            (directory / name).write_text(run(*command, "--lake", lake))


def run(*arguments: str) -> str:
    """Return the standard output of a command."""
    command = [sys.executable, "-m", "lakewriter", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


@contextmanager
def sandbox() -> Iterator[str]:
    """Yield the URL of a sandbox that runs meanwhile."""
    faults = [word for fault in FAULTS for word in ("--fault", fault)]
    command = [
        sys.executable,
        "-m",
        "lakewriter",
        "sandbox",
        "--port",
        "0",
        "--seed",
        "3",
        "--speed",
        SPEED,
        "--start",
        START,
        *faults,
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
