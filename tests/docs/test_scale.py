"""The page on scale has the tables that its script computes of the measured costs."""

import json
import re
import sys

import pytest

from lakewriter.interval import INTERVALS
from support.running import REPOSITORY


@pytest.fixture(scope="module")
def scale() -> object:
    """Return the module `benchmarks/scale.py`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(REPOSITORY / "benchmarks"))
        import scale

        yield scale
    sys.modules.pop("scale", None)


def test_tables_are_the_computed_ones(scale) -> None:  # type: ignore[no-untyped-def]
    """Each table of the page equals what the script computes; `python benchmarks/scale.py --write` mends it."""
    text = scale.PAGE.read_text()
    assert scale.with_tables(text) == text
    assert re.findall(r"<!-- table: (.*) -->", text) == list(scale.TABLES)


def test_costs_were_measured(scale) -> None:  # type: ignore[no-untyped-def]
    """The costs name each interval but those of the page, which also has the day of the measurement."""
    costs = json.loads((REPOSITORY / "benchmarks" / "scale_costs.json").read_text())
    assert list(costs["intervals"]) == [name for name in INTERVALS if name not in scale.AS]
    assert costs["measured"] in (REPOSITORY / "docs" / "explanation" / "scale.md").read_text()


def test_files_follow_the_layout(scale) -> None:  # type: ignore[no-untyped-def]
    """Five years are a file for each day, month or year, and a candle for each time of the grid."""
    assert {name: scale.count(name).partitions for name in ("1s", "5m", "15m", "4h", "1mo")} == {
        "1s": 1826, "5m": 1826, "15m": 60, "4h": 5, "1mo": 5,
    }  # fmt: skip
    assert scale.count("1s").candles == 1826 * 86_400
    assert scale.count("1mo").candles == 60
    assert scale.count("1m").plan.file_count == 1826
    assert scale.count("1h").plan.file_count == 60
    assert scale.count("1d").plan.file_count == 0 and scale.count("1d").plan.pages == 2
