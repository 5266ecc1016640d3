"""A local HTTP server for tests."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serve_routes(routes: dict[str, Handler] | Handler) -> AsyncIterator[str]:
    """Run an HTTP server during the block; yield its URL.

    Args:
        routes: handler by path; or one handler for every path.
    """
    app = web.Application()
    for path, handler in (routes if isinstance(routes, dict) else {"/{path:.*}": routes}).items():
        app.router.add_get(path, handler)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
