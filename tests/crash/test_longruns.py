"""Short forms of the long tests that mostly wait, run at the same time.

`make endure` runs twenty minutes with 600 series, and `make history` forty series over
400 days. `make test-all` runs forms of medium length.
"""

import asyncio
from pathlib import Path

import pytest

from crash import longrun
from support.lengths import either
from support.seaweed import REASON, find_program
from support.side_by_side import side_by_side

pytestmark = [pytest.mark.slow, pytest.mark.timeout(either(600, 1500))]


@side_by_side
async def test_faults_and_kills_leave_nothing_unaccounted_for(tmp_path: Path) -> None:
    """After random faults and kills, coverage is clean, the lake equals the truth, and no limit was broken."""
    options = ("--duration", f"{either(15, 180)}s", "--symbols", str(either(10, 300)))
    counted = await asyncio.to_thread(longrun.counted, "endurance", *options, timeout_s=either(500, 1400))
    assert counted["recorders killed"] >= 1
    assert counted["candles in the lake"] >= either(50, 20_000)
    assert sum(count for name, count in counted.items() if name.startswith("fault: ")) >= either(5, 40)


@pytest.mark.long
@pytest.mark.skipif(find_program() is None, reason=REASON)
@side_by_side
async def test_the_same_with_a_store_that_is_killed(tmp_path: Path) -> None:
    """The same on an object store that loses replies, refuses, stalls, and is killed and started again."""
    options = ("--duration", "120s", "--symbols", "60", "--lake", "s3")
    counted = await asyncio.to_thread(longrun.counted, "endurance", *options, timeout_s=1400)
    assert counted["object stores killed"] >= 1
    assert counted["candles in the lake"] >= 2_000


@side_by_side
async def test_an_interrupted_backfill_beside_a_recorder_ends_complete_and_true(tmp_path: Path) -> None:
    """Interruptions, a faulty archive and faulty REST leave a backfill complete and right in the end."""
    days, symbols = either(4, 120), either(2, 8)
    options = ("--days", str(days), "--symbols", str(symbols), "--interruptions", str(either(3, 5)))
    counted = await asyncio.to_thread(longrun.counted, "history", *options, timeout_s=either(500, 1400))
    assert counted["candles in the lake"] >= symbols * days * 1440
    assert counted["recorders killed"] == 1
