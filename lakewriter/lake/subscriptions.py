"""Subscribed periods: one small file for all recorders of the lake.

    _lakewriter/subscriptions/periods.ndjson

One period a line: market, symbol, interval, recorder, start_ms, seen_ms, and
stop_ms once the series was left. The file is some 200 bytes a period, and
replaced whole under a lock. Which periods follow from which is
`subscribed_period`'s.
"""

import logging
import os
import stat
from collections.abc import Iterable
from pathlib import Path

import msgspec

from lakewriter.errors import LakeError
from lakewriter.lake.journal import living
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.storage import make_directories, write_durably
from lakewriter.partition import is_series
from lakewriter.series import Series
from lakewriter.subscribed_period import FOREVER_MS, Confirmation, SubscribedPeriod, closed, confirmed

log = logging.getLogger(__name__)

SUBSCRIPTIONS_DIRECTORY = "_lakewriter/subscriptions"
PERIODS_FILE = f"{SUBSCRIPTIONS_DIRECTORY}/periods.ndjson"
DAMAGED_FILE = f"{SUBSCRIPTIONS_DIRECTORY}/periods.bad"

# Some 300,000 periods.
FILE_BYTES_MAX = 64 * 1024 * 1024


class _Row(msgspec.Struct, omit_defaults=True):
    market: str
    symbol: str
    interval: str
    recorder: str
    start_ms: int
    seen_ms: int
    journal: str
    stop_ms: int | None = None


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Row).decode


def confirm(store: LakeStore, confirmation: Confirmation) -> None:
    """Write which series a recorder subscribes to now. Blocks.

    Lines that cannot be understood move to DAMAGED_FILE.

    Raises:
        LakeError: if the file is not a regular one, or too large.
        OSError: if it cannot be written.

    Crash: the old file or the new one is there, whole.
    """
    path = store.root / PERIODS_FILE
    with store.storage.exclusive(SUBSCRIPTIONS_DIRECTORY):
        make_directories(store.root, path.parent)
        periods, damaged = _read(path)
        if damaged:
            log.error("subscriptions: %s: %d lines are not understood, and moved to %s",
                      path, len(damaged), DAMAGED_FILE)  # fmt: skip
            write_durably(store.root / DAMAGED_FILE, b"".join(line + b"\n" for line in damaged))
        after = confirmed(periods, confirmation, living(store.root))
        if damaged or after != periods:
            write_durably(path, b"".join(map(_line, after)))


def end_periods(store: LakeStore, series: Iterable[Series]) -> list[SubscribedPeriod]:
    """Close the open periods of series whose recorders no longer live. Blocks.

    Returns:
        those that were closed.

    Raises:
        LakeError: if a recorder that lives subscribes to one; nothing is closed.
        OSError: if the file cannot be written.

    Crash: the old file or the new one is there, whole.
    """
    path = store.root / PERIODS_FILE
    wanted = set(series)
    with store.storage.exclusive(SUBSCRIPTIONS_DIRECTORY):
        periods, _ = _read(path)
        ended = [period for period in periods if period.is_open and period.series in wanted]
        alive = living(store.root)
        for period in ended:
            if period.journal in alive:
                raise LakeError(
                    f"subscriptions: {period.series} is recorded at this moment, by {period.recorder}",
                    "take it out of the config, then reload the recorder (SIGHUP) or restart it",
                )
        if ended:
            kept = [closed(period) if period in ended else period for period in periods]
            write_durably(path, b"".join(map(_line, kept)))
    return ended


def read_periods(root: Path) -> list[SubscribedPeriod]:
    """Return the periods of all recorders, by series and time.

    Lines that are not understood are left out, with a warning.

    Raises:
        LakeError: if the file is not a regular one, too large, or cannot be read.
    """
    path = root / PERIODS_FILE
    try:
        periods, damaged = _read(path)
    except OSError as error:
        raise LakeError(f"subscriptions: {path}: {error.strerror}") from None
    if damaged:
        log.warning("subscriptions: %s: %d lines are not understood", path, len(damaged))
    return periods


def _read(path: Path) -> tuple[list[SubscribedPeriod], list[bytes]]:
    """Return a file's periods, and the lines that are none; nothing of a file that is not there."""
    try:
        # A pipe without a writer would be waited for.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return [], []
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise LakeError(f"subscriptions: {path} is not a regular file", f"move it away: {path}")
        with os.fdopen(fd, "rb", closefd=False) as file:
            data = file.read(FILE_BYTES_MAX + 1)
    finally:
        os.close(fd)
    if len(data) > FILE_BYTES_MAX:
        raise LakeError(
            f"subscriptions: {path} is larger than {FILE_BYTES_MAX:,} bytes", f"move it away: {path}"
        )
    periods, damaged = [], []
    for line in data.splitlines():
        period = _period(line)
        if period is None:
            damaged.append(line)
        else:
            periods.append(period)
    return periods, damaged


def _period(line: bytes) -> SubscribedPeriod | None:
    """Return what a line says; None if it cannot be."""
    try:
        row = _decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    period = SubscribedPeriod(
        row.market, row.symbol, row.interval, row.start_ms, row.seen_ms, row.stop_ms, row.recorder, row.journal
    )  # fmt: skip
    times = (0, row.start_ms, row.seen_ms if row.stop_ms is None else row.stop_ms, FOREVER_MS - 1)
    in_range = list(times) == sorted(times) and 0 <= row.seen_ms < FOREVER_MS
    return period if in_range and is_series(*period.series) else None


def _line(period: SubscribedPeriod) -> bytes:
    row = _Row(
        *period.series, period.recorder, period.start_ms, period.seen_ms, period.journal, period.stop_ms
    )
    return _encode(row) + b"\n"
