"""Short forms of the long tests that mostly wait, side by side.

`make endure` runs twenty minutes with 600 series, `make history` forty series over 400 days.
"""

import asyncio
from pathlib import Path

import longrun
import pytest
from abreast import side_by_side

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@side_by_side
async def test_a_minute_of_faults_and_kills_leaves_nothing_unaccounted_for(tmp_path: Path) -> None:
    """Faults and kills at random: coverage is clean, the lake is the truth, no limit was broken."""
    options = ("--duration", "45s", "--symbols", "60")
    counted = await asyncio.to_thread(longrun.counted, "endurance.py", *options, timeout_s=380)
    assert counted["recorders killed"] >= 1
    assert counted["candles in the lake"] >= 2000
    assert sum(count for name, count in counted.items() if name.startswith("fault: ")) >= 10


@side_by_side
async def test_an_interrupted_backfill_beside_a_recorder_ends_complete_and_true(tmp_path: Path) -> None:
    """Interrupted five times, with an archive that lies and REST that refuses: nothing is lost or made up."""
    options = ("--days", "20", "--symbols", "3")
    counted = await asyncio.to_thread(longrun.counted, "history.py", *options, timeout_s=280)
    assert counted["candles in the lake"] >= 3 * 20 * 1440
    assert counted["recorders killed"] == 1
