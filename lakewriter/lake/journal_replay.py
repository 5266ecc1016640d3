"""Replay of the journals of dead recorders: their candles are merged into partitions.

Contract: a segment is dropped only after all its candles are in partitions. Before
that, its damaged lines are written to a `.bad` file beside it. A segment with lines
of another version stays for that version. A second replay of a segment changes
nothing.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from lakewriter.candle import to_table
from lakewriter.errors import LakeError
from lakewriter.lake.journal import Journal, adopt_dead
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.segments import Segment, read_segment, set_aside
from lakewriter.lake.storage import StoreAwayError
from lakewriter.partition import by_partition


class Replayed(NamedTuple):
    """The result of replaying one segment of a dead recorder.

    Args:
        name: the segment, as `<recorder>/<file>`; `<recorder>` if its journal was unreadable.
        candles: number of its candles that are in their partitions now.
        torn: whether its last line is incomplete. That line's commit never returned.
        damaged: number of lines in the `.bad` file.
        waiting: number of unmerged candles and of lines of another version. 1 if the
            segment or the journal was unreadable. If not 0, the segment stays.
        error: the reason, or "" if `waiting` is 0.
        is_away: whether an object store is away. Then later segments are not tried.
    """

    name: str
    candles: int = 0
    torn: bool = False
    damaged: int = 0
    waiting: int = 0
    error: str = ""
    is_away: bool = False


def replay_dead(store: LakeStore) -> Iterator[Replayed]:
    """Merge the journals of dead recorders, and yield the result of each segment.

    The last result is that of a segment that found the object store away.

    Crash: at any step each candle is in its segment, in its partition, or in
    both, and the journal is a dead recorder's again.
    """
    refused: list[Replayed] = []

    def refuse(directory: Path, error: OSError) -> None:
        reason = f"cannot be taken over: {error.strerror}"
        refused.append(Replayed(directory.name, waiting=1, error=reason))

    for journal in adopt_dead(store.state_dir, refuse):
        try:
            for path in journal.segments():
                name = f"{path.parent.name}/{path.name}"
                try:
                    replayed = _replay(store, journal, read_segment(path), name)
                except (LakeError, OSError) as error:
                    replayed = Replayed(name, waiting=1, error=_reason(error))
                if replayed.is_away and store.away_error() is None:
                    # The store does not serve one key, which holds back no other segment.
                    replayed = replayed._replace(is_away=False)
                yield replayed
                if replayed.is_away:
                    return
        except OSError as error:
            yield Replayed(journal.directory.name, waiting=1, error=_reason(error))
        finally:
            journal.close()
    yield from refused


def _replay(store: LakeStore, journal: Journal, segment: Segment, name: str) -> Replayed:
    waiting, error, is_away = 0, "", False
    parts = by_partition(segment.candles)
    results = store.merge_many([(partition, to_table(candles)) for partition, candles in parts.items()])
    for (partition, candles), result in zip(parts.items(), results, strict=True):
        try:
            if isinstance(result, Exception):
                raise result
            store.sweep(partition)
        except StoreAwayError as failed:
            waiting, error, is_away = waiting + len(candles), failed.reason, True
        except (LakeError, OSError, pa.ArrowException, MemoryError) as failed:
            waiting += len(candles)
            error = f"{partition}: {_reason(failed)}"
    merged = len(segment.candles) - waiting
    if segment.unknown:
        waiting += segment.unknown
        error = error or f"{segment.unknown} lines of another version; pip install --upgrade lakewriter"
    if waiting:
        return Replayed(name, merged, segment.torn, 0, waiting, error, is_away)
    if segment.damage:
        set_aside(segment)
    journal.drop([segment.path])
    return Replayed(name, merged, segment.torn, segment.damage)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.filename or 'disk'}: {error.strerror}"
    return str(error) or type(error).__name__
