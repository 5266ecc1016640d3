"""The recorders of a lake: on this host living ones, and dead ones that left a journal.

A recorder publishes its status in its journal directory, and holds the lock of the
directory while it lives. Other writers, such as a backfill, hold such a lock too, and
publish nothing. On an object store each host reports its living recorders to the others.
"""

import os
from pathlib import Path
from typing import Literal

import msgspec

from lakewriter.lake.host_reports import LIVING_MS, read_host_reports
from lakewriter.lake.journal_directories import (
    LOCK_NAME,
    living_recorders,
    recorder_directories,
    segment_paths,
)
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.published import host_name
from lakewriter.lake.recorder_status_file import read_status
from lakewriter.lake.segments import BAD_SUFFIX, READ_BYTES_MAX
from lakewriter.recording.status import RecorderStatus
from lakewriter.regular_file import open_regular

_PART_BYTES = 1 << 20


class RecorderFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One journal directory, and the recorder that has it.

    Args:
        journal: the name of the directory.
        state: "recording": a living recorder; "busy": a living process that publishes no
            status, such as a backfill, or another version of lakewriter; "dead": the
            process ended without a clean stop, or could not flush everything.
        status: the recorder's last status; None without one. Of a dead recorder it is up to
            some seconds older than its end.
        journal_bytes: the size of the journal's segments.
        journal_candles: number of candles in them. None for a living process.
        seen_at_ms: the last time at which it was alive for sure: of its status, or of its
            last commit. None if unknown.
        damaged: names of files with damaged lines that a replay kept.
    """

    journal: str
    state: Literal["recording", "busy", "dead"]
    status: RecorderStatus | None
    journal_bytes: int
    journal_candles: int | None
    seen_at_ms: int | None
    damaged: tuple[str, ...] = ()


def read_recorders(state_dir: Path) -> list[RecorderFacts]:
    """Return the recorders of a lake, living ones first.

    Args:
        state_dir: the local directory whose `_lakewriter` has the journals.
    """
    # The statuses are read before the locks are tried: a recorder that stops in between
    # has removed its directory by then, and does not look dead.
    found = [(directory, _decoded(read_status(directory))) for directory in recorder_directories(state_dir)]
    alive = living_recorders(state_dir)
    facts = [
        fact for directory, status in found if (fact := _facts(directory, status, directory.name in alive))
    ]
    order = ("recording", "busy", "dead")
    return sorted(facts, key=lambda fact: (order.index(fact.state), fact.journal))


class RemoteRecorder(msgspec.Struct, frozen=True, kw_only=True):
    """A recorder on another host, as that host reported it last.

    Args:
        host: the host's name, and random digits that tell its state directory from others.
        journal: the name of the recorder's journal directory there.
        state: "recording" or "busy", as in `RecorderFacts`; "silent" if the report is old.
            The recorder then died, or its host does not reach the store.
        status: the recorder's status at the time of the report; None without one.
        published_at_ms: the time of the report, by the store's clock.
    """

    host: str
    journal: str
    state: Literal["recording", "busy", "silent"]
    status: RecorderStatus | None
    published_at_ms: int


def read_remote_recorders(store: LakeStore, root: Path, now_ms: int) -> list[RemoteRecorder]:
    """Return the recorders on other hosts of a lake on an object store, by host.

    Args:
        root: a directory with the lake's ledgers; see `published.current_ledgers`.
        now_ms: this host's time.
    """
    own = host_name(store)
    found = []
    for each in read_host_reports(root):
        if each.host == own:
            continue
        status = _decoded(each.status)
        is_old = now_ms - each.published_ms >= LIVING_MS
        found.append(
            RemoteRecorder(
                host=each.host,
                journal=each.journal,
                state="silent" if is_old else "busy" if status is None else "recording",
                status=status,
                published_at_ms=each.published_ms,
            )
        )
    return found


def _facts(directory: Path, status: RecorderStatus | None, is_alive: bool) -> RecorderFacts | None:
    """Return the facts of a journal directory; None if it is gone, or no recorder's any more."""
    try:
        segments = segment_paths(directory)
        damaged = tuple(sorted(path.name for path in directory.iterdir() if path.suffix == BAD_SUFFIX))
        has_lock = (directory / LOCK_NAME).exists()
        sizes = [path.stat() for path in segments]
        candles = None if is_alive else sum(map(_count_lines, segments))
    except OSError:
        return None  # it ended or was flushed meanwhile, or is not readable for this user
    if not is_alive and not (has_lock or segments or damaged):
        return None
    seen_ms = [each.st_mtime_ns // 10**6 for each in sizes]
    if status is not None:
        seen_ms.append(status.at_ms)
    return RecorderFacts(
        journal=directory.name,
        state="dead" if not is_alive else "busy" if status is None else "recording",
        status=status,
        journal_bytes=sum(each.st_size for each in sizes),
        journal_candles=candles,
        seen_at_ms=max(seen_ms, default=None),
        damaged=damaged,
    )


def _decoded(data: bytes | None) -> RecorderStatus | None:
    """Return a status; None if it is absent, empty after a power cut, or of another version."""
    if data is None:
        return None
    try:
        return msgspec.json.decode(data, type=RecorderStatus)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _count_lines(path: Path) -> int:
    """Return the number of whole lines in a segment, up to the bytes that a reader reads."""
    lines, left = 0, READ_BYTES_MAX
    with os.fdopen(open_regular(path), "rb", buffering=0) as file:
        while left > 0 and (part := file.read(min(left, _PART_BYTES))):
            lines += part.count(b"\n")
            left -= len(part)
    return lines
