"""The record of forgotten candles: one small file, for users and for `coverage`.

    _lakewriter/forgotten/log.ndjson

Each line is a JSON object: a series, the ranges of the removed candles, the
user, the time and the reason. A command writes its line before it removes the first
candle, and replaces the line after the last one. A line without `finished_ms` is of
a command that still runs or was killed. One user's commands with the same series,
sources and reason become one line, such as those of a cron job. Each write replaces
the file under a lock. After an error a line may name more candles than were removed,
never fewer.

A forgotten range is a reason for absent candles, but no proof of their absence:
a backfill or healing may have fetched them again.
"""

import secrets
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import msgspec

from lakewriter.errors import LakeError
from lakewriter.gap import Gap
from lakewriter.lake.durable import make_directories, write_durably
from lakewriter.lake.gaps.ledgers import ReportedGap
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.root import STATE_DIRECTORY
from lakewriter.lake.row_file import host_files
from lakewriter.lake.warn_once import warn_once
from lakewriter.partition import is_series
from lakewriter.ranges import Range, minus, union
from lakewriter.regular_file import read_regular
from lakewriter.series import Series

FORGOTTEN_DIRECTORY = f"{STATE_DIRECTORY}/forgotten"
FORGOTTEN_FILE = f"{FORGOTTEN_DIRECTORY}/log.ndjson"

# Enough for about 100,000 lines.
FILE_BYTES_MAX = 64 * 1024 * 1024

# The maximum number of ranges of a line. If a line has more, the nearest ones are joined.
RANGES_MAX = 10_000

# Longer names and reasons are cut off.
TEXT_CHARS_MAX = 200

# The end of the year 9999: Python has no later date.
_TIME_MS_MAX = 253_402_300_800_000


class Forgotten(msgspec.Struct, frozen=True, omit_defaults=True):
    """Candles of one series that were removed on purpose.

    Args:
        market, symbol, interval: the series.
        ranges: begin times of the candles, as ascending half-open ranges; at least one.
        candles: number of removed candles. Until the command finishes, this is the
            number of selected candles.
        file_bytes: number of bytes by which the partitions' files shrank.
        by: the user and the host of the first command, or "recorder".
        reason: the reason in the user's words, or "" without one.
        sources: the sources of the selection, or () for any source.
        started_ms: the start of the removal, by the host's clock.
        finished_ms: the end of the removal, or None if the command runs or was killed.
        runs: number of commands that this line sums up.
        id: the command's id until it finishes, then "".
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
        """The series of the candles."""
        return Series(self.market, self.symbol, self.interval)


class ForgetPurpose(NamedTuple):
    """The user who removes candles, and the reason.

    Args:
        by: the user and the host, or "recorder".
        reason: the reason in the user's words, or "" without one.
        sources: the sources of the selection, or () for any source.
        now_ms: the time, by the host's clock.
    """

    by: str
    reason: str
    sources: tuple[str, ...]
    now_ms: int


class Removed(NamedTuple):
    """Removed candles of one series, or those that a command is about to remove.

    Args:
        ranges: their begin times, as half-open ranges.
        candles: number of candles.
        file_bytes: number of bytes by which the partitions' files shrink.
    """

    ranges: list[Range]
    candles: int
    file_bytes: int


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Forgotten).decode


def record_start(store: LakeStore, planned: dict[Series, Removed], purpose: ForgetPurpose) -> str:
    """Write the candles that a command is about to remove; return the id for `record_finish`.

    Raises:
        LakeError: if the record cannot be read.
        OSError: if the record cannot be written.

    Crash: the old file or the new one is there, whole.
    """
    command = secrets.token_hex(8)
    lines = [_forgotten(series, went, purpose, command) for series, went in planned.items() if went.ranges]
    with store.state.exclusive(FORGOTTEN_DIRECTORY):
        known, unreadable = _read(store.state_dir / FORGOTTEN_FILE)
        _write(store.state_dir, [*known, *lines], unreadable)
    return command


def record_finish(
    store: LakeStore, command: str, went: dict[Series, Removed], purpose: ForgetPurpose, finished_ms: int
) -> None:
    """Replace the lines of `record_start` by the candles that the command removed.

    Args:
        command: the id from `record_start`.
        went: the candles that the command removed.
        finished_ms: the time, by the host's clock.

    Raises:
        LakeError, OSError: as `record_start`.

    Crash: the old file or the new one is there, whole.
    """
    done = [
        msgspec.structs.replace(_forgotten(series, each, purpose, ""), finished_ms=finished_ms)
        for series, each in went.items()
        if each.ranges
    ]
    with store.state.exclusive(FORGOTTEN_DIRECTORY):
        known, unreadable = _read(store.state_dir / FORGOTTEN_FILE)
        others = [line for line in known if line.id != command]
        _write(store.state_dir, _without_repeats([*others, *done]), unreadable)


def unknown_forgotten(known: Iterable[Forgotten], lines: Iterable[Forgotten]) -> list[Forgotten]:
    """Return the lines of another lake's record that tell more than the known lines."""
    found = {_removal(line): line for line in known}
    return [line for line in lines if _removal(line) not in found or _tells_more(line, found[_removal(line)])]


def add_forgotten(store: LakeStore, lines: Iterable[Forgotten]) -> None:
    """Add lines of another lake's record. The call blocks.

    Raises:
        LakeError: if the record cannot be read.
        OSError: if the record cannot be written.

    Crash: the old file or the new one is there, whole.
    """
    with store.state.exclusive(FORGOTTEN_DIRECTORY):
        known, unreadable = _read(store.state_dir / FORGOTTEN_FILE)
        found: dict[tuple[object, ...], Forgotten] = {}
        for line in [*known, *lines]:
            before = found.get(_removal(line))
            if before is None:
                found[_removal(line)] = line
            elif _tells_more(line, before):
                ranges = tuple(limited_ranges([*line.ranges, *before.ranges]))
                found[_removal(line)] = msgspec.structs.replace(line, ranges=ranges)
        _write(store.state_dir, found.values(), unreadable)


def _removal(line: Forgotten) -> tuple[object, ...]:
    """Return what the lines of a removal have in common, before it ends and after later ones join it."""
    return (line.series, line.sources, line.by, line.reason, line.started_ms)


def _tells_more(line: Forgotten, other: Forgotten) -> bool:
    """Return whether a line of a removal has ranges, runs or an end that the other lacks."""
    return bool(
        minus(union(line.ranges), other.ranges)
        or line.runs > other.runs
        or (other.finished_ms is None and line.finished_ms is not None)
    )


def read_forgotten(root: Path) -> list[Forgotten]:
    """Return the lines of the record, by series and time.

    Unreadable lines are left out, with a warning.

    Raises:
        LakeError: if the file cannot be read.
    """
    found: list[Forgotten] = []
    for each in host_files(root / FORGOTTEN_FILE):
        known, unreadable = _read(each)
        if unreadable:
            warn_once(f"forget: {each}: {len(unreadable)} unreadable lines are left out")
        found += known
    return sorted(found, key=lambda each: (each.series, each.ranges[0], each.started_ms))


def with_forgotten(reported: list[ReportedGap], forgotten: Iterable[Forgotten]) -> list[ReportedGap]:
    """Return a series' gaps from ledgers and its forgotten ranges, by time, each candle once.

    A final reason and a living recorder's "pending" have precedence over "forgotten".
    "forgotten" has precedence over "unhealable".
    """
    strong = [each for each in reported if each.explains_absence and each.gap.reason != "unhealable"]
    known = union((each.gap.start_ms, each.gap.stop_ms) for each in strong)
    found = list(strong)
    for line in forgotten:
        gap = _gap_of(line)
        found += _pieces(ReportedGap(gap, alive=False), minus(list(line.ranges), known))
        known = union([*known, *line.ranges])
    for each in reported:
        if each not in strong:
            found += _pieces(each, minus([(each.gap.start_ms, each.gap.stop_ms)], known))
    return sorted(found, key=lambda each: each.gap.start_ms)


def _pieces(reported: ReportedGap, ranges: list[Range]) -> list[ReportedGap]:
    return [
        reported._replace(gap=msgspec.structs.replace(reported.gap, start_ms=start_ms, stop_ms=stop_ms))
        for start_ms, stop_ms in ranges
    ]


def _gap_of(line: Forgotten) -> Gap:
    why = f"by {line.by}" + (f": {line.reason}" if line.reason else "")
    return Gap(
        *line.series, *line.ranges[0], "forgotten", line.started_ms, line.finished_ms, why[:TEXT_CHARS_MAX]
    )


def limited_ranges(ranges: Iterable[Range]) -> list[Range]:
    """Return the union of the ranges. If it has more than RANGES_MAX ranges, the nearest ones are joined."""
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
    """Merge finished lines that differ only in times, ranges and numbers; return all lines."""
    found: dict[tuple[object, ...], Forgotten] = {}
    for line in lines:
        # Each new container has another host name, which would make a line of each run.
        key = (line.series, line.sources, line.by.partition("@")[0], line.reason, line.id)
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


def _write(root: Path, lines: Iterable[Forgotten], unreadable: Iterable[bytes]) -> None:
    path = root / FORGOTTEN_FILE
    make_directories(root, path.parent)
    write_durably(path, b"".join(line + b"\n" for line in (*map(_encode, lines), *unreadable)))


def _read(path: Path) -> tuple[list[Forgotten], list[bytes]]:
    """Return the readable and the unreadable lines of a file. An absent file has no lines."""
    try:
        data = read_regular(path, FILE_BYTES_MAX)
    except FileNotFoundError:
        return [], []
    except OSError as error:
        raise LakeError(f"forget: {path}: {error.strerror}", f"move it away: {path}") from None
    known, unreadable = [], []
    for line in data.splitlines():
        forgotten = _parse(line)
        if forgotten is None:
            unreadable.append(line)
        else:
            known.append(forgotten)
    return known, unreadable


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
