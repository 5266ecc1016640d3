"""What holds for every test: hypothesis sets no deadline, since disks and slow machines have none."""

import pytest
from abreast import played
from hypothesis import settings

__all__ = ["played"]  # the fixture

settings.register_profile("lakewriter", deadline=None)
settings.load_profile("lakewriter")

# By name these would come last, and one of two workers would have nothing to do until they are over.
# They mostly wait: side by side they leave each other enough of two processors.
FIRST = ("test_watch.py", "test_whole_path.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the long ones that would be last."""
    items.sort(key=lambda item: FIRST.index(item.path.name) if item.path.name in FIRST else len(FIRST))
