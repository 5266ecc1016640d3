"""Trees that the engine prints."""

from typing import Any

from lakewriter.query.tree import nodes


def test_every_object_is_found_at_any_depth() -> None:
    """In lists, in objects, and deeper than Python could recur; what is no object is passed over."""
    deep: dict[str, Any] = {}
    for _ in range(10_000):
        deep = {"below": [deep, 1, "text", None]}
    assert sum(1 for _ in nodes([deep, {"beside": {}}])) == 10_003
    assert list(nodes("text")) == []
