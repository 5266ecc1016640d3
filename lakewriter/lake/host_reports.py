"""The recorders that live on other hosts of a lake on an object store, as their hosts report them.

    _lakewriter/recorders/<host>.ndjson

A lock shows whether a recorder lives, but only on its own host. So each host with a
recorder replaces its object every `published.PUBLISH_EVERY_S`. Each line is a living
recorder: the name of its journal, the time up to which its candles are flushed, and its
status, whose fields this module does not know.
A recorder that stops leaves the report. A report that is too old is of a dead recorder, or
of a host that does not reach the store.
"""

import contextlib
from pathlib import Path

import msgspec

from lakewriter.clock import present_ms
from lakewriter.lake.journal_directories import JOURNAL_DIRECTORY, living_recorders, segment_paths
from lakewriter.lake.lake import RECORDERS_DIRECTORY, LakeStore
from lakewriter.lake.published import PUBLISH_EVERY_S, host_name, put_own
from lakewriter.lake.recorder_status_file import STATUS_BYTES_MAX, read_status
from lakewriter.lake.row_file import HOST_MARK, RowFile
from lakewriter.lake.segments import read_segment
from lakewriter.lake.warn_once import warn_once

_SUFFIX = ".ndjson"

# A recorder whose host reported it for the last time longer ago than this counts as dead.
# Two reports may be lost, and the clocks of two hosts may differ a little.
LIVING_MS = round(3.5 * PUBLISH_EVERY_S * 1000)

# A candle that ended within this time before a report may be on its way to the journal.
MOMENT_MS = 60_000

# A host rarely has more than one recorder of a lake.
_BYTES_MAX = 16 * STATUS_BYTES_MAX


class HostRecorder(msgspec.Struct, frozen=True):
    """A recorder that its host reported.

    Args:
        host: the name of the host's state directory: the host's name and random digits.
        journal: the name of the recorder's journal directory.
        flushed_until_ms: the exchange's time up to which its candles are in the lake's files,
            if they arrived; 0 if unknown. Later ones may be in its journal.
        status: its last status, as JSON; null if it publishes none, as a backfill does.
        published_ms: the time of the report, by the store's clock.
    """

    host: str
    journal: str
    flushed_until_ms: int
    status: bytes
    published_ms: int


_NO_STATUS = msgspec.Raw(b"null")


class _Line(msgspec.Struct, omit_defaults=True):
    journal: str
    # By the host's clock. It makes each report differ: a store's version of equal bytes is equal.
    at_ms: int
    flushed_until_ms: int = 0
    status: msgspec.Raw = _NO_STATUS


def publish_recorders(store: LakeStore, exchange_ms: int | None = None, *, leaving: str = "") -> None:
    """Report the living recorders of this host. The call blocks. A lake on a disk needs no report.

    Args:
        exchange_ms: the exchange's time; None if unknown.
        leaving: the journal of a recorder that is about to stop.

    Raises:
        LakeError: if the store refuses.
        OSError: if the disk refuses.

    Crash: the old report or the new one is there.
    """
    if not store.is_remote:
        return
    name = f"{RECORDERS_DIRECTORY}/{host_name(store)}{_SUFFIX}"
    lines, at_ms = [], present_ms()
    for journal in sorted(living_recorders(store.state_dir) - {leaving}):
        directory = store.state_dir / JOURNAL_DIRECTORY / journal
        status = read_status(directory)
        flushed_ms = _flushed_until_ms(directory, at_ms if exchange_ms is None else exchange_ms)
        raw = msgspec.Raw(status) if status else _NO_STATUS
        lines.append(msgspec.json.encode(_Line(journal, at_ms, flushed_ms, raw)))
    if lines:
        put_own(store, name, b"".join(line + b"\n" for line in lines))
    else:
        store.storage.delete(name)


def _flushed_until_ms(directory: Path, exchange_ms: int) -> int:
    """Return the time before the end of the first candle in a journal, and some time before now."""
    until_ms = exchange_ms - MOMENT_MS
    for path in segment_paths(directory):
        with contextlib.suppress(FileNotFoundError):  # it was flushed
            until_ms = min([until_ms, *(candle.end_ms - 1 for candle in read_segment(path).candles)])
    return max(until_ms, 0)


def remove_report(store: LakeStore, host: str) -> None:
    """Remove the report of a host that is gone for good.

    Raises:
        LakeError: if the store refuses.
    """
    store.storage.delete(f"{RECORDERS_DIRECTORY}/{host}{_SUFFIX}")


def read_host_reports(root: Path) -> list[HostRecorder]:
    """Return the recorders that hosts reported, by host and journal, also those of old reports.

    Args:
        root: a directory with the lake's ledgers; see `published.current_ledgers`.
    """
    found = []
    for path in sorted((root / RECORDERS_DIRECTORY).glob(f"*{_SUFFIX}")):
        try:
            rows, modified_ns = _FILE.read(path), path.stat().st_mtime_ns
        except OSError as error:
            warn_once(f"recorders: {path}: {error.strerror}; its recorders are left out")
            continue
        found += [
            HostRecorder(
                path.stem, row.journal, row.flushed_until_ms, bytes(row.status), modified_ns // 10**6
            )
            for row in rows
        ]
    return found


def living_anywhere(store: LakeStore, root: Path, now_ms: int) -> frozenset[str]:
    """Return the living recorders: of this host by their locks, of other hosts by their reports.

    Args:
        root: a directory with the lake's ledgers; see `published.current_ledgers`.
        now_ms: this host's time.

    Returns:
        the names of their journals, and of their published ledgers: `<journal>@<host>`.
    """
    own = living_recorders(store.state_dir)
    if not store.is_remote:
        return own
    host = host_name(store)
    places = {(journal, host) for journal in own}
    places |= {
        (each.journal, each.host)
        for each in read_host_reports(root)
        if each.host != host and now_ms - each.published_ms < LIVING_MS
    }
    return own | {name for journal, at in places for name in (journal, f"{journal}{HOST_MARK}{at}")}


def flushed_until_ms(store: LakeStore, root: Path) -> dict[str, int]:
    """Return the `flushed_until_ms` of the recorders on other hosts, by the names of their journals.

    The journals of other hosts cannot be read. Those of this one are.
    """
    host = host_name(store)
    return {
        each.journal: each.flushed_until_ms
        for each in (read_host_reports(root) if store.is_remote else ())
        if each.host != host
    }


def _line(line: bytes) -> _Line:
    return msgspec.json.decode(line, type=_Line)


_FILE = RowFile("recorders", _BYTES_MAX, _line, STATUS_BYTES_MAX + 1_000)
