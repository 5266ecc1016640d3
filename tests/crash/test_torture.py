"""Forty seconds of the torture test; `make torture` runs ten minutes."""

import longrun
import pytest

pytestmark = pytest.mark.slow


def test_forty_seconds_of_torture_lose_repeat_and_change_nothing() -> None:
    """Killed at random, with readers asking all the while: no error, nothing lost, repeated or changed."""
    counted = longrun.counted("torture.py", "--duration", "40s", timeout_s=280)
    assert counted["kills"] >= 8
    assert counted["candles recorded"] >= 200
    for engine in ("duckdb", "pyarrow", "lakewriter query"):
        assert counted[engine] >= 3, engine
    for fault in ("errors", "lost", "duplicated", "different"):
        assert counted[fault] == 0
