"""The HTTP server of `lakewriter record`: its address, and what it answers."""

import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Iterator, Sequence

from lakewriter.clock import Clock
from lakewriter.lake.lake import LakeStore
from lakewriter.recording.recorder import Recorder

log = logging.getLogger(__name__)


@contextlib.contextmanager
def bound_http(option: str | None, configured: str | None) -> Iterator[list[socket.socket]]:
    """Bind the address of the HTTP server during the context; yield no socket without an address.

    Args:
        option: the address of the command line, which overrides the config's.
        configured: the address of the config.

    Raises:
        UsageError: if the address is invalid or in use, or a package is missing.
    """
    address, what = (configured, "http") if option is None else (option, "--http")
    if address is None:
        yield []
        return
    # aiohttp's server and prometheus_client take a tenth of a second.
    from lakewriter.web.recorder_routes import check_metrics
    from lakewriter.web.server import bind, parse_address

    parsed = parse_address(address, what)
    check_metrics(what)
    listeners = bind(parsed, what)
    try:
        yield listeners
    finally:
        for each in listeners:
            each.close()


@contextlib.asynccontextmanager
async def serving_http(
    recorder: Recorder, store: LakeStore, listeners: Sequence[socket.socket], clock: Clock
) -> AsyncIterator[None]:
    """Answer requests about a recorder and its lake during the context, on the sockets of `bound_http`."""
    if not listeners:
        yield
        return
    from lakewriter.web.app import make_app
    from lakewriter.web.page.readers import LakeReaders
    from lakewriter.web.page.routes import About, page_routes
    from lakewriter.web.recorder_routes import recorder_routes
    from lakewriter.web.server import listening, url_of

    readers = LakeReaders(str(store.root), apart=True)
    page = page_routes(readers, About(store.name, recorder=True))
    app = make_app([*recorder_routes(recorder, clock), *page])
    try:
        async with listening(app, listeners):
            log.info(
                "http: %(url)s has a page, /healthz, /metrics and /status.json", {"url": url_of(listeners[0])}
            )
            yield
    finally:
        await readers.close()
