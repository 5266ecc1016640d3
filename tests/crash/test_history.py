"""A short history test; `make history` runs forty series over 400 days."""

import longrun
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def test_an_interrupted_backfill_beside_a_recorder_ends_complete_and_true() -> None:
    """Interrupted five times, with an archive that lies and REST that refuses: nothing is lost or made up."""
    counted = longrun.counted("history.py", "--days", "20", "--symbols", "3", timeout_s=280)
    assert counted["candles in the lake"] >= 3 * 20 * 1440
    assert counted["recorders killed"] == 1
