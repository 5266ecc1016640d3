"""A minute of the torture test; `make torture` runs ten."""

import longrun
import pytest

pytestmark = pytest.mark.slow


def test_a_minute_of_torture_loses_repeats_and_changes_nothing() -> None:
    """Killed at random, with readers asking all the while: no error, nothing lost, repeated or changed."""
    counted = longrun.counted("torture.py", "--duration", "60s", timeout_s=280)
    assert counted["kills"] >= 8
    assert counted["candles recorded"] >= 200
    for engine in ("duckdb", "pyarrow", "lakewriter query"):
        assert counted[engine] >= 3, engine
    for fault in ("errors", "lost", "duplicated", "different"):
        assert counted[fault] == 0
