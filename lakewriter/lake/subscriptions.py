"""Subscribed periods: one small file for all recorders of the lake.

    _lakewriter/subscriptions/periods.ndjson

Each line is a period: market, symbol, interval, recorder, start_ms, seen_ms, journal,
owed_ms if the symbol traded, and stop_ms if the series was left. A period takes about
200 bytes. Each write replaces the file under a lock. `subscribed_period` computes the
periods.

In an object store each host has its own file. If a host is gone for good, another host
ends its periods, with a line for each in its own file:

    _lakewriter/subscriptions/ended.ndjson

Such a line has no effect once the host confirms the period again.
"""

import contextlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec

from lakewriter.errors import LakeError
from lakewriter.lake.durable import make_directories, write_durably
from lakewriter.lake.journal_directories import living_recorders
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.row_file import HOST_MARK, RowFile, host_files
from lakewriter.lake.warn_once import warn_once
from lakewriter.partition import is_series
from lakewriter.series import Series
from lakewriter.subscribed_period import (
    FOREVER_MS,
    Confirmation,
    SubscribedPeriod,
    closed_period,
    with_confirmation,
    with_periods,
)

SUBSCRIPTIONS_DIRECTORY = "_lakewriter/subscriptions"
PERIODS_FILE = f"{SUBSCRIPTIONS_DIRECTORY}/periods.ndjson"

ENDED_FILE = f"{SUBSCRIPTIONS_DIRECTORY}/ended.ndjson"

# Enough for about 300,000 periods.
FILE_BYTES_MAX = 64 * 1024 * 1024


class _SubscriptionRow(msgspec.Struct, omit_defaults=True):
    market: str
    symbol: str
    interval: str
    recorder: str
    start_ms: int
    seen_ms: int
    journal: str
    stop_ms: int | None = None
    owed_ms: int | None = None


class _EndedRow(msgspec.Struct):
    """The end of a period in another host's file, which was last confirmed at `seen_ms`."""

    host: str
    market: str
    symbol: str
    interval: str
    start_ms: int
    seen_ms: int
    stop_ms: int


class HostPeriod(NamedTuple):
    """A period, and the host in whose file it is: "" in a lake on a disk."""

    host: str
    period: SubscribedPeriod


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_SubscriptionRow).decode


def confirm_subscriptions(
    store: LakeStore, confirmation: Confirmation, dead: frozenset[str] = frozenset()
) -> list[Series]:
    """Write a recorder's present subscriptions; return the series whose last subscription ended.

    The call blocks. A file with damaged lines becomes a `.bad` file, and the new file
    has the other lines.

    Args:
        dead: the result of `dead_journals` at the recorder's start.

    Raises:
        OSError: if the file cannot be read or written.

    Crash: the old file or the new one is there, whole; or only the old one under its
    other name.
    """
    periods, after = _replace_periods(
        store, lambda before, living: with_confirmation(before, confirmation, living - dead)
    )
    still = {period.series for period in after if period.is_open}
    return sorted({period.series for period in periods if period.is_open} - still)


def dead_journals(root: Path) -> frozenset[str]:
    """Return the journals of open periods whose recorders no longer live.

    A recorder calls this before it replays the journals of dead recorders. The replay
    locks these journals, and a locked journal counts as living.
    """
    return frozenset(period.journal for period in read_periods(root) if period.is_open) - living_recorders(
        root
    )


def end_periods(store: LakeStore, series: Iterable[Series]) -> list[SubscribedPeriod]:
    """Close the open periods of series whose recorders no longer live. The call blocks.

    Returns:
        the closed periods.

    Raises:
        LakeError: if a living recorder subscribes to one of the series. No period is
            closed then.
        OSError: if the file cannot be read or written.

    Crash: the old file or the new one is there, whole.
    """
    path = store.state_dir / PERIODS_FILE
    wanted = set(series)
    with store.state.exclusive(SUBSCRIPTIONS_DIRECTORY):
        make_directories(store.state_dir, path.parent)
        periods = _FILE.read_to_replace(path)
        ended = {period for period in periods if period.is_open and period.series in wanted}
        alive = living_recorders(store.state_dir)
        for period in periods:
            if period in ended and period.journal in alive:
                raise LakeError(
                    f"subscriptions: {period.series} is recorded at this moment, by {period.recorder}",
                    "take it out of the config, then reload the recorder (SIGHUP) or restart it",
                )
        after = [closed_period(period) if period in ended else period for period in periods]
        if ended:
            write_durably(path, b"".join(map(_line, after)))
    return [new for old, new in zip(periods, after, strict=True) if old in ended]


def unknown_periods(
    store: LakeStore, known: Iterable[SubscribedPeriod], periods: Iterable[SubscribedPeriod]
) -> list[SubscribedPeriod]:
    """Return the periods of another lake that `add_periods` would add, or put in the place of older ones."""
    before = with_periods((), known, frozenset())  # several hosts may have copied one period
    after = with_periods(before, periods, living_recorders(store.state_dir))
    return sorted(set(after) - set(before))


def add_periods(store: LakeStore, periods: Iterable[SubscribedPeriod]) -> None:
    """Add the subscribed periods of another lake. The call blocks.

    Raises:
        OSError: if the file cannot be read or written.

    Crash: the old file or the new one is there, whole; or only the old one under its
    other name.
    """
    _replace_periods(store, lambda before, living: with_periods(before, periods, living))


def _replace_periods(
    store: LakeStore,
    change: Callable[[list[SubscribedPeriod], frozenset[str]], list[SubscribedPeriod]],
) -> tuple[list[SubscribedPeriod], list[SubscribedPeriod]]:
    """Replace the file of this host's periods if they change; return the old and the new ones.

    Args:
        change: returns the new periods from the old ones and the journals of living recorders.
    """
    path = store.state_dir / PERIODS_FILE
    with store.state.exclusive(SUBSCRIPTIONS_DIRECTORY):
        make_directories(store.state_dir, path.parent)
        before = _FILE.read_to_replace(path)
        after = change(before, living_recorders(store.state_dir))
        if after != before or not path.exists():
            write_durably(path, b"".join(map(_line, after)))
    return before, after


def end_periods_elsewhere(store: LakeStore, ended: Iterable[HostPeriod]) -> list[SubscribedPeriod]:
    """Close open periods of other hosts that are gone for good. The call blocks.

    Returns:
        the closed periods.

    Raises:
        OSError: if the file cannot be read or written.

    Crash: the old file or the new one is there, whole.
    """
    path = store.state_dir / ENDED_FILE
    closed = [HostPeriod(host, closed_period(period)) for host, period in ended]
    with store.state.exclusive(SUBSCRIPTIONS_DIRECTORY):
        make_directories(store.state_dir, path.parent)
        rows = {
            (row.host, row.market, row.symbol, row.interval, row.start_ms): row for row in _read_ended(path)
        }
        for host, period in closed:
            stop_ms = period.stop_ms or period.seen_ms
            row = _EndedRow(host, *period.series, period.start_ms, period.seen_ms, stop_ms)
            rows[(host, *period.series, period.start_ms)] = row
        write_durably(path, b"".join(_encode(row) + b"\n" for row in rows.values()))
    return [period for _, period in closed]


def _read_ended(path: Path) -> list[_EndedRow]:
    try:
        return _ENDED_FILE.read_to_replace(path)
    except FileNotFoundError:
        return []


def read_periods(root: Path, *, whole: bool = False) -> list[SubscribedPeriod]:
    """Return the periods of all recorders, by series and time.

    Files and lines that cannot be read are logged and left out.

    Args:
        whole: whether a file that cannot be read is an error.

    Raises:
        LakeError: if a file cannot be read, and `whole` is true.
    """
    return sorted(
        (each.period for each in read_host_periods(root, whole=whole)),
        key=lambda each: (each.series, each.start_ms),
    )


def read_host_periods(root: Path, *, whole: bool = False) -> list[HostPeriod]:
    """Return the periods of all recorders with their hosts, as `read_periods` does."""
    found, path = [], root / PERIODS_FILE
    try:
        ended = {
            (row.host, Series(row.market, row.symbol, row.interval), row.start_ms): row
            for row in _ENDED_FILE.read_all_hosts(root / ENDED_FILE)
        }
        for path in host_files(root / PERIODS_FILE):
            host = path.stem.partition(HOST_MARK)[2]
            with contextlib.suppress(FileNotFoundError):
                found += [
                    HostPeriod(host, _with_end(period, ended.get((host, period.series, period.start_ms))))
                    for period in _FILE.read(path)
                ]
    except OSError as error:
        if whole:
            raise LakeError(f"subscriptions: {path}: {error.strerror}") from error
        warn_once(f"subscriptions: {path}: {error.strerror}; its periods are left out")
    return found


def _with_end(period: SubscribedPeriod, ended: _EndedRow | None) -> SubscribedPeriod:
    """Return a period, closed if another host ended it after its last confirmation."""
    if ended is None or not period.is_open or period.seen_ms > ended.seen_ms:
        return period
    return period._replace(stop_ms=max(period.start_ms, ended.stop_ms))


def _period(line: bytes) -> SubscribedPeriod | None:
    """Return the period of a line, or None if its series or a time is impossible."""
    row = _decode(line)
    period = SubscribedPeriod(
        row.market, row.symbol, row.interval, row.start_ms, row.seen_ms, row.stop_ms, row.recorder,
        row.journal, row.owed_ms,
    )  # fmt: skip
    times = (0, row.start_ms, row.seen_ms if row.stop_ms is None else row.stop_ms, FOREVER_MS - 1)
    in_order = list(times) == sorted(times)
    in_range = all(0 <= each < FOREVER_MS for each in (row.seen_ms, row.owed_ms or 0))
    return period if in_order and in_range and is_series(*period.series) else None


def _line(period: SubscribedPeriod) -> bytes:
    row = _SubscriptionRow(
        *period.series,
        period.recorder,
        period.start_ms,
        period.seen_ms,
        period.journal,
        period.stop_ms,
        period.owed_ms,
    )
    return _encode(row) + b"\n"


def _ended(line: bytes) -> _EndedRow | None:
    """Return the row of a line, or None if its series or a time is impossible."""
    row = msgspec.json.decode(line, type=_EndedRow)
    in_order = 0 <= row.start_ms <= row.stop_ms < FOREVER_MS and 0 <= row.seen_ms < FOREVER_MS
    return row if in_order and is_series(row.market, row.symbol, row.interval) else None


_FILE = RowFile("subscriptions", FILE_BYTES_MAX, _period)
_ENDED_FILE = RowFile("subscriptions", FILE_BYTES_MAX, _ended)
