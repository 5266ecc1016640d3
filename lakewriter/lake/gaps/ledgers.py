"""All gap ledgers: the absent candles and the reasons for their absence.

    _lakewriter/gaps/<recorder>.ndjson

Each living recorder has one file, named like its journal's directory. Each line
is a change (see `log`); the replay of all changes gives the state (see `ledger`).

The next recorder takes over the ledgers of dead recorders. This module does not know
which candles are in the lake; `presence` does.
"""

import contextlib
import fcntl
import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from lakewriter.errors import LakeError
from lakewriter.gap import FINAL, Gap
from lakewriter.lake.durable import is_temporary, make_directories, sync_directory, write_durably
from lakewriter.lake.gaps.intervals import Entries, Entry, State, gap_of, merged_states, with_entry, without
from lakewriter.lake.gaps.ledger import Ledger
from lakewriter.lake.gaps.log import LedgerFile, read, state_lines
from lakewriter.lake.journal_directories import living_recorders
from lakewriter.lake.segments import BAD_SUFFIX
from lakewriter.lake.warn_once import warn_once
from lakewriter.ranges import Range, union, within
from lakewriter.series import Series

log = logging.getLogger(__name__)

GAPS_DIRECTORY = "_lakewriter/gaps"
_SUFFIX = ".ndjson"

# A take-over can remove a ledger between listing and reading. Each repetition is caused by a take-over.
READ_LAPS_MAX = 100

ORPHANED = "its recorder ended before it was healed"


class ReportedGap(NamedTuple):
    """A gap from a ledger.

    Args:
        gap: the gap.
        alive: whether the ledger's recorder lives, so that it may heal the gap.
    """

    gap: Gap
    alive: bool

    @property
    def explains_absence(self) -> bool:
        """Whether a living recorder may heal the candles, or the ledger has a reason for their absence."""
        return self.alive or self.gap.reason != "pending"


def open_ledger(root: Path, recorder: str) -> Ledger:
    """Create a recorder's ledger, and take over the ledgers of dead recorders. The call blocks.

    The recorder calls this after it has locked its own journal, and before it adopts
    dead journals: a locked journal counts as living. Pending gaps of dead recorders
    become "unhealable" until they are marked again.

    A dead ledger with damaged lines becomes a `.bad` file. A dead ledger with lines of
    another version stays for that version.

    Args:
        root: the directory that has `_lakewriter`.
        recorder: the name of the recorder's journal directory.

    Raises:
        OSError: if the ledger cannot be written.

    Crash: the entries are in the dead ledger, in ours, or in both. Ours is then
    dead too, and a take-over of both changes nothing.
    """
    directory = root / GAPS_DIRECTORY
    make_directories(root, directory)
    path = directory / f"{recorder}{_SUFFIX}"
    with _lock_ledgers(directory):
        # List the files before the living recorders: the list then lacks the file of a recorder that
        # starts in between.
        names = _names(directory)
        alive = living_recorders(root) | {recorder}
        states, ended = [], dict[Path, LedgerFile]()
        for dead in _ledgers(directory, names):
            if _recorder_of(dead.name) in alive:
                continue
            try:
                ended[dead] = read(dead)
            except OSError as error:
                log.error("gaps: %s cannot be taken over: %s", dead, error.strerror)
            else:
                states.append(_orphaned(ended[dead].state))
        if path.exists():
            states.append(read(path).state)
        state = merged_states(states)
        lines = state_lines(state)
        write_durably(path, b"".join(lines))
        for dead, content in ended.items():
            _remove_taken_over(dead, content)
        for name in names:
            if is_temporary(name) and _recorder_of(name) not in alive:
                (directory / name).unlink(missing_ok=True)
        sync_directory(directory)
    return Ledger(path, state, len(lines))


def unknown_gaps(known: Iterable[Gap], gaps: Iterable[Gap]) -> list[Gap]:
    """Return the gaps of another lake that tell more than the known ones.

    A gap is left out if known gaps with reasons that are at least as final cover its range.
    """
    ranges: dict[tuple[Series, int], list[Range]] = {}
    for gap in known:
        for finality in range(_finality(gap) + 1):
            ranges.setdefault((gap.series, finality), []).append((gap.start_ms, gap.stop_ms))
    covered = {key: union(found) for key, found in ranges.items()}
    return [
        gap
        for gap in gaps
        if within(covered.get((gap.series, _finality(gap)), []), gap.start_ms, gap.stop_ms)
        != [(gap.start_ms, gap.stop_ms)]
    ]


def _finality(gap: Gap) -> int:
    return 2 if gap.reason in FINAL else 0 if gap.reason == "pending" else 1


def add_gaps(root: Path, recorder: str, gaps: Iterable[Gap]) -> None:
    """Add gaps of another lake to a ledger that has no living recorder. The call blocks.

    The next recorder takes it over, as the ledger of a dead recorder. Other ledgers stay.

    Args:
        root: the directory that has `_lakewriter`.
        recorder: the ledger's name, which no recorder has.

    Raises:
        OSError: if the ledger cannot be read or written.

    Crash: the old ledger or the new one is there, whole.
    """
    directory = root / GAPS_DIRECTORY
    make_directories(root, directory)
    path = directory / f"{recorder}{_SUFFIX}"
    added: dict[Series, Entries] = {}
    for gap in gaps:
        entry = Entry(*(getattr(gap, name) for name in Entry._fields))
        added[gap.series] = with_entry(added.get(gap.series, ()), entry)
    with _lock_ledgers(directory):
        states: list[State] = [added]
        with contextlib.suppress(FileNotFoundError):
            states.append(read(path).state)
        write_durably(path, b"".join(state_lines(merged_states(states))))


def _remove_taken_over(path: Path, content: LedgerFile) -> None:
    """Remove a ledger whose entries are in another one, unless it has lines of another version.

    A ledger with damaged lines is renamed to a `.bad` file.
    """
    if content.unknown:
        return
    if content.damaged:
        path.rename(path.with_name(path.name + BAD_SUFFIX))
    else:
        path.unlink(missing_ok=True)


def read_reported(root: Path, living: frozenset[str] | None = None) -> list[ReportedGap]:
    """Return the gaps of all ledgers, by series and time, each candle once.

    Two ledgers may have a gap of the same candle. Then a final reason has precedence
    over "unhealable", and that over "pending". A living recorder's reason has
    precedence over a dead recorder's "pending".

    Recorders may write, start and stop meanwhile. Files and lines that cannot be read
    are logged and left out.

    Args:
        root: the directory that has `_lakewriter`.
        living: the names of the ledgers of living recorders; None to try the locks below
            the root. A copy of an object store's ledgers has no locks.

    Raises:
        LakeError: if recorders take ledgers over at every attempt.
    """
    directory = root / GAPS_DIRECTORY
    for _ in range(READ_LAPS_MAX):
        try:
            paths = _ledgers(directory, _names(directory))
        except FileNotFoundError:
            return []
        except OSError as error:
            warn_once(f"gaps: {directory}: {error.strerror}; its gaps are left out")
            return []
        alive = living_recorders(root) if living is None else living
        try:
            states = {path: _read_or_leave_out(path) for path in paths}
        except FileNotFoundError:
            # A ledger was taken over. Its entries are now in another file, which this list may lack.
            continue
        return _reported(
            [state for path, state in states.items() if _recorder_of(path.name) in alive],
            [state for path, state in states.items() if _recorder_of(path.name) not in alive],
        )
    raise LakeError(f"gaps: {directory} changed during every attempt to read it")


def _read_or_leave_out(path: Path) -> State:
    try:
        return read(path).state
    except FileNotFoundError:
        raise
    except OSError as error:
        warn_once(f"gaps: {path}: {error.strerror}; its gaps are left out")
        return {}


def read_gaps(root: Path) -> list[Gap]:
    """Return the gaps of `read_reported`, without their recorders."""
    return [reported.gap for reported in read_reported(root)]


def _reported(of_living: list[State], of_dead: list[State]) -> list[ReportedGap]:
    unhealed = [_filtered(state, pending=True) for state in of_dead]
    known = merged_states([*of_living, *(_filtered(state, pending=False) for state in of_dead)])
    reported = [
        ReportedGap(gap_of(series, entry), True) for series, entries in known.items() for entry in entries
    ]
    for series, entries in merged_states(unhealed).items():
        for entry in known.get(series, ()):
            entries = without(entries, entry.start_ms, entry.stop_ms)
        reported += [ReportedGap(gap_of(series, entry), False) for entry in entries]
    return sorted(reported, key=lambda each: (each.gap.series, each.gap.start_ms))


def _filtered(state: State, *, pending: bool) -> State:
    return {
        series: tuple(entry for entry in entries if (entry.reason == "pending") == pending)
        for series, entries in state.items()
    }


def _orphaned(state: State) -> State:
    """Return a dead ledger's state after a take-over: pending gaps become unhealable."""
    return {
        series: tuple(
            entry._replace(reason="unhealable", error=ORPHANED) if entry.reason == "pending" else entry
            for entry in entries
        )
        for series, entries in state.items()
    }


def _names(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


def _ledgers(directory: Path, names: Iterable[str]) -> list[Path]:
    paths = (directory / name for name in sorted(names) if name.endswith(_SUFFIX))
    return [path for path in paths if path.is_file()]


def _recorder_of(name: str) -> str:
    """Return the recorder of a ledger's file, or of a temporary file beside one."""
    return name.removeprefix(".").rpartition(_SUFFIX)[0]


@contextlib.contextmanager
def _lock_ledgers(directory: Path) -> Iterator[None]:
    """Hold the lock of the directory. One recorder at a time takes ledgers over."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
