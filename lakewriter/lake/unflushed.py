"""Unflushed candles: the candles in the journals of all recorders."""

from pathlib import Path

from lakewriter.candle import Candle
from lakewriter.errors import LakeError
from lakewriter.lake.journal_directories import JOURNAL_DIRECTORY, recorder_directories, segment_paths
from lakewriter.lake.segments import read_segment
from lakewriter.lake.warn_once import warn_once

# A flush can drop a segment between listing and reading. Each repetition is caused by a flush.
READ_LAPS_MAX = 100


def read_unflushed(root: Path) -> list[Candle]:
    """Return the committed candles in the journals of all recorders.

    A candle may occur twice, and may already be in its partition. Call this before
    you list files: a candle that leaves the journal in between is then in its
    partition.

    Raises:
        LakeError: if recorders drop segments at every attempt.
    """
    for _ in range(READ_LAPS_MAX):
        candles: list[Candle] = []
        try:
            for directory in recorder_directories(root):
                for path in _readable_segments(directory):
                    candles += _readable_candles(path)
        except FileNotFoundError:
            # A segment was dropped. Its unmerged rows are now in a newer segment,
            # which this listing may lack.
            continue
        return candles
    raise LakeError(f"journal: {root / JOURNAL_DIRECTORY} changed during every attempt to read it")


def _readable_candles(path: Path) -> list[Candle]:
    try:
        segment = read_segment(path)
    except FileNotFoundError:
        raise
    except OSError as error:
        warn_once(f"journal: {path}: {error.strerror}; its candles are left out")
        return []
    if segment.complaint:
        warn_once(f"journal: {path}: {segment.complaint} are left out")
    return segment.candles


def _readable_segments(directory: Path) -> list[Path]:
    try:
        return segment_paths(directory)
    except FileNotFoundError:
        raise
    except OSError as error:
        warn_once(f"journal: {directory}: {error.strerror}; its candles are left out")
        return []
