"""Unflushed candles: the candles in the journals of all recorders.

`read_unflushed` decodes all lines at each call. A frequent reader uses an
`UnflushedCache`, which decodes only the lines that were added since its last read. It
relies on these facts about a segment:

- A recorder only appends to it, and a reader decodes whole lines only.
- A recorder cuts off a write that failed, which is at most one commit. So the last
  bytes that were decoded are compared. If they differ, the segment is read again.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, product, starmap
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, TypeVar

from lakewriter.candle import Candle
from lakewriter.errors import LakeError
from lakewriter.lake.journal_directories import JOURNAL_DIRECTORY, recorder_directories, segment_paths
from lakewriter.lake.lines import Lines, read_open_lines
from lakewriter.lake.segments import READ_BYTES_MAX, complaint, decode_lines, read_segment
from lakewriter.lake.unchanged import SETTLED_S, LocalDevices, Version, version_of
from lakewriter.lake.warn_once import warn_once
from lakewriter.regular_file import open_regular
from lakewriter.series import Series

T = TypeVar("T")

# A flush can drop a segment between listing and reading. Each repetition is caused by a flush.
READ_LAPS_MAX = 100

# Maximum number of candles in a cache, which take some 600 bytes each. 3,000 series of 1m
# have 15,000 between two flushes.
KEPT_CANDLES_MAX = 200_000

# More bytes than one commit has: a recorder commits 4,000 candles of some 450 bytes at once.
TAIL_BYTES = 1 << 21

_LEVELS = len(Series._fields)

_BySeries = Mapping[Series, list[Candle]]


class Unflushed:
    """The committed candles in the journals, by series. It never changes.

    A candle may occur twice, and may already be in its partition.

    Args:
        segments: the decoded segments, oldest first for each recorder.
    """

    def __init__(self, segments: list["_Decoded"]) -> None:
        self._segments = [segment for segment in segments if segment.by_series]

    def __bool__(self) -> bool:
        return bool(self._segments)

    def __iter__(self) -> Iterator[Candle]:
        for segment in self._segments:
            yield from chain.from_iterable(segment.by_series.values())

    def series(self) -> set[Series]:
        """Return the series that have candles."""
        return set(chain.from_iterable(segment.by_series for segment in self._segments))

    def names(self, level: int) -> list[str]:
        """Return the sorted names of a level: 0 is the market, 1 the symbol, 2 the interval."""
        if len(self._segments) == 1:
            return list(self._segments[0].names[level])
        return sorted(set().union(*(segment.names[level] for segment in self._segments)))

    def matching(self, markets: list[str], symbols: list[str], intervals: list[str]) -> Iterator[Series]:
        """Yield the series with one of the names at each level. Some may have no candles."""
        few = len(markets) * len(symbols) * len(intervals)
        if few <= max((len(segment.by_series) for segment in self._segments), default=0):
            yield from starmap(Series, product(markets, symbols, intervals))
            return
        wanted = frozenset(markets), frozenset(symbols), frozenset(intervals)
        for series in self.series():
            if all(name in names for name, names in zip(series, wanted, strict=True)):
                yield series

    def of(self, series: Series) -> list[Candle]:
        """Return the candles of a series, in the order of their commits."""
        found = [segment.by_series[series] for segment in self._segments if series in segment.by_series]
        return list(found[0]) if len(found) == 1 else list(chain.from_iterable(found))


class _Decoded(NamedTuple):
    """The lines of a segment that were decoded so far.

    Args:
        version: the facts of the file before the read.
        is_settled: whether every later change of the file will change its facts; see `unchanged`.
        size: number of bytes of these lines.
        tail: the last of these bytes; empty if a line is too long to be kept.
        by_series: the candles of the valid lines. It is never changed.
        names: the sorted names of each level.
        candles: number of these candles.
        damaged, unknown: number of other lines.
        cut: whether the segment is larger than a reader reads.
    """

    version: Version = ()
    is_settled: bool = False
    size: int = 0
    tail: bytes = b""
    by_series: _BySeries = MappingProxyType({})
    names: tuple[list[str], ...] = ([], [], [])
    candles: int = 0
    damaged: int = 0
    unknown: int = 0
    cut: bool = False


_NOTHING = _Decoded()


class UnflushedCache:
    """The decoded journals of a lake. Any thread may use the cache.

    Args:
        root: the directory that has `_lakewriter`.
        candles_max: the maximum number of candles that are kept between reads.
        now_s: returns the time, in seconds since the epoch.
    """

    def __init__(
        self,
        root: Path,
        candles_max: int = KEPT_CANDLES_MAX,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._root = root
        self._candles_max = candles_max
        self._now_s = now_s
        self._local_devices = LocalDevices()
        self._kept: Mapping[Path, _Decoded] = {}

    def read(self) -> Unflushed:
        """Return the unflushed candles. Call this before you list files, as `read_unflushed`.

        Raises:
            LakeError: if recorders drop segments at every attempt.
        """
        kept = self._kept
        found = _read_all(self._root, lambda path: self._decode(path, kept.get(path, _NOTHING)))
        self._kept = self._within_limit(found)
        return Unflushed([decoded for _, decoded in found])

    def _decode(self, path: Path, kept: _Decoded) -> _Decoded:
        if not kept.is_settled or version_of(path.stat()) != kept.version:
            fd = open_regular(path)
            try:
                kept = self._decode_open(fd, kept)
            finally:
                os.close(fd)
        _warn_of(path, complaint(kept.damaged, kept.unknown, cut=kept.cut))
        return kept

    def _decode_open(self, fd: int, kept: _Decoded) -> _Decoded:
        read_s, status = self._now_s(), os.fstat(fd)
        if not _continues(fd, status, kept):
            kept = _NOTHING
        age_s = read_s - max(status.st_mtime, status.st_ctime)
        kept = kept._replace(
            version=version_of(status),
            is_settled=age_s >= SETTLED_S and status.st_dev in self._local_devices,
        )
        os.lseek(fd, kept.size, os.SEEK_SET)
        lines = read_open_lines(fd, READ_BYTES_MAX - kept.size)
        return _extended(kept, lines) if lines.size or lines.cut else kept

    def _within_limit(self, found: list[tuple[Path, _Decoded]]) -> Mapping[Path, _Decoded]:
        """Return the segments to keep. The others are read again at the next call."""
        kept, candles = {}, 0
        for path, decoded in found:
            candles += decoded.candles
            if candles > self._candles_max:
                break
            kept[path] = decoded
        return kept


def _continues(fd: int, status: os.stat_result, kept: _Decoded) -> bool:
    """Return whether an open segment begins with the lines that were decoded."""
    is_same_file = version_of(status)[:2] == kept.version[:2]
    if not is_same_file or not kept.tail or status.st_size < kept.size:
        return False
    return os.pread(fd, len(kept.tail), kept.size - len(kept.tail)) == kept.tail


def _extended(kept: _Decoded, lines: Lines) -> _Decoded:
    """Return the decoded lines of a segment with further ones."""
    candles, damaged, unknown = decode_lines(lines.whole)
    by_series = _joined(kept.by_series, candles)
    names = kept.names
    if len(by_series) > len(kept.by_series):
        names = tuple(sorted({key[level] for key in by_series}) for level in range(_LEVELS))
    return kept._replace(
        size=kept.size + lines.size,
        tail=_tail(kept.tail, lines.whole),
        by_series=by_series,
        names=names,
        candles=kept.candles + len(candles),
        damaged=kept.damaged + len(damaged),
        unknown=kept.unknown + unknown,
        cut=lines.cut,
    )


def _joined(before: _BySeries, candles: list[Candle]) -> _BySeries:
    added: dict[tuple[str, str, str], list[Candle]] = {}
    for candle in candles:
        # A plain tuple is a third as expensive as a Series, and equal to it.
        added.setdefault((candle.market, candle.symbol, candle.interval), []).append(candle)
    joined = dict(before)
    for names, more in added.items():
        series = Series(*names)
        joined[series] = [*before.get(series, ()), *more]
    return joined


def _tail(before: bytes, lines: Sequence[bytes | None]) -> bytes:
    """Return the last bytes of decoded lines, or nothing if a line was too long to be kept."""
    parts: list[bytes] = []
    left = TAIL_BYTES
    for line in reversed(lines):
        if line is None:
            return b""
        parts += (b"\n", line)
        left -= len(line) + 1
        if left <= 0:
            break
    else:
        parts.append(before)
    return b"".join(reversed(parts))[-TAIL_BYTES:]


def read_unflushed(root: Path) -> list[Candle]:
    """Return the committed candles in the journals of all recorders, in the order of their commits.

    A candle may occur twice, and may already be in its partition. Call this before
    you list files: a candle that leaves the journal in between is then in its
    partition.

    Raises:
        LakeError: if recorders drop segments at every attempt.
    """
    return [candle for _, candles in _read_all(root, _read_once) for candle in candles]


def _read_once(path: Path) -> list[Candle]:
    segment = read_segment(path)
    _warn_of(path, segment.complaint)
    return segment.candles


def _read_all(root: Path, read: Callable[[Path], T]) -> list[tuple[Path, T]]:
    """Return the readable segments of all recorders with the results of `read`, oldest first."""
    for _ in range(READ_LAPS_MAX):
        found: list[tuple[Path, T]] = []
        try:
            for directory in recorder_directories(root):
                for path in _readable_segments(directory):
                    try:
                        found.append((path, read(path)))
                    except FileNotFoundError:
                        raise
                    except OSError as error:
                        warn_once(f"journal: {path}: {error.strerror}; its candles are left out")
        except FileNotFoundError:
            # A segment was dropped. Its unmerged rows are now in a newer segment,
            # which this listing may lack.
            continue
        return found
    raise LakeError(f"journal: {root / JOURNAL_DIRECTORY} changed during every attempt to read it")


def _warn_of(path: Path, damage: str) -> None:
    if damage:
        warn_once(f"journal: {path}: {damage} are left out")


def _readable_segments(directory: Path) -> list[Path]:
    try:
        return segment_paths(directory)
    except FileNotFoundError:
        raise
    except OSError as error:
        warn_once(f"journal: {directory}: {error.strerror}; its candles are left out")
        return []
