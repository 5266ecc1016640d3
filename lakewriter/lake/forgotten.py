"""The record of forgotten candles: one small file, for people and for `coverage`.

    _lakewriter/forgotten/log.ndjson

One JSON object a line: a series, which of its candles went, who removed them,
when and why. A line is written before the first candle goes, and once more
when the last one is gone; a line without `finished_ms` is of a command that is
at work or was killed. Runs of one cron line that give the same reason are one
line. The file is replaced whole under a lock.

A forgotten range says why candles are absent, never that they are: they may be
there again, from a backfill or by healing.
"""

import logging
import secrets
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import msgspec

from lakewriter.errors import LakeError
from lakewriter.gap import Gap
from lakewriter.lake.gaps.ledgers import ReportedGap
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.root import STATE_DIRECTORY
from lakewriter.lake.storage import make_directories, write_durably
from lakewriter.partition import is_series
from lakewriter.ranges import Range, minus, union
from lakewriter.regular_file import read_regular
from lakewriter.series import Series

log = logging.getLogger(__name__)

FORGOTTEN_DIRECTORY = f"{STATE_DIRECTORY}/forgotten"
FORGOTTEN_FILE = f"{FORGOTTEN_DIRECTORY}/log.ndjson"

# Some 100,000 lines.
FILE_BYTES_MAX = 64 * 1024 * 1024

# So many ranges of one line are kept apart; of more, the nearest are joined.
RANGES_MAX = 10_000

# As much of a name or a reason is kept.
TEXT_CHARS_MAX = 200

# The year 9999 ends here: no later time becomes a date.
_TIME_MS_MAX = 253_402_300_800_000


class Forgotten(msgspec.Struct, frozen=True, omit_defaults=True):
    """Candles of one series that were removed on purpose.

    Args:
        market, symbol, interval: the series.
        ranges: begin times of what went, as half-open ranges, ascending; at least one.
        candles: how many went; how many were to go, until it is finished.
        file_bytes: by how much the partitions' files shrank.
        by: who removed them, and on which host.
        reason: in the words of whoever did.
        sources: only candles of these sources; () for any.
        started_ms: when the first of them went, by the host's clock.
        finished_ms: when the last of them went; None for a command that did not end.
        runs: of how many commands this is the sum.
        id: which command it is, until it is finished.
    """

    market: str
    symbol: str
    interval: str
    ranges: tuple[Range, ...]
    candles: int
    file_bytes: int
    by: str
    reason: str
    sources: tuple[str, ...]
    started_ms: int
    finished_ms: int | None = None
    runs: int = 1
    id: str = ""

    @property
    def series(self) -> Series:
        """Whose candles they were."""
        return Series(self.market, self.symbol, self.interval)


class ForgetPurpose(NamedTuple):
    """Who removes candles, and why.

    Args:
        by: a user and a host.
        reason: in the user's words; "" for none.
        sources: only candles of these sources; () for any.
        now_ms: the time, by the host's clock.
    """

    by: str
    reason: str
    sources: tuple[str, ...]
    now_ms: int


class Removed(NamedTuple):
    """What went of one series, or is to go: ranges of begin times, candles, bytes of files."""

    ranges: list[Range]
    candles: int
    file_bytes: int


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Forgotten).decode


def record_start(store: LakeStore, planned: dict[Series, Removed], purpose: ForgetPurpose) -> str:
    """Write what a command is about to remove; return the id to finish it by.

    Raises:
        LakeError: if the file cannot be read.
        OSError: if it cannot be written.

    Crash: the old file or the new one is there, whole.
    """
    command = secrets.token_hex(8)
    lines = [_forgotten(series, went, purpose, command) for series, went in planned.items()]
    with store.storage.exclusive(FORGOTTEN_DIRECTORY):
        known, strange = _read(store.state_dir / FORGOTTEN_FILE)
        _write(store.state_dir, [*known, *lines], strange)
    return command


def record_finish(
    store: LakeStore, command: str, went: dict[Series, Removed], purpose: ForgetPurpose, finished_ms: int
) -> None:
    """Write what a command removed in the place of what it was about to.

    Args:
        command: the id from `record_start`.
        finished_ms: the time, by the host's clock.

    Raises:
        LakeError, OSError: as `record_start`.

    Crash: the old file or the new one is there, whole.
    """
    done = [
        msgspec.structs.replace(_forgotten(series, each, purpose, ""), finished_ms=finished_ms)
        for series, each in went.items()
        if each.candles
    ]
    with store.storage.exclusive(FORGOTTEN_DIRECTORY):
        known, strange = _read(store.state_dir / FORGOTTEN_FILE)
        others = [line for line in known if line.id != command]
        _write(store.state_dir, _without_repeats([*others, *done]), strange)


def read_forgotten(root: Path) -> list[Forgotten]:
    """Return what was forgotten, by series and time.

    Lines that are not understood are left out, with a warning.

    Raises:
        LakeError: if the file cannot be read.
    """
    known, strange = _read(root / FORGOTTEN_FILE)
    if strange:
        log.warning("forget: %s: %d lines are not understood", root / FORGOTTEN_FILE, len(strange))
    return sorted(known, key=lambda each: (each.series, each.ranges[0], each.started_ms))


def with_forgotten(told: list[ReportedGap], forgotten: Iterable[Forgotten]) -> list[ReportedGap]:
    """Return what ledgers tell of one series and what was forgotten of it, by time, each candle once.

    That the exchange has no such candle, or that it is being healed, counts more
    than that it was forgotten; that it could not be had counts less.
    """
    strong = [each for each in told if each.explains_absence and each.gap.reason != "unhealable"]
    known = union((each.gap.start_ms, each.gap.stop_ms) for each in strong)
    found = list(strong)
    for line in forgotten:
        gap = _gap_of(line)
        found += _pieces(ReportedGap(gap, alive=False), minus(list(line.ranges), known))
        known = union([*known, *line.ranges])
    for each in told:
        if each not in strong:
            found += _pieces(each, minus([(each.gap.start_ms, each.gap.stop_ms)], known))
    return sorted(found, key=lambda each: each.gap.start_ms)


def _pieces(told: ReportedGap, ranges: list[Range]) -> list[ReportedGap]:
    return [
        told._replace(gap=msgspec.structs.replace(told.gap, start_ms=start_ms, stop_ms=stop_ms))
        for start_ms, stop_ms in ranges
    ]


def _gap_of(line: Forgotten) -> Gap:
    why = f"by {line.by}" + (f": {line.reason}" if line.reason else "")
    return Gap(
        *line.series, *line.ranges[0], "forgotten", line.started_ms, line.finished_ms, why[:TEXT_CHARS_MAX]
    )


def limited_ranges(ranges: Iterable[Range]) -> list[Range]:
    """Return ranges as a set of at most RANGES_MAX; of more, those nearest to each other are joined."""
    found = union(ranges)
    if len(found) <= RANGES_MAX:
        return found
    spaces = [(found[at + 1][0] - found[at][1], at) for at in range(len(found) - 1)]
    kept = {at for _, at in sorted(spaces, reverse=True)[: RANGES_MAX - 1]}
    result = [found[0]]
    for at, each in enumerate(found[1:]):
        result[-1:] = [result[-1], each] if at in kept else [(result[-1][0], each[1])]
    return result


def _forgotten(series: Series, went: Removed, purpose: ForgetPurpose, command: str) -> Forgotten:
    return Forgotten(
        *series,
        tuple(went.ranges),
        went.candles,
        went.file_bytes,
        purpose.by[:TEXT_CHARS_MAX],
        purpose.reason[:TEXT_CHARS_MAX],
        purpose.sources,
        purpose.now_ms,
        id=command,
    )


def _without_repeats(lines: Iterable[Forgotten]) -> list[Forgotten]:
    """Return the lines with those in one that differ in time and range alone; unfinished ones stay apart."""
    found: dict[tuple[object, ...], Forgotten] = {}
    for line in lines:
        key = (line.series, line.sources, line.by, line.reason, line.id)
        before = found.get(key)
        found[key] = line if before is None else _sum(before, line)
    return list(found.values())


def _sum(one: Forgotten, other: Forgotten) -> Forgotten:
    finished = [each.finished_ms for each in (one, other) if each.finished_ms is not None]
    return msgspec.structs.replace(
        one,
        ranges=tuple(limited_ranges([*one.ranges, *other.ranges])),
        candles=one.candles + other.candles,
        file_bytes=one.file_bytes + other.file_bytes,
        started_ms=min(one.started_ms, other.started_ms),
        finished_ms=max(finished, default=None),
        runs=one.runs + other.runs,
    )


def _write(root: Path, lines: Iterable[Forgotten], strange: Iterable[bytes]) -> None:
    path = root / FORGOTTEN_FILE
    make_directories(root, path.parent)
    write_durably(path, b"".join(line + b"\n" for line in (*map(_encode, lines), *strange)))


def _read(path: Path) -> tuple[list[Forgotten], list[bytes]]:
    """Return a file's lines, and those that are none; nothing of a file that is not there."""
    try:
        data = read_regular(path, FILE_BYTES_MAX)
    except FileNotFoundError:
        return [], []
    except OSError as error:
        raise LakeError(f"forget: {path}: {error.strerror}", f"move it away: {path}") from None
    known, strange = [], []
    for line in data.splitlines():
        forgotten = _parse(line)
        if forgotten is None:
            strange.append(line)
        else:
            known.append(forgotten)
    return known, strange


def _parse(line: bytes) -> Forgotten | None:
    try:
        found = _decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    moments = [0, *(moment for each in found.ranges for moment in each), _TIME_MS_MAX]
    in_order = all(low <= high for low, high in pairwise(moments))
    times = (found.started_ms, found.finished_ms or 0)
    sound = bool(found.ranges) and in_order and all(0 <= time_ms < _TIME_MS_MAX for time_ms in times)
    return found if sound and is_series(*found.series) else None
