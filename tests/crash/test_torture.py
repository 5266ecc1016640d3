"""Short forms of the torture test; `make torture` runs ten minutes."""

import pytest

from crash import longrun
from support.running import PATIENCE_S

pytestmark = pytest.mark.slow


LONG = [pytest.mark.long, pytest.mark.timeout(1200)]


@pytest.mark.parametrize(
    ("seconds", "kills", "options"),
    [
        (6, 2, ()),
        pytest.param(150, 30, (), marks=LONG),
        pytest.param(70, 20, ("--all-intervals",), marks=LONG),
    ],
)
def test_torture_loses_repeats_and_changes_nothing(
    seconds: int, kills: int, options: tuple[str, ...]
) -> None:
    """Random kills under concurrent readers cause no error, and no lost, repeated or changed candle."""
    options += ("--duration", f"{seconds}s", "--kills", str(kills))
    counted = longrun.counted("torture", *options, timeout_s=2 * PATIENCE_S + 3 * seconds)
    assert counted["kills"] >= kills
    assert counted["candles recorded"] >= 5 * kills
    for engine in ("duckdb", "pyarrow", "lakewriter query"):
        assert counted[engine] >= 1, engine
    for fault in ("errors", "lost", "duplicated", "different"):
        assert counted[fault] == 0
