"""The server of `lakewriter serve`: the page of a lake and its SQL box.

It needs no recorder. It reads the lake in its own process, because nothing else runs there.
"""

import contextlib
import socket
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import NamedTuple

from lakewriter.lake.open import open_to_read
from lakewriter.web.app import make_app
from lakewriter.web.page.readers import LakeReaders
from lakewriter.web.page.routes import About, page_routes
from lakewriter.web.server import listening
from lakewriter.web.statements import StatementLimits, Statements
from lakewriter.web.token import require_token


class LakeServerOptions(NamedTuple):
    """The options of a server.

    Args:
        lake: the lake's URI.
        token: what requests must know; None requires nothing.
        limits: the limits of each statement.
        queries: the directory of the user's saved queries; None has the shipped ones.
    """

    lake: str
    token: str | None
    limits: StatementLimits
    queries: Path | None


@contextlib.asynccontextmanager
async def serving(sockets: Sequence[socket.socket], options: LakeServerOptions) -> AsyncIterator[None]:
    """Serve a lake during the context.

    Raises:
        UsageError: if the URI is invalid.
        LakeError: if the URI names no lake, or the lake has a newer format.
    """
    store = open_to_read(options.lake, keep_listings=True)
    readers = LakeReaders(options.lake, apart=False)
    statements = Statements(store, options.limits, options.queries)
    has_token = options.token is not None
    about = About(store.name, recorder=False, sql=True, login=has_token)
    app = make_app([*page_routes(readers, about), *statements.routes()], any_host=has_token)
    if options.token is not None:
        require_token(app, options.token)
    try:
        async with listening(app, sockets):
            yield
    finally:
        await readers.close()
        statements.close()
