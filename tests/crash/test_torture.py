"""Short forms of the torture test; `make torture` runs ten minutes."""

import pytest

from crash import longrun
from support.running import PATIENCE_S
from support.seaweed import REASON, find_program

pytestmark = pytest.mark.slow


ON_STORE = [pytest.mark.skipif(find_program() is None, reason=REASON)]
LONG = [pytest.mark.long, pytest.mark.timeout(1200)]


@pytest.mark.parametrize(
    ("seconds", "kills", "options"),
    [
        (4, 2, ()),
        pytest.param(150, 30, (), marks=LONG),
        pytest.param(70, 20, ("--all-intervals",), marks=LONG),
        pytest.param(4, 1, ("--lake", "s3"), marks=[*ON_STORE, pytest.mark.timeout(600)]),
        pytest.param(150, 15, ("--lake", "s3"), marks=[*ON_STORE, *LONG]),
        pytest.param(70, 10, ("--lake", "s3", "--all-intervals"), marks=[*ON_STORE, *LONG]),
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
    if "s3" in options:
        assert any(name.startswith("PUT disturbed: ") for name in counted)
    for engine in ("duckdb", "pyarrow", "lakewriter query"):
        assert counted[engine] >= 1, engine
    for fault in ("errors", "lost", "duplicated", "different"):
        assert counted[fault] == 0
