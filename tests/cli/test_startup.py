"""Too little memory or too few threads: one error line, no abort."""

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lakewriter.cli.startup import _startable, resource_shortage
from support.running import PATIENCE_S

# Becomes another user, for whom the limit of processes holds, and may read what root may.
_CAPABILITIES = "+dac_read_search,+dac_override"
ORDINARY_USER = [
    *("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"),
    *(f"--inh-caps={_CAPABILITIES}", f"--ambient-caps={_CAPABILITIES}"),
]


def limited(limit: str, *command: str, home: Path) -> "subprocess.CompletedProcess[str]":
    """Run the command line below a limit of `ulimit`."""
    lakewriter = [sys.executable, "-m", "lakewriter", "query", "SELECT 1", "--lake", str(home / "none")]
    return subprocess.run(
        ["bash", "-c", f'ulimit {limit}; exec "$@"', "bash", *command, *lakewriter],
        capture_output=True,
        text=True,
        env=os.environ | {"HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"},
        timeout=PATIENCE_S,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("limit", ["-v 100000", "-v 300000", "-v 1200000", "-d 50000", "-d 200000"])
def test_too_little_memory_is_one_line(limit: str, tmp_path: Path) -> None:
    """With too little memory for the engine and Arrow, the command ends with one line instead of an abort."""
    done = limited(limit, home=tmp_path)
    assert done.returncode == 1 and done.stdout == ""
    line, hint = done.stderr.splitlines()
    assert line.startswith("lakewriter: memory: this process may have ")
    assert hint == f"  ulimit {limit.split()[0]} unlimited"


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2, 10])
def test_too_few_threads_are_one_line(threads: int, tmp_path: Path) -> None:
    """With too few threads for any library, the command ends with one line."""
    as_user = ORDINARY_USER if os.geteuid() == 0 else []
    if as_user and not shutil.which("setpriv"):
        pytest.skip("needs setpriv: the limit does not hold for root")
    done = limited(f"-u {threads}", *as_user, home=tmp_path)
    assert done.returncode == 1 and done.stdout == ""
    line, hint = done.stderr.splitlines()
    assert line.startswith("lakewriter: threads: ") and " can be started, and " in line
    assert hint == "  ulimit -u 4096, or TasksMax= of the service"


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="only root can be another user")
def test_a_user_without_a_home_is_one_line(tmp_path: Path) -> None:
    """Without a home directory, a lake on a store names the missing variable."""
    as_user = [*ORDINARY_USER[:1], "--reuid=54321", *ORDINARY_USER[2:]]
    command = [sys.executable, "-m", "lakewriter", "query", "SELECT 1", "--lake", "s3://bucket/lake"]
    environment = {
        name: value for name, value in os.environ.items() if name not in ("HOME", "XDG_STATE_HOME")
    }
    done = subprocess.run(
        [*as_user, *command], capture_output=True, text=True, cwd=tmp_path, env=environment, check=False
    )
    assert (done.returncode, done.stderr) == (
        2,
        "lakewriter: state: this user has no home directory\n  export XDG_STATE_HOME=/var/lib/lakewriter\n",
    )


def test_the_probe_leaves_no_thread() -> None:
    """The threads that count the possible threads have ended afterwards."""
    before = threading.active_count()
    assert _startable(50) == 50
    assert threading.active_count() == before


def test_a_shortage_is_told_from_a_bug() -> None:
    """Shortages of the machine get one line; any other error keeps its traceback."""
    for error in (
        MemoryError(),
        ImportError("x.so: failed to map segment from shared object"),
        ImportError("x.so: cannot map zero-fill pages: Cannot allocate memory"),
        RuntimeError("can't start new thread"),
    ):
        assert resource_shortage(error) is not None
    for other in (ImportError("no module named x"), RuntimeError("dictionary changed"), KeyError("x")):
        assert resource_shortage(other) is None
