"""All gap ledgers: which candles are absent, and why.

    _lakewriter/gaps/<recorder>.ndjson

One file per living recorder, named like its journal's directory; one change a
line (see `gap_lines`), so that replaying the lines gives the state (see `ledger`).

When its recorder is dead, the next one takes a ledger over. Nothing here knows
which candles are in the lake: that is `presence`'s.
"""

import contextlib
import fcntl
import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from lakewriter.errors import LakeError
from lakewriter.gap import Gap
from lakewriter.lake.gaps.intervals import State, gap_of, merged_states, without
from lakewriter.lake.gaps.ledger import Ledger
from lakewriter.lake.gaps.log import LedgerFile, read, state_lines
from lakewriter.lake.journal import living_recorders
from lakewriter.lake.segments import BAD_SUFFIX
from lakewriter.lake.storage import is_temporary, make_directories, sync_directory, write_durably
from lakewriter.lake.warn_once import warn_once

log = logging.getLogger(__name__)

GAPS_DIRECTORY = "_lakewriter/gaps"
_SUFFIX = ".ndjson"

# Reading races with take-overs; each lap means that one of them was finished.
READ_LAPS_MAX = 100

ORPHANED = "its recorder ended before it was healed"


class ReportedGap(NamedTuple):
    """A gap, and who tells of it.

    Args:
        gap: which.
        alive: whether the recorder whose ledger has it lives, and so may heal it.
    """

    gap: Gap
    alive: bool

    @property
    def explains_absence(self) -> bool:
        """Whether it accounts for what is absent: somebody who lives heals it, or it says why not."""
        return self.alive or self.gap.reason != "pending"


def open_ledger(root: Path, recorder: str) -> Ledger:
    """Make a recorder's ledger, and take over those of dead ones. Blocks.

    To be called when the recorder holds its journal, and before it adopts dead
    ones: a journal that is held counts as living. What was pending there
    becomes "unhealable" until somebody marks it anew.

    Args:
        root: the lake's root.
        recorder: the name of its journal's directory.

    Raises:
        OSError: if the ledger cannot be written.

    A dead ledger with damaged lines becomes a `.bad` file. One with lines of
    another version stays for that version.

    Crash: the entries are in the dead ledger, in ours, or in both. Ours is a
    dead one's then too, and taking both over changes nothing.
    """
    directory = root / GAPS_DIRECTORY
    make_directories(root, directory)
    path = directory / f"{recorder}{_SUFFIX}"
    with _lock_ledgers(directory):
        # Listed before the living are counted: who comes in between has no file in the list.
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


def _remove_taken_over(path: Path, content: LedgerFile) -> None:
    """Remove a ledger whose entries are in another one; keep what nobody could read."""
    if content.unknown:
        return
    if content.damaged:
        path.rename(path.with_name(path.name + BAD_SUFFIX))
    else:
        path.unlink(missing_ok=True)


def read_reported(root: Path) -> list[ReportedGap]:
    """Return what all ledgers tell, by series and time, each candle once.

    Where two of them tell of one candle, a final reason counts more than
    "unhealable", that more than "pending", and a living recorder's "pending"
    more than a dead one's. Safe while recorders write, come and go. Files and
    lines that cannot be read or understood are logged and left out.
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
        alive = living_recorders(root)
        try:
            states = {path: _read_or_leave_out(path) for path in paths}
        except FileNotFoundError:
            # It was taken over; its entries are in a file by now that our list may lack.
            continue
        return _reported(
            [state for path, state in states.items() if _recorder_of(path.name) in alive],
            [state for path, state in states.items() if _recorder_of(path.name) not in alive],
        )
    raise LakeError(f"gaps: {directory} does not hold still")


def _read_or_leave_out(path: Path) -> State:
    try:
        return read(path).state
    except FileNotFoundError:
        raise
    except OSError as error:
        warn_once(f"gaps: {path}: {error.strerror}; its gaps are left out")
        return {}


def read_gaps(root: Path) -> list[Gap]:
    """Return the gaps of all ledgers, by series and time, each candle once. See `read_reported`."""
    return [told.gap for told in read_reported(root)]


def _reported(of_living: list[State], of_dead: list[State]) -> list[ReportedGap]:
    unhealed = [_filtered(state, pending=True) for state in of_dead]
    known = merged_states([*of_living, *(_filtered(state, pending=False) for state in of_dead)])
    told = [
        ReportedGap(gap_of(series, entry), True) for series, entries in known.items() for entry in entries
    ]
    for series, entries in merged_states(unhealed).items():
        for entry in known.get(series, ()):
            entries = without(entries, entry.start_ms, entry.stop_ms)
        told += [ReportedGap(gap_of(series, entry), False) for entry in entries]
    return sorted(told, key=lambda each: (each.gap.series, each.gap.start_ms))


def _filtered(state: State, *, pending: bool) -> State:
    return {
        series: tuple(entry for entry in entries if (entry.reason == "pending") == pending)
        for series, entries in state.items()
    }


def _orphaned(state: State) -> State:
    """Return a dead ledger's state as its heir has it: nobody is healing what is pending."""
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
    """Return whose ledger a file is, or is to be once it has its name."""
    return name.removeprefix(".").rpartition(_SUFFIX)[0]


@contextlib.contextmanager
def _lock_ledgers(directory: Path) -> Iterator[None]:
    """Let one recorder at a time take ledgers over."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
