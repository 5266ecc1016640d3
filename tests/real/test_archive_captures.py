"""Zips and checksums that the real archive served, fetched from a local server."""

import asyncio
from datetime import date

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from lakewriter.binance.archive import ArchiveClient
from lakewriter.binance.archive_files import ArchiveFile
from lakewriter.clock import Clock
from lakewriter.market import MARKETS, served_at
from lakewriter.series import Series
from support.running import CAPTURES

FILES = CAPTURES / "archive" / "spot"

pytestmark = [
    pytest.mark.captures,
    pytest.mark.skipif(
        not FILES.is_dir(), reason=f"no captures at {CAPTURES}; LAKEWRITER_CAPTURES may say where they are"
    ),
]


def test_real_checksums_are_of_their_zips() -> None:
    """Each captured zip fits the exchange's checksum, and arrives byte for byte."""
    series = Series("spot", "BTCUSDT", "1m")
    checked = sorted(FILES.glob("BTCUSDT-1m-*.zip.CHECKSUM"))

    async def handler(request: web.Request) -> web.Response:
        return web.Response(body=(FILES / request.path.rpartition("/")[2]).read_bytes())

    async def main() -> None:
        app = web.Application()
        app.router.add_get("/{path:.*}", handler)
        async with TestServer(app) as server, aiohttp.ClientSession() as session:
            client = ArchiveClient(served_at(MARKETS["spot"], str(server.make_url(""))), session, Clock())
            for path in checked:
                day = date.fromisoformat(path.name.removeprefix("BTCUSDT-1m-").removesuffix(".zip.CHECKSUM"))
                content = await client.fetch(ArchiveFile(series, "daily", day))
                assert content == path.with_suffix("").read_bytes()

    asyncio.run(main())
    assert len(checked) >= 3
