"""A headless Chromium for tests of the page, and servers beside it."""

import asyncio
import contextlib
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

import pytest

from support.running import PATIENCE_S

T = TypeVar("T")

# Debian's chromium, and the names that other systems give it.
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """Run a headless Chromium; skip the test if there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip("needs Chromium: apt install chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=program, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


class Visitor:
    """A page of a browser that notes what must not happen.

    Args:
        browser: the browser.
        options: the options of its window.

    Attributes:
        page: the page.
        complaints: errors, and requests to other servers.
    """

    def __init__(self, browser: Any, url: str, **options: Any) -> None:
        self.complaints: list[str] = []
        self.expects_failures = False
        self._context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        self.page = self._context.new_page()
        self.page.set_default_timeout(PATIENCE_S * 1000)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", self._console)
        self.page.on(
            "request",
            lambda request: request.url.startswith((url, "blob:")) or self.complaints.append(request.url),
        )

    def _console(self, message: Any) -> None:
        # Chromium logs each request that fails.
        if message.type == "error" and not (self.expects_failures and "Failed to load" in message.text):
            self.complaints.append(message.text)

    def close(self) -> None:
        """Close the page; fail if there was a complaint."""
        self._context.close()
        assert not self.complaints, "\n".join(self.complaints)


@contextlib.contextmanager
def visiting(browser: Any, url: str, path: str = "/", **options: Any) -> Iterator[Visitor]:
    """Open a page of a server during the block."""
    visitor = Visitor(browser, url, **options)
    visitor.page.goto(url + path)
    yield visitor
    visitor.close()


@contextlib.contextmanager
def beside(context: AbstractAsyncContextManager[T]) -> Iterator[T]:
    """Hold an asynchronous context in the event loop of another thread."""
    entered: Future[T] = Future()
    ended: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def hold() -> None:
        stop = asyncio.Event()
        ended.set_result((asyncio.get_running_loop(), stop))
        async with context as value:
            entered.set_result(value)
            await stop.wait()

    def work() -> None:
        try:
            asyncio.run(hold())
        except BaseException as error:
            if entered.done():
                raise
            entered.set_exception(error)

    thread = threading.Thread(target=work, name="beside")
    thread.start()
    try:
        yield entered.result(PATIENCE_S)
    finally:
        loop, stop = ended.result()
        with contextlib.suppress(RuntimeError):  # it ended by an error
            loop.call_soon_threadsafe(stop.set)
        thread.join(PATIENCE_S)
