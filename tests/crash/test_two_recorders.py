"""Short forms of the test of two recorders; `make two-recorders` runs five minutes of each."""

import shutil
import sys
from pathlib import Path

import pytest

from crash import longrun
from support.lengths import either
from support.running import PATIENCE_S
from support.seaweed import REASON

pytestmark = [pytest.mark.slow, pytest.mark.timeout(either(600, 1200))]

NEEDS_STORE = pytest.mark.skipif(
    shutil.which("weed", path=str(Path(sys.executable).parent)) is None and shutil.which("weed") is None,
    reason=REASON,
)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(("--lake", "disk"), id="disk"),
        pytest.param(("--lake", "s3", "--gone"), id="s3-gone", marks=NEEDS_STORE),
        pytest.param(("--lake", "disk", "--gone"), id="disk-gone", marks=pytest.mark.long),
        pytest.param(("--lake", "s3"), id="s3", marks=[NEEDS_STORE, pytest.mark.long]),
    ],
)
def test_two_recorders_write_what_one_healthy_recorder_would(options: tuple[str, ...]) -> None:
    """Under random kills of either and both the lake equals the truth, and all hosts give one answer."""
    duration_s = either(4, 120)
    options += ("--duration", f"{duration_s}s")
    counted = longrun.counted("two_recorders", *options, timeout_s=2 * PATIENCE_S + 3 * duration_s)
    assert counted["kills"] >= 1
    assert counted["series"] == 24
    assert counted["candles in the lake"] >= 24
    for fault in ("missing", "different", "promised and lost", "errors"):
        assert counted[fault] == 0
