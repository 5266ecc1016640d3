"""A minute of the endurance test; `make endure` runs twenty with 600 series."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

ENDURANCE = Path(__file__).with_name("endurance.py")


def test_a_minute_of_faults_and_kills_leaves_nothing_unaccounted_for() -> None:
    """Faults and kills at random: coverage is clean, the lake is the truth, no limit was broken."""
    done = subprocess.run(
        [sys.executable, str(ENDURANCE), "--duration", "45s", "--symbols", "60"],
        capture_output=True,
        text=True,
        timeout=380,
        check=False,
    )
    print(done.stderr, done.stdout, sep="\n")  # names the seed
    assert done.returncode == 0
    counted = {
        found[1].strip(): int(found[2].replace(",", ""))
        for found in re.finditer(r"^(.+?)  +([\d,]+)$", done.stdout, re.MULTILINE)
    }
    assert counted["recorders killed"] >= 1
    assert counted["candles in the lake"] >= 2000
    assert sum(count for name, count in counted.items() if name.startswith("fault: ")) >= 10
