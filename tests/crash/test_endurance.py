"""A minute of the endurance test; `make endure` runs twenty with 600 series."""

import longrun
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


def test_a_minute_of_faults_and_kills_leaves_nothing_unaccounted_for() -> None:
    """Faults and kills at random: coverage is clean, the lake is the truth, no limit was broken."""
    counted = longrun.counted("endurance.py", "--duration", "45s", "--symbols", "60", timeout_s=380)
    assert counted["recorders killed"] >= 1
    assert counted["candles in the lake"] >= 2000
    assert sum(count for name, count in counted.items() if name.startswith("fault: ")) >= 10
