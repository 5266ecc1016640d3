"""A minute of the torture test; `make torture` runs ten."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

TORTURE = Path(__file__).with_name("torture.py")


def test_a_minute_of_torture_loses_repeats_and_changes_nothing() -> None:
    """Killed at random, with readers asking all the while: no error, nothing lost, repeated or changed."""
    done = subprocess.run(
        [sys.executable, str(TORTURE), "--duration", "60s"],
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
    assert counted["kills"] >= 8
    assert counted["candles recorded"] >= 200
    for engine in ("duckdb", "pyarrow", "lakewriter query"):
        assert counted[engine] >= 3, engine
    for fault in ("errors", "lost", "duplicated", "different"):
        assert counted[fault] == 0
