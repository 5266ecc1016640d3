"""The libraries that read streams: websockets, and the packages of the extra `fast`."""

import asyncio
import contextlib
import importlib.util
import os
import warnings
from collections.abc import Iterator

import pytest

from lakewriter.fast_packages import VARIABLE

# The library, and the event loop. A recorder with the extra has the last of them.
WEBSOCKETS, PICOWS, FAST = "websockets", "picows", "picows,uvloop"

_INSTALLED = FAST if all(map(importlib.util.find_spec, FAST.split(","))) else WEBSOCKETS

# Of a test that takes seconds: each library in a long run, in a short one the last that is installed.
LAST_ONLY_PARAMS = [
    pytest.param(each, marks=[] if each == _INSTALLED else pytest.mark.long)
    for each in (WEBSOCKETS, PICOWS, FAST)
]
LAST_ONLY = pytest.mark.parametrize("stream_library", LAST_ONLY_PARAMS, indirect=True)


@contextlib.contextmanager
def reading_by(library: str) -> Iterator[None]:
    """Read streams by a library during the block. Without a package the test is skipped."""
    packages = [] if library == WEBSOCKETS else library.split(",")
    modules = {
        name: pytest.importorskip(name, reason=f"needs {name} of lakewriter[fast]") for name in packages
    }
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = ",".join(packages) or "off"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of policies, since Python 3.14
        if "uvloop" in modules:
            asyncio.set_event_loop_policy(modules["uvloop"].EventLoopPolicy())
        try:
            yield
        finally:
            if "uvloop" in modules:
                asyncio.set_event_loop_policy(None)
            os.environ.pop(VARIABLE)
            if before is not None:
                os.environ[VARIABLE] = before


@pytest.fixture(params=[WEBSOCKETS, pytest.param(PICOWS, marks=pytest.mark.long), FAST])
def stream_library(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run a test over each library; return its name."""
    library: str = request.param
    with reading_by(library):
        yield library
