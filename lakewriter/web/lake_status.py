"""The status of a lake's living recorders, as they publish it themselves.

It needs no connection to a recorder, and finds those of this host.
"""

from pathlib import Path

import msgspec
from aiohttp import web

from lakewriter.lake.journal_directories import living_recorders, recorder_directories
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.recorder_status_file import read_status
from lakewriter.web.page.readers import LakeReaders
from lakewriter.web.page.routes import checked, json_response


def status_route(readers: LakeReaders) -> web.RouteDef:
    """Return the route of the status: {"recorders": [a recorder's status, …]}."""

    async def status(_request: web.Request) -> web.StreamResponse:
        return json_response(await readers.ask(read_recorders))

    return web.get("/status.json", checked(status))


def read_recorders(uri: str) -> bytes:
    """Return the statuses of the living recorders of a lake on this host, as JSON."""
    store = LakeStore.open(uri) if "://" not in uri else None
    found = [] if store is None else _statuses(store.state_dir)
    return msgspec.json.encode({"recorders": found})


def _statuses(root: Path) -> list[msgspec.Raw]:
    alive = living_recorders(root)
    found = []
    for directory in recorder_directories(root):
        data = read_status(directory) if directory.name in alive else None
        if data is not None:
            found.append(msgspec.Raw(data))
    return found
