"""Check whether a file is proven to be the archive's. Pure.

Rule: a proven file has the name of an archive file, and all candles of that finished
period. Other files rank as REST.
"""

from typing import NamedTuple

from lakewriter.candle import IntArray
from lakewriter.evidence.claims import time_text
from lakewriter.evidence.spacing import longest_ms
from lakewriter.interval import Interval


class ArchivePeriod(NamedTuple):
    """The day or month in an archive file's name, as a range of begin times in milliseconds."""

    start_ms: int
    stop_ms: int


def why_not_archive(
    begins: IntArray, grid: Interval, period: ArchivePeriod | None, now_ms: int, *, checked: bool
) -> str:
    """Return the reason why a file with the archive's layout is unproven; "" for a proven file.

    Args:
        begins: begin times of all rows, including open candles.
        period: the period in the file's name; None if the archive has no such name.
        checked: whether the archive's checksum beside it matches.
    """
    if period is None:
        return "the archive has no file of its name"
    if period.stop_ms > now_ms:
        return "its period is not over"
    if not len(begins) or begins.min() < period.start_ms or begins.max() >= period.stop_ms:
        return "it has rows outside of its name's period"
    last_ms = int(begins.max())
    if not checked and last_ms + longest_ms(grid) < period.stop_ms:
        return f"it ends at {time_text(last_ms)}, before its period does"
    return ""
