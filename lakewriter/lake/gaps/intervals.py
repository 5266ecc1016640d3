"""A series' gaps as entries: sorted by time, disjoint, each with its reason. No I/O.

Entries are immutable tuples. So one thread may read them while another thread replaces
them. A state has the entries of each series.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping
from operator import itemgetter
from typing import NamedTuple

from lakewriter.gap import FINAL, Gap, Reason
from lakewriter.series import Series


class Entry(NamedTuple):
    """A gap without its series; the fields are those of `Gap`."""

    start_ms: int
    stop_ms: int
    reason: Reason
    detected_ms: int
    resolved_ms: int | None
    error: str


Entries = tuple[Entry, ...]
State = Mapping[Series, Entries]

_start = itemgetter(0)
_stop = itemgetter(1)


def gap_of(series: Series, entry: Entry) -> Gap:
    """Return an entry of a series as a gap."""
    start_ms, stop_ms, reason, detected_ms, resolved_ms, error = entry
    return Gap(*series, start_ms, stop_ms, reason, detected_ms, resolved_ms, error)


def merged_states(states: Iterable[State]) -> dict[Series, Entries]:
    """Merge the states of several ledgers. Where reasons differ, the more final one is kept."""
    lists: dict[Series, list[Entries]] = {}
    for state in states:
        for series, entries in state.items():
            if entries:
                lists.setdefault(series, []).append(entries)
    result = {}
    for series, of_states in lists.items():
        entries = of_states[0]
        if len(of_states) > 1:
            entries = ()
            for entry in sorted((entry for each in of_states for entry in each), key=_weight):
                entries = with_entry(entries, entry)
        result[series] = coalesced(entries)
    return result


def _weight(entry: Entry) -> tuple[int, int, Entry]:
    strength = 2 if entry.reason in FINAL else 1 if entry.reason == "unhealable" else 0
    # Among equal reasons the earliest detection is kept. The entry itself makes the order deterministic.
    return (strength, -entry.detected_ms, entry._replace(resolved_ms=entry.resolved_ms or 0))


def overlapping(entries: Entries, start_ms: int, stop_ms: int) -> tuple[int, int]:
    """Return the start and stop index of the entries that overlap a range."""
    return bisect_right(entries, start_ms, key=_stop), bisect_left(entries, stop_ms, key=_start)


def already_records(entry: Entry, start_ms: int, stop_ms: int, reason: Reason, error: str) -> bool:
    """Return whether an entry covers a range with the same reason and error."""
    return (
        entry.start_ms <= start_ms
        and stop_ms <= entry.stop_ms
        and entry.reason == reason
        and entry.error == error
    )


def outside(met: Entries, start_ms: int, stop_ms: int) -> list[Entry]:
    """Return the parts of entries that lie outside of a range.

    Args:
        met: the entries that overlap the range.
    """
    left = [entry._replace(stop_ms=start_ms) for entry in met[:1] if entry.start_ms < start_ms]
    return left + [entry._replace(start_ms=stop_ms) for entry in met[-1:] if entry.stop_ms > stop_ms]


def without(entries: Entries, start_ms: int, stop_ms: int) -> Entries:
    """Return the entries without the parts in a range."""
    first, last = overlapping(entries, start_ms, stop_ms)
    if first >= last or start_ms >= stop_ms:
        return entries
    return (*entries[:first], *outside(entries[first:last], start_ms, stop_ms), *entries[last:])


def with_entry(entries: Entries, entry: Entry) -> Entries:
    """Return the entries with a new one, which replaces the parts that it overlaps."""
    if not entries or entries[-1].stop_ms <= entry.start_ms:
        return (*entries, entry)
    entries = without(entries, entry.start_ms, entry.stop_ms)
    at = bisect_left(entries, entry.start_ms, key=_start)
    return (*entries[:at], entry, *entries[at:])


def coalesced(entries: Iterable[Entry]) -> Entries:
    """Return sorted entries. Adjacent entries with the same reason and error are merged."""
    result: list[Entry] = []
    for entry in entries:
        last = result[-1] if result else None
        if last and (last.stop_ms, last.reason, last.error) == (entry.start_ms, entry.reason, entry.error):
            settled = [each for each in (last.resolved_ms, entry.resolved_ms) if each is not None]
            result[-1] = last._replace(
                stop_ms=entry.stop_ms,
                detected_ms=min(last.detected_ms, entry.detected_ms),
                resolved_ms=max(settled, default=None),
            )
        else:
            result.append(entry)
    return tuple(result)
