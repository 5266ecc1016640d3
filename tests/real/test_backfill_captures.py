"""Backfills of days that the exchange published: candles absent from odd days have a reason in the ledger.

A local server has the captured files as its archive, and the same rows as its REST.
"""

import asyncio
import csv
import hashlib
import io
import time
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from lakewriter.backfill.planner import BackfillOptions
from lakewriter.backfill.run import Backfill
from lakewriter.binance.market_clients import MarketClients
from lakewriter.clock import Clock
from lakewriter.interval import DAY_MS
from lakewriter.lake.gaps.ledger import save
from lakewriter.lake.gaps.ledgers import open_ledger, read_gaps
from lakewriter.lake.journal import create_journal
from lakewriter.lake.lake import LakeStore
from lakewriter.market import MARKETS, served_at
from lakewriter.partition import Partition, day_of
from lakewriter.subscription import parse_subscription
from support.http_server import serve_routes
from support.running import CAPTURES

FILES = CAPTURES / "archive" / "spot"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.captures,
    pytest.mark.skipif(not FILES.is_dir(), reason="no files of the exchange here"),
]

MINUTES = 1440
HALT_2023 = 80


def published() -> dict[str, bytes]:
    """Return the captured days of BTCUSDT by name, as CSV."""
    days = {path.stem: path.read_bytes() for path in FILES.glob("BTCUSDT-1m-*.csv")}
    for path in FILES.glob("BTCUSDT-1m-*.zip"):
        with zipfile.ZipFile(path) as archive:
            days[path.stem] = archive.read(f"{path.stem}.csv")
    return days


def zipped(name: str, data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{name}.csv", data)
    return buffer.getvalue()


@asynccontextmanager
async def exchange() -> AsyncIterator[str]:
    """Serve the captured days at a URL of this machine."""
    zips = {name: zipped(name, data) for name, data in published().items()}
    rows = sorted(
        ([int(row[0][:13]), *row[1:8], int(row[8]), *row[9:]] for data in published().values()
         for row in csv.reader(io.StringIO(data.decode()))),
    )  # fmt: skip
    directory = "data/spot/daily/klines/BTCUSDT/1m/"

    async def listed(_: web.Request) -> web.Response:
        keys = "".join(
            f"<Contents><Key>{directory}{name}.zip</Key><Size>{len(data)}</Size></Contents>"
            for name, data in sorted(zips.items())
        )
        text = f"<ListBucketResult><IsTruncated>false</IsTruncated>{keys}</ListBucketResult>"
        return web.Response(text=text, content_type="application/xml")

    async def file(request: web.Request) -> web.Response:
        name = request.match_info["name"]
        content = zips[name.removesuffix(".CHECKSUM").removesuffix(".zip")]
        if name.endswith(".CHECKSUM"):
            return web.Response(
                text=f"{hashlib.sha256(content).hexdigest()}  {name.removesuffix('.CHECKSUM')}"
            )
        return web.Response(body=content)

    async def klines(request: web.Request) -> web.Response:
        start_ms = int(request.query.get("startTime", 0))
        end_ms = int(request.query.get("endTime", 2**60))
        found = [row for row in rows if start_ms <= row[0] <= end_ms]
        limit = int(request.query["limit"])
        return web.json_response(found[:limit] if "startTime" in request.query else found[-limit:])

    async def info(_: web.Request) -> web.Response:
        return web.json_response({"symbols": [{"symbol": "BTCUSDT", "status": "TRADING"}]})

    async def now(_: web.Request) -> web.Response:
        return web.json_response({"serverTime": int(time.time() * 1000)})

    routes = {
        "/data.binance.vision": listed,
        f"/spot/{directory}{{name}}": file,
        "/spot/api/v3/klines": klines,
        "/spot/api/v3/exchangeInfo": info,
        "/spot/api/v3/time": now,
    }
    async with serve_routes(routes) as url:
        yield url


@pytest.mark.parametrize(
    ("name", "there", "reasons"),
    [
        ("BTCUSDT-1m-2017-08-17", 1200, {"not_listed": 240}),
        ("BTCUSDT-1m-2023-03-24", MINUTES - HALT_2023, {"exchange_halt": HALT_2023}),
        ("BTCUSDT-1m-2020-01-02", MINUTES, {}),
        ("BTCUSDT-1m-2024-12-31", MINUTES, {}),
        ("BTCUSDT-1m-2025-01-01", MINUTES, {}),
    ],
)
def test_a_published_day_is_there_or_explained(
    name: str, there: int, reasons: dict[str, int], tmp_path: Path
) -> None:
    """Each row of a published day is in the lake, and each missing candle has the right reason."""
    first = int(published()[name].split(b",", 1)[0][:13])
    since_ms = first // DAY_MS * DAY_MS

    async def main() -> None:
        store = LakeStore.create(str(tmp_path), "test")
        clock = Clock()
        journal = create_journal(store.root, "backfill")
        ledger = open_ledger(store.root, journal.directory.name)
        options = BackfillOptions(since_ms=since_ms, until_ms=since_ms + DAY_MS)
        async with exchange() as url, aiohttp.ClientSession() as session:
            clients = MarketClients(lambda market: served_at(MARKETS[market], url), session, clock)
            backfill = Backfill(store, clients, options=options, clock=clock)
            plan = await backfill.plan([parse_subscription("spot:BTCUSDT:1m")])
            await backfill.run(plan, ledger, journal.directory.name)
        await save(ledger)
        ledger.close()
        journal.close()
        assert backfill.progress.from_archive == there
        table = store.read(Partition("spot", "BTCUSDT", "1m", day_of(since_ms)))
        assert table is not None
        assert (table.num_rows, set(table["source"].to_pylist())) == (there, {"archive"})

    asyncio.run(main())
    told: dict[str, int] = {}
    for gap in read_gaps(tmp_path):
        count = gap.series.grid.count(gap.start_ms, gap.stop_ms)
        told[gap.reason] = told.get(gap.reason, 0) + count
    assert told == reasons
