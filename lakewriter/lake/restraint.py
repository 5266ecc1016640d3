"""What a host of streams asked of this address, kept at the lake for the next recorder.

    _lakewriter/restraint.json

Of several recorders the last to write is heard. Losing it costs a refusal,
never a candle.
"""

from pathlib import Path

import msgspec

from lakewriter.lake.storage import write_durably
from lakewriter.rate_limit_state import RateLimitState
from lakewriter.regular_file import read_regular

RESTRAINT_FILE = "_lakewriter/restraint.json"

# A few hosts, with 300 attempts each.
FILE_BYTES_MAX = 1024 * 1024


def read_restraint(root: Path) -> RateLimitState:
    """Return what an earlier recorder left; nothing if that cannot be read."""
    try:
        return msgspec.json.decode(read_regular(root / RESTRAINT_FILE, FILE_BYTES_MAX), type=RateLimitState)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return RateLimitState()


def write_restraint(root: Path, restraint: RateLimitState) -> None:
    """Leave it for the next recorder.

    Raises:
        OSError: if the disk does not take it.

    Crash: what was there before, or this.
    """
    write_durably(root / RESTRAINT_FILE, msgspec.json.encode(restraint) + b"\n")
