"""Each benchmark works: its quick form runs to its end. No time is judged."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

# What others import or start, and what derives the tables of a page.
MEASURE_NOTHING = {"exchange_server.py", "import_once.py", "made_candles.py", "scale.py"}
# Of the clients, those that need no environment of their own.
WORDS = {"receive_peers.py": ("--only", "recv", "lakewriter")}

SCRIPTS = sorted(path.name for path in BENCHMARKS.glob("*.py") if path.name not in MEASURE_NOTHING)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("script", SCRIPTS)
def test_quick_form_runs(script: str, tmp_path: Path) -> None:
    """`--quick` prints figures and exits 0. A benchmark that needs a program skips, with its own reason."""
    path = BENCHMARKS / script
    done = subprocess.run(
        [sys.executable, path, "--quick", *WORDS.get(script, ())],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    last = (done.stderr.strip().splitlines() or [""])[-1]
    if done.returncode == 1 and re.match(r"(this benchmark )?needs ", last):
        pytest.skip(last)
    assert done.returncode == 0, done.stderr
    assert re.search(r"\d", done.stdout), done.stderr


@pytest.mark.slow
@pytest.mark.long
def test_absent_peer_is_named(tmp_path: Path) -> None:
    """A peer without an environment is named, and the other clients are measured."""
    words = ("--quick", "--only", "recv", "cryptofeed", "--environments", str(tmp_path / "none"))
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "receive_peers.py", *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=180,
        check=True,
    )
    assert "skipped cryptofeed: is not installed" in done.stderr
    assert re.search(r"^\| recv \| \d+\.\d\d \|", done.stdout, re.M)
    assert "| cryptofeed |" not in done.stdout
