"""`--help` is fast, because it imports no library but click."""

import subprocess
import sys
from typing import get_args

import pytest

from lakewriter.backfill.archive_import import DOWNLOADS
from lakewriter.backfill.worker_import import WORKER_DOWNLOADS
from lakewriter.candle import Source
from lakewriter.cli import COMMANDS, option_values
from lakewriter.config import FILE_NAME, LOG_FORMATS
from lakewriter.market import MARKETS
from lakewriter.verify.findings import LOCAL_CHECKS
from lakewriter.verify.price_jumps import DEVIATIONS
from support.running import PATIENCE_S, run

# Each takes more than a tenth of the time of `import click`.
HEAVY = {
    "aiohttp", "asyncio", "duckdb", "logging", "msgspec", "numpy", "obstore", "pandas", "pyarrow", "rich",
    "websockets",
}  # fmt: skip


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_imports_no_library_but_click(command: str) -> None:
    """The help of each command is printed before its work, and what that needs, is imported."""
    code = (
        "import sys; from lakewriter.cli import cli; cli.main(sys.argv[1:], standalone_mode=False);"
        f"sys.exit(' '.join({HEAVY!r} & sys.modules.keys()) or None)"
    )
    words = [*([command] if command else []), "--help"]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert done.stdout.startswith("Usage: ")


def test_options_name_the_values_of_the_code() -> None:
    """The choices and defaults in the declarations of options are those of the modules that use them."""
    assert option_values.FILE_NAME == FILE_NAME
    assert option_values.LOG_FORMATS == LOG_FORMATS
    assert tuple(MARKETS) == option_values.MARKETS
    assert get_args(Source) == option_values.SOURCES
    assert (option_values.DOWNLOADS, option_values.WORKER_DOWNLOADS) == (DOWNLOADS, WORKER_DOWNLOADS)
    assert option_values.LOCAL_CHECKS == LOCAL_CHECKS
    assert option_values.DEVIATIONS == DEVIATIONS


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        ("recrod", "did you mean record?"),
        ("cov", "did you mean coverage?"),
        ("co", "did you mean coverage or copy or compact or completion?"),
        ("select 1", "lakewriter --help lists them"),
        ("xyz\x1b[2J", "lakewriter --help lists them"),
    ],
)
def test_a_mistyped_command_names_similar_ones(typed: str, hint: str) -> None:
    """A command that does not exist is one line and a hint."""
    done = run(typed, "--lake", "x")
    shown = typed.replace("\x1b", "\\u001b")
    assert (done.returncode, done.stderr) == (2, f"lakewriter: no such command: {shown}\n  {hint}\n")
