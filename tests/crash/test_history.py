"""A short history test; `make history` runs forty series over 400 days."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

HISTORY = Path(__file__).with_name("history.py")


def test_an_interrupted_backfill_beside_a_recorder_ends_complete_and_true() -> None:
    """Interrupted five times, with an archive that lies and REST that refuses: nothing is lost or made up."""
    done = subprocess.run(
        [sys.executable, str(HISTORY), "--days", "20", "--symbols", "3"],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    print(done.stderr, done.stdout, sep="\n")  # names the seed
    assert done.returncode == 0
    counted = {
        found[1].strip(): int(found[2].replace(",", ""))
        for found in re.finditer(r"^(.+?)  +([\d,]+)$", done.stdout, re.MULTILINE)
    }
    assert counted["candles in the lake"] >= 3 * 20 * 1440
    assert counted["recorders killed"] == 1
