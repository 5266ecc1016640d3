"""The ledger: the gaps of one living recorder, in memory and in its file.

Each change is in memory at once. The event loop takes the changes since the last
write (`Ledger.take_changes`), and a thread writes them (`Ledger.write`); `save` does
both. A gap that opens and closes between two writes adds no line. A file that is much
longer than its state is rewritten. `log` encodes the lines; `ledgers` chooses the
file.
"""

import asyncio
import contextlib
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from lakewriter.errors import LakeError
from lakewriter.gap import FINAL, Gap, Reason
from lakewriter.lake.durable import make_directories, write_durably
from lakewriter.lake.gaps.intervals import (
    Entries,
    Entry,
    State,
    already_records,
    coalesced,
    gap_of,
    outside,
    overlapping,
)
from lakewriter.lake.gaps.log import difference_lines, state_lines
from lakewriter.ranges import Range, union
from lakewriter.regular_file import names_open_file, open_regular, write_all
from lakewriter.series import Series

# A file is rewritten when its lines exceed twice the number of entries by more than this.
SPARE_LINES = 10_000

# The maximum length of a gap's error, because lines have a limit. Longer errors are cut off.
ERROR_CHARS_MAX = 1_000


# The depth of a ledger's file below the lake's root.
_DEPTH = 3


class Changes:
    """Unwritten changes: `Ledger.take_changes` returns them, and `Ledger.write` writes them.

    Args:
        before: the changed series' entries in the file.
        after: the changed series' new entries, or the entries of all series if `whole`.
        whole: whether the write replaces the file.
    """

    def __init__(self, before: State, after: State, *, whole: bool) -> None:
        self.before = before
        self.after = after
        self.whole = whole
        self.done = False


class Ledger:
    """The gaps of one living recorder.

    One thread calls all methods except `write`. Only `write` blocks.

    Args:
        path: the ledger's file.
        state: the content of the file.
        lines: number of lines in the file.
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
        """Set the reason why the candles of a range are absent.

        If the range overlaps gaps, their earliest detection is kept.

        Args:
            now_ms: the exchange's time. It is the time of detection. It is also the time
                of resolution, unless the reason is "pending".
        """
        if start_ms >= stop_ms:
            return
        error = error[:ERROR_CHARS_MAX]
        entries = self._entries.get(series, ())
        first, last = overlapping(entries, start_ms, stop_ms)
        met = entries[first:last]
        if len(met) == 1 and already_records(met[0], start_ms, stop_ms, reason, error):
            return
        detected_ms = min((now_ms, *(entry.detected_ms for entry in met)))
        resolved_ms = None if reason == "pending" else now_ms
        new = Entry(start_ms, stop_ms, reason, detected_ms, resolved_ms, error)
        self._replace(series, first, last, sorted((*outside(met, start_ms, stop_ms), new)))

    def clear(self, series: Series, start_ms: int, stop_ms: int) -> None:
        """Remove the gaps of a range, because its candles are in the lake."""
        entries = self._entries.get(series)
        if entries is None or start_ms >= stop_ms:
            return
        first, last = overlapping(entries, start_ms, stop_ms)
        if first < last:
            self._replace(series, first, last, outside(entries[first:last], start_ms, stop_ms))

    def final_ranges(self, series: Series) -> list[Range]:
        """Return the ranges with a final reason. They are not requested again."""
        return union(entry[:2] for entry in self._entries.get(series, ()) if entry.reason in FINAL)

    def gaps(self, series: Series | None = None) -> list[Gap]:
        """Return the gaps of a series, or of all series, by series and time."""
        wanted = sorted(self._entries) if series is None else [series]
        return [gap_of(each, entry) for each in wanted for entry in self._entries.get(each, ())]

    def counts(self) -> Counter[Reason]:
        """Return the number of absent candles for each reason."""
        return +self._candles

    def take_changes(self) -> Changes | None:
        """Return the changes that the file lacks, or None without a change.

        Pass them to `write` before the next call. If `write` fails, the next call
        returns them again.
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
        """Write the changes durably. One thread at a time calls this.

        Raises:
            OSError, LakeError: if the disk refuses. No gap is lost: the next changes
                are the whole state.

        Crash: some of the lines may be there, the last of them torn; readers
        leave out a torn line. If the file is rewritten, the old one or the new one
        is there, whole.
        """
        try:
            if changes.whole:
                self._write_whole(changes.after)
            else:
                self._append(changes)
        except BaseException:
            # The last line may be torn, and a sync that failed may have lost lines. So the
            # next write replaces the file.
            self._suspect = True
            raise
        changes.done = True

    def close(self) -> None:
        """Close the file, and remove it if the ledger has no gaps.

        Crash: the next recorder takes over the file of a dead one.
        """
        if self._fd is not None:
            fd, self._fd = self._fd, None
            with contextlib.suppress(OSError):
                os.close(fd)
            if not self._entries:
                with contextlib.suppress(OSError):  # the file has no gaps for the next recorder
                    self.path.unlink(missing_ok=True)

    def _replace(self, series: Series, first: int, last: int, new: Iterable[Entry]) -> None:
        """Replace a slice of a series' entries, and merge the new ones with their neighbours."""
        entries = self._entries.get(series, ())
        low, high = max(first - 1, 0), last + 1
        old = entries[low:high]
        after = coalesced((*entries[low:first], *new, *entries[last:high]))
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
            self._candles[entry.reason] += sign * _candles_between(series, entry.start_ms, entry.stop_ms)

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
        lines = state_lines(state)
        make_directories(self.path.parents[_DEPTH - 1], self.path.parent)
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
            for line in difference_lines(series, changes.before[series], entries)
        ]
        write_all(self._fd, b"".join(lines))
        os.fdatasync(self._fd)
        if not names_open_file(self.path, self._fd):
            raise LakeError(f"gaps: {self.path}: it was deleted or moved; the next write creates it again")
        self._lines += len(lines)


async def save(ledger: Ledger) -> None:
    """Write a ledger's changes. A cancellation waits for the write.

    Only one call may run at a time.

    Raises:
        LakeError, OSError: if the disk refuses.
    """
    changes = ledger.take_changes()
    if changes is None:
        return
    writing = asyncio.create_task(asyncio.to_thread(ledger.write, changes))
    try:
        await asyncio.shield(writing)
    except asyncio.CancelledError:
        # A thread cannot be stopped, but it must end before the next save or close.
        await asyncio.gather(writing, return_exceptions=True)
        raise


def _candles_between(series: Series, start_ms: int, stop_ms: int) -> int:
    """Return the number of candles that begin in a range whose first candle begins at `start_ms`."""
    return series.grid.anchored(start_ms).count(start_ms, stop_ms)


def _open_to_append(path: Path) -> int:
    return open_regular(path, os.O_WRONLY | os.O_APPEND)
