"""Make the pictures of the page for docs/how-to/page.md, from a run of the sandbox.

    python docs/pictures/make_page.py

A sandbox of 60 times real time is recorded, after a backfill of three weeks. One symbol
halts for a quarter of an hour. It needs Chromium and playwright, and takes two minutes.
"""

import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import sync_playwright

PICTURES = Path(__file__).parent
SERIES = [
    "spot:BTCUSDT,ETHUSDT,BNBUSDT:1m,1h",
    "usdt_futures:BTCUSDT,ETHUSDT:1m",
    "coin_futures:BTCUSD_PERP:3m",
]
RECORD_S = 45

# Name, width, height, colours, pixels of the screen for each of the page.
WINDOWS = [("page", 1120, 900, "light", 1), ("page-phone", 390, 760, "dark", 1.25)]


@contextlib.contextmanager
def started(*arguments: str, cwd: Path) -> Iterator[str]:
    """Run a command of lakewriter during the block, and yield its first line."""
    command = [sys.executable, "-m", "lakewriter", *arguments]
    with subprocess.Popen(
        command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            yield process.stdout.readline().strip() if arguments[0] != "record" and process.stdout else ""
        finally:
            process.terminate()


def add_fault(sandbox: str, **fault: object) -> None:
    """Stage a fault in the sandbox."""
    request = urllib.request.Request(f"{sandbox}/control/faults", json.dumps(fault).encode())
    urllib.request.urlopen(request).close()


def main() -> None:
    """Record, and take the pictures."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    with contextlib.ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        sandbox = stack.enter_context(started("sandbox", "--port", "0", "--speed", "60", cwd=home))
        exchange = ["--exchange", sandbox]
        backfill = [sys.executable, "-m", "lakewriter", "backfill", *SERIES, "--since", "21d", *exchange]
        subprocess.run(backfill, cwd=home, check=True, capture_output=True)
        stack.enter_context(started("record", *SERIES, "--flush-every", "5s", *exchange, cwd=home))
        add_fault(sandbox, name="exchange_halt", market="spot", symbols=["BTCUSDT"], in_s=900, for_s=900)
        url = stack.enter_context(started("serve", "--http", "127.0.0.1:0", cwd=home))
        time.sleep(RECORD_S)
        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        PICTURES.mkdir(exist_ok=True)
        for name, width, height, colours, scale in WINDOWS:
            page = browser.new_page(
                viewport={"width": width, "height": height}, color_scheme=colours, device_scale_factor=scale
            )
            page.goto(f"{url}/#spot:BTCUSDT:1m")
            page.wait_for_selector("#gaps tr[data-reason=exchange_halt]")
            page.wait_for_function("() => Number(document.getElementById('heatmap').dataset.rows) > 0")
            page.wait_for_timeout(2_000)
            page.evaluate("() => { document.getElementById('lake-name').textContent = '/srv/candles'; }")
            page.screenshot(path=PICTURES / f"{name}.png")
        browser.close()


if __name__ == "__main__":
    main()
