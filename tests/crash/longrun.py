"""Shared code of the long tests: the seed, the directory that is kept after a failure, and the outcome."""

import argparse
import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from support.lengths import drawn_seed
from support.running import TESTS

# A number of the outcome: its name, two spaces or more, and how many.
COUNT = re.compile(r"^(.+?)  +([\d,]+)$", re.MULTILINE)


def parser_of(doc: str | None) -> argparse.ArgumentParser:
    """Return the parser of the options that all long runs share."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=drawn_seed())
    parser.add_argument("--directory", type=Path, help="empty or absent; kept  [default: a temporary one]")
    return parser


def seconds(text: str) -> float:
    """Parse "90s", "10m" or "1h" into seconds, for argparse."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|h)", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not like 90s, 10m or 1h")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]]


def run(name: str, arguments: argparse.Namespace, work: Callable[[Path], Awaitable[bool]]) -> None:
    """Do the work in its directory, and exit: 0 for no error, 1 for an error, 130 for an interrupt.

    Args:
        arguments: the parsed command line.
        work: gets the directory, and returns whether it found no error.
    """
    given: Path | None = arguments.directory
    if given is not None and any(given.glob("*")):
        sys.exit(f"{given} is not empty")
    print(f"seed {arguments.seed}", file=sys.stderr, flush=True)
    place = (given or Path(tempfile.mkdtemp(prefix=f"lakewriter-{name}-"))).resolve()
    place.mkdir(parents=True, exist_ok=True)
    well = _interruptible(work(place))
    if well is False:
        print(f"the lake and the logs are in {place}")
    elif given is None:
        shutil.rmtree(place)
    sys.exit({True: 0, False: 1, None: 130}[well])


def block(counts: Iterable[tuple[str, int]]) -> str:
    """Return the outcome, with one number per line."""
    lines = list(counts)
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name:{width}}  {count:,}" for name, count in lines)


def counted(program: str, *options: str, timeout_s: float) -> dict[str, int]:
    """Run a long run in its short form to a good end; return the numbers of its outcome."""
    done = subprocess.run(
        [sys.executable, "-m", f"crash.{program}", *options],
        env=os.environ | {"PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    print(done.stderr, done.stdout, sep="\n")  # names the seed
    said = (done.stdout + done.stderr).splitlines()
    errors = [line for line in said if line.lower().startswith("error")] or said[-3:]
    assert done.returncode == 0, " | ".join(errors[:5])  # one line, for the list of failures
    return {name.strip(): int(count.replace(",", "")) for name, count in COUNT.findall(done.stdout)}


def _interruptible(work: Awaitable[bool]) -> bool | None:
    """Return the result of the work; None if Ctrl-C or SIGTERM ended it."""

    async def whole() -> bool | None:
        task = asyncio.ensure_future(work)
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        try:
            return await task
        except asyncio.CancelledError:
            return None

    return asyncio.run(whole())
