"""A lake that record, backfill, import and compact wrote: all intervals, and a Chinese symbol."""

import asyncio
from pathlib import Path

from lakewriter.interval import INTERVALS
from lakewriter.sandbox import SandboxOptions, serve
from support.import_files import lines, written
from support.lakes import add_foreign, rest_candle
from support.running import child, run, until

CHINESE = "币安人生USDT"
START_MS = 1_770_000_000_000  # 2026-02-02 02:40

_RECORDED = ("spot:BTCUSDT:1s,1m", f"usdt_futures:{CHINESE}:1m,3m,5m")
_BACKFILLED = {
    "2026-02-01": ("spot:BTCUSDT:15m,30m,1h,2h,4h,6h,8h,12h", f"usdt_futures:{CHINESE}:15m,4h"),
    "2025-12-01": ("spot:BTCUSDT:1d,3d,1w,1mo", f"usdt_futures:{CHINESE}:1d,1mo"),
}


def make_matrix_lake(directory: Path) -> Path:
    """Write the lake `data` below a directory, with the command line; return its root."""
    root = directory / "data"
    asyncio.run(_write(directory, root))
    assert not list(root.rglob("part-*"))  # folded
    intervals = {path.parent.parent.name.partition("=")[2] for path in root.glob("market=*/*/*/*/*.parquet")}
    assert intervals == set(INTERVALS)
    return root


async def _write(directory: Path, root: Path) -> None:
    options = SandboxOptions(speed=60, symbols=60, start_ms=START_MS, push_every_ms=1000)
    async with serve(options) as sandbox:
        where = ("--exchange", sandbox.url, "--lake", str(root))
        with child(directory / "log", "record", *_RECORDED, *where, "--flush-every", "300ms") as recorder:
            for since, subscriptions in _BACKFILLED.items():
                await _run("backfill", *subscriptions, "--since", since, *where)
            await until(lambda: len(list(root.glob("market=usdt_futures/*/interval=5m/*/*.parquet"))) > 0)
            assert await asyncio.to_thread(recorder.stop) == 0
    file = written(directory / "ETHUSDT-1m-2024-06-30.csv", lines(*range(10)))
    await _run("import", "--market", "spot", str(file), "--lake", str(root))
    # Files of another tool, one of them with a candle that the lake has.
    add_foreign(root, [rest_candle(number, symbol="ETHUSDT") for number in range(8, 12)])
    add_foreign(root, [rest_candle(number) for number in range(5)])
    await _run("compact", "--lake", str(root))


async def _run(*arguments: str) -> None:
    done = await asyncio.to_thread(run, *arguments)
    assert done.returncode == 0, done.stderr
