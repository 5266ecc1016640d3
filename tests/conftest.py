"""Settings for every test: its time limit, and whether long forms run."""

import gc
import os
import signal
import sys
from collections.abc import Iterator

import pytest
from hypothesis import settings

from support.azurite import azurite_url, container
from support.lengths import LONG, SEED, either
from support.seaweed import bucket, seaweed
from support.side_by_side import played
from support.spark_session import spark
from support.stream_libraries import stream_library

__all__ = [
    "azurite_url",
    "bucket",
    "container",
    "played",
    "seaweed",
    "spark",
    "stream_library",
]  # the fixtures

# Hypothesis sets no deadline, since disks and slow machines have none.
settings.register_profile(
    "lakewriter", deadline=None, max_examples=either(25, 200), derandomize=SEED is not None
)
settings.load_profile("lakewriter")

# A shell that runs us in its background has SIGINT ignored, in our children too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Modules are compiled once, not by each of the many processes that tests start.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Tests count the requests of a store. Those of the cache switch it on, in their own directories.
os.environ["LAKEWRITER_CACHE_SIZE"] = "0"

# All servers here are this machine's own, whatever proxy its user has.
os.environ["no_proxy"] = os.environ["NO_PROXY"] = "127.0.0.1,127.0.0.2,localhost"

# Modules and tests are collected once and stay: looking for garbage among them takes a second.
gc.disable()

# By name these would come last or one by one, and most workers would have nothing to do until they are over.
# They mostly wait: side by side they leave each other enough of two processors.
FIRST = ("test_supervisor.py", "test_whole_path.py", "test_longruns.py", "test_upkeep.py", "test_faults.py")


@pytest.fixture(autouse=True)
def own_variables() -> Iterator[None]:
    """Take back what a command that ran in this process set, such as `--state-dir`."""
    before = {name: value for name, value in os.environ.items() if name.startswith("LAKEWRITER_")}
    yield
    for name in [name for name in os.environ if name.startswith("LAKEWRITER_")]:
        del os.environ[name]
    os.environ.update(before)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip long forms in a short run, and run the modules of FIRST first."""
    if not LONG:
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("long")])
        items[:] = [item for item in items if not item.get_closest_marker("long")]
    items.sort(key=lambda item: FIRST.index(item.path.name) if item.path.name in FIRST else len(FIRST))


def pytest_collection_finish() -> None:
    """Exclude the collected tests from garbage collection; they live as long as the process."""
    gc.collect()
    gc.freeze()
    gc.enable()
