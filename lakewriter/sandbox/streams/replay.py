"""Recorded sessions: the frames of a log and their times.

A log's first line has the URL and the time of the connection: `wss://… <-> 1628952394.89`.
Each other line has the form `<receive time>: <frame>`. Times are Unix seconds. Recorded
frames are sent unchanged and not parsed.
"""

from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from lakewriter.errors import UsageError
from lakewriter.market import parse_market
from lakewriter.regular_file import read_user_text

# The maximum size of a log. An hour of one connection takes about 100 MB.
FILE_BYTES_MAX = 1 << 30

# Parts of host names and their markets. The first match wins.
_HOSTS = (
    ("fstream", "usdt_futures"),
    ("dstream", "coin_futures"),
    ("trbinance", "spot"),
    ("stream", "spot"),
)


class Recording(NamedTuple):
    """The frames that one connection received.

    Args:
        frames: the seconds since the first frame and the payload of each frame, in order.
    """

    market: str
    frames: list[tuple[float, bytes]]


def load_recording(text: str) -> Recording:
    """Read a recording, given as `FILE` or `MARKET=FILE`.

    Raises:
        UsageError: if the file does not exist or is not a log.
    """
    name, equals, rest = text.partition("=")
    market, path = (parse_market(name).name, Path(rest)) if equals and "/" not in name else ("", Path(text))
    try:
        head, *lines = read_user_text(path, FILE_BYTES_MAX).split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"replay: {path}: {error}", "--replay FILE or --replay spot=FILE") from None
    return Recording(market or _market_of(head, path), _frames(lines, path))


def _market_of(head: str, path: Path) -> str:
    host = urlsplit(head.split(" ", 1)[0]).hostname or ""
    for part, market in _HOSTS:
        if part in host:
            return market
    raise UsageError(f"replay: {path}: its first line names no market", f"--replay spot={path}")


def _frames(lines: list[str], path: Path) -> list[tuple[float, bytes]]:
    timed = []
    for number, line in enumerate(lines, start=2):
        if not line.strip():
            continue
        time, _, frame = line.partition(": ")
        try:
            timed.append((float(time), frame.encode()))
        except ValueError:
            raise UsageError(f"replay: {path}: line {number} is not TIME: FRAME") from None
    return [(time_s - timed[0][0], frame) for time_s, frame in timed]
