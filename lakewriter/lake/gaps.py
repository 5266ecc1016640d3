"""The gap ledger: which candles are absent, and why.

    _lakewriter/gaps/<recorder>.ndjson

One file per living recorder, named like its journal's directory; one change a
line (see `gap_lines`), so that replaying the lines gives the state.

The state lives in memory and changes there at once; what changed since the
last write is taken on the event loop (`take_changes`) and written in a thread
(`write`). A gap that came and went in between costs no line. A file that has
become much longer than its state is written anew, whole.

When its recorder is dead, the next one takes a ledger over. Nothing here knows
which candles are in the lake: that is `presence`'s.
"""

import contextlib
import fcntl
import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from lakewriter.errors import LakeError
from lakewriter.gap import FINAL, Gap, Reason
from lakewriter.lake.entries import (
    Entries,
    Entry,
    State,
    gap_of,
    joined,
    overlapping,
    remains,
    resolved,
    says,
    without,
)
from lakewriter.lake.gap_lines import difference, lines_of, read
from lakewriter.lake.journal import living
from lakewriter.lake.storage import is_temporary, make_directories, sync_directory, write_durably
from lakewriter.ranges import Range, union
from lakewriter.series import Series

log = logging.getLogger(__name__)

GAPS_DIRECTORY = "_lakewriter/gaps"
_SUFFIX = ".ndjson"

# A file is written anew when it has more lines than twice its entries and these.
SPARE_LINES = 10_000

# Reading races with take-overs; each lap means that one of them was finished.
READ_LAPS_MAX = 100

ORPHANED = "its recorder ended before it was healed"


class Changes:
    """What is to be written: made by `Ledger.take_changes`, used up by `Ledger.write`.

    Args:
        before: what the file says of the series that changed.
        after: what it is to say of them; of all series if `whole`.
        whole: whether the file is written anew.
    """

    def __init__(self, before: State, after: State, *, whole: bool) -> None:
        self.before = before
        self.after = after
        self.whole = whole
        self.done = False


class Ledger:
    """The gaps of one living recorder. All but `write` is for one thread and never waits.

    Args:
        path: its own file.
        state: what the file says.
        lines: how many lines it has.
    """

    def __init__(self, path: Path, state: State, lines: int) -> None:
        self.path = path
        self._entries: dict[Series, Entries] = dict(state)
        self._written: dict[Series, Entries] = dict(state)
        self._touched: set[Series] = set()
        self._taken: Changes | None = None
        self._candles: Counter[Reason] = Counter()
        self._size = 0
        for series, entries in state.items():
            self._count(series, entries, 1)
        self._lines = lines
        self._suspect = False
        self._fd: int | None = _open_to_append(path)

    def mark(
        self, series: Series, start_ms: int, stop_ms: int, reason: Reason, now_ms: int, error: str = ""
    ) -> None:
        """Say why the candles of a range are absent, whatever was said before.

        What was known of any of them keeps the time of its detection.

        Args:
            now_ms: the exchange's time: of the detection, and of the settling
                unless the reason is "pending".
        """
        if start_ms >= stop_ms:
            return
        entries = self._entries.get(series, ())
        first, last = overlapping(entries, start_ms, stop_ms)
        met = entries[first:last]
        if len(met) == 1 and says(met[0], start_ms, stop_ms, reason, error):
            return
        detected_ms = min((now_ms, *(entry.detected_ms for entry in met)))
        resolved_ms = None if reason == "pending" else now_ms
        new = Entry(start_ms, stop_ms, reason, detected_ms, resolved_ms, error)
        self._replace(series, first, last, sorted((*remains(met, start_ms, stop_ms), new)))

    def clear(self, series: Series, start_ms: int, stop_ms: int) -> None:
        """Say that the candles of a range are there."""
        entries = self._entries.get(series)
        if entries is None or start_ms >= stop_ms:
            return
        first, last = overlapping(entries, start_ms, stop_ms)
        if first < last:
            self._replace(series, first, last, remains(entries[first:last], start_ms, stop_ms))

    def settled(self, series: Series) -> list[Range]:
        """Return what nobody has to ask for again: ranges whose reason is final."""
        return union(entry[:2] for entry in self._entries.get(series, ()) if entry.reason in FINAL)

    def gaps(self, series: Series | None = None) -> list[Gap]:
        """Return the gaps of a series, or of all, by series and time."""
        wanted = sorted(self._entries) if series is None else [series]
        return [gap_of(each, entry) for each in wanted for entry in self._entries.get(each, ())]

    def counts(self) -> Counter[Reason]:
        """Return how many candles are absent for each reason."""
        return +self._candles

    @property
    def pending_candles(self) -> int:
        """How many candles are yet to be healed."""
        return self._candles["pending"]

    def take_changes(self) -> Changes | None:
        """Return what the file does not say yet; None if it says everything.

        Give it to `write` before taking again. What was taken and could not be
        written is in what is taken next.
        """
        self._settle_taken()
        whole = self._suspect or self._lines > 2 * self._size + SPARE_LINES
        if whole:
            changes = Changes({}, dict(self._entries), whole=True)
        else:
            after = {series: self._entries.get(series, ()) for series in self._touched}
            before = {series: self._written.get(series, ()) for series in after}
            differ = {series: entries for series, entries in after.items() if entries != before[series]}
            changes = Changes(before, differ, whole=False)
        self._touched = set()
        if not whole and not changes.after:
            return None
        self._taken = changes
        return changes

    def write(self, changes: Changes) -> None:
        """Make the changes durable. For a thread; one at a time.

        Raises:
            OSError, LakeError: if the disk did not take them. Nothing is lost:
                the next changes are the whole state.

        Crash: some of the lines may be there, the last of them torn; readers
        pass over a torn line. Of a file written anew the old one or the new one
        is there, whole.
        """
        try:
            if changes.whole:
                self._write_whole(changes.after)
            else:
                self._append(changes)
        except BaseException:
            # Nothing may be appended behind what may be torn, and what failed to
            # sync once is not to be trusted again.
            self._suspect = True
            raise
        changes.done = True

    def close(self) -> None:
        """Give the ledger up; its file goes if it has nothing to say.

        Crash: a file whose recorder is dead is taken over by the next one.
        """
        if self._fd is not None:
            fd, self._fd = self._fd, None
            with contextlib.suppress(OSError):
                os.close(fd)
            if not self._entries:
                with contextlib.suppress(OSError):  # the next recorder finds nothing in it
                    self.path.unlink(missing_ok=True)

    def _replace(self, series: Series, first: int, last: int, new: Iterable[Entry]) -> None:
        """Put new entries in the place of some, joined with their neighbours where they agree."""
        entries = self._entries.get(series, ())
        low, high = max(first - 1, 0), last + 1
        old = entries[low:high]
        after = joined((*entries[low:first], *new, *entries[last:high]))
        self._count(series, old, -1)
        self._count(series, after, 1)
        self._touched.add(series)
        rest = (*entries[:low], *after, *entries[high:])
        if rest:
            self._entries[series] = rest
        else:
            del self._entries[series]

    def _count(self, series: Series, entries: Iterable[Entry], sign: int) -> None:
        for entry in entries:
            self._size += sign
            self._candles[entry.reason] += sign * candles_between(series, entry.start_ms, entry.stop_ms)

    def _settle_taken(self) -> None:
        taken, self._taken = self._taken, None
        if taken is None:
            return
        if not taken.done:
            self._touched.update(taken.after)
        elif taken.whole:
            self._written = dict(taken.after)
        else:
            for series, entries in taken.after.items():
                if entries:
                    self._written[series] = entries
                else:
                    self._written.pop(series, None)

    def _write_whole(self, state: State) -> None:
        lines = lines_of(state)
        write_durably(self.path, b"".join(lines))
        fd, self._fd = self._fd, _open_to_append(self.path)
        if fd is not None:
            os.close(fd)
        self._lines = len(lines)
        self._suspect = False

    def _append(self, changes: Changes) -> None:
        assert self._fd is not None
        lines = [
            line
            for series, entries in changes.after.items()
            for line in difference(series, changes.before[series], entries)
        ]
        view = memoryview(b"".join(lines))
        while view:
            view = view[os.write(self._fd, view) :]
        os.fdatasync(self._fd)
        if os.fstat(self._fd).st_nlink == 0:
            raise LakeError(f"gaps: {self.path}: somebody deleted it; it is written anew")
        self._lines += len(lines)


class Told(NamedTuple):
    """A gap, and who tells of it.

    Args:
        gap: which.
        alive: whether the recorder whose ledger has it lives, and so may heal it.
    """

    gap: Gap
    alive: bool

    @property
    def accounts(self) -> bool:
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
        LakeError: if a newer version wrote one of those.

    Crash: the entries are in the dead ledger, in ours, or in both. Ours is a
    dead one's then too, and taking both over changes nothing.
    """
    directory = root / GAPS_DIRECTORY
    make_directories(root, directory)
    path = directory / f"{recorder}{_SUFFIX}"
    with _alone(directory):
        # Listed before the living are counted: who comes in between has no file in the list.
        names = _names(directory)
        alive = living(root) | {recorder}
        states, ended = [], []
        for dead in _ledgers(directory, names):
            if _recorder(dead.name) in alive:
                continue
            try:
                states.append(_orphaned(read(dead)))
            except OSError as error:
                log.error("gaps: %s cannot be taken over: %s", dead, error.strerror)
            else:
                ended.append(dead)
        if path.exists():
            states.append(read(path))
        state = resolved(states)
        lines = lines_of(state)
        write_durably(path, b"".join(lines))
        left = [directory / name for name in names if is_temporary(name) and _recorder(name) not in alive]
        for leftover in (*ended, *left):
            leftover.unlink(missing_ok=True)
        sync_directory(directory)
    return Ledger(path, state, len(lines))


def read_told(root: Path) -> list[Told]:
    """Return what all ledgers tell, by series and time, each candle once.

    Where two of them tell of one candle, a final reason counts more than
    "unhealable", that more than "pending", and a living recorder's "pending"
    more than a dead one's. Safe while recorders write, come and go; lines that
    are torn or damaged are passed over.
    """
    directory = root / GAPS_DIRECTORY
    for _ in range(READ_LAPS_MAX):
        try:
            paths = _ledgers(directory, _names(directory))
        except FileNotFoundError:
            return []
        alive = living(root)
        try:
            states = {path: read(path) for path in paths}
        except FileNotFoundError:
            # It was taken over; its entries are in a file by now that our list may lack.
            continue
        return _told(
            [state for path, state in states.items() if _recorder(path.name) in alive],
            [state for path, state in states.items() if _recorder(path.name) not in alive],
        )
    raise LakeError(f"gaps: {directory} does not hold still")


def read_gaps(root: Path) -> list[Gap]:
    """Return the gaps of all ledgers, by series and time, each candle once. See `read_told`."""
    return [told.gap for told in read_told(root)]


def candles_between(series: Series, start_ms: int, stop_ms: int) -> int:
    """Return how many candles begin in a range that starts with one."""
    return series.grid.anchored(start_ms).count(start_ms, stop_ms)


def _told(of_living: list[State], of_dead: list[State]) -> list[Told]:
    unhealed = [_only(state, pending=True) for state in of_dead]
    known = resolved([*of_living, *(_only(state, pending=False) for state in of_dead)])
    told = [Told(gap_of(series, entry), True) for series, entries in known.items() for entry in entries]
    for series, entries in resolved(unhealed).items():
        for entry in known.get(series, ()):
            entries = without(entries, entry.start_ms, entry.stop_ms)
        told += [Told(gap_of(series, entry), False) for entry in entries]
    return sorted(told, key=lambda each: (each.gap.series, each.gap.start_ms))


def _only(state: State, *, pending: bool) -> State:
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


def _recorder(name: str) -> str:
    """Return whose ledger a file is, or is to be once it has its name."""
    return name.removeprefix(".").rpartition(_SUFFIX)[0]


@contextlib.contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Let one recorder at a time take ledgers over."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _open_to_append(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
