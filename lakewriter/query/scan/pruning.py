"""The pruning of partitions in which no row can pass a filter.

Here a filter *can hold* in a range if a row of the range may pass it. Input is a
filter from `pushdown`. The lake's listing gets the needed names of each level, and
lists only these. `snapshot` turns partitions into files.

Strategy: Arrow tests whether a filter can hold if a column is within a range. A range
of names or days in which it cannot hold is dropped as a whole. Ranges are cut at the
names and days in the filter. If these are many, ranges are split repeatedly. Arrow
makes every drop safe for any cuts, but some kept ranges may be unneeded.

Each level is tested alone, so `a OR b` may keep more than needed. The engine drops
the rest by the paths, more slowly. A test takes about 30 µs. Listing and opening a
partition takes ten times as long.
"""

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable
from datetime import date, timedelta
from itertools import pairwise

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.fs

from lakewriter.candle import SCHEMA
from lakewriter.interval import DAY_MS, INTERVALS
from lakewriter.lake.partition_filter import FEW_DAYS
from lakewriter.partition import day_start_ms, parse_date_value, period_date
from lakewriter.query.macros import NEWEST_MARK, SYMBOLS_MARK
from lakewriter.subscription import chosen, is_glob

# The engine's own unit of time. The engine rounds a compared time to the column's unit.
_TIME = pa.timestamp("us", tz="UTC")

# The columns of `candles`, as filters refer to them.
CANDLES_SCHEMA = pa.schema(
    [
        ("market", pa.string()),
        ("symbol", pa.string()),
        ("interval", pa.string()),
        ("date", pa.date32()),
        *(field.with_type(_TIME) if pa.types.is_timestamp(field.type) else field for field in SCHEMA),
    ]
)

# Number of parts into which a range is split. More parts mean fewer rounds and more tests.
PARTS = 4

# Maximum number of tests of one level. After them the remaining ranges are kept.
TESTS_MAX = 512

# Maximum number of terms that the tests of one level evaluate. A test evaluates all
# terms of a chain of `or`, at about 30 µs each.
LINKS_MAX = 16_384

# Number of distinct days from 1970 on. The last day stands for all later days.
DAYS_MAX = 65_536

# Maximum number of cuts at names and days of the filter.
CUTS_MAX = 24

_NAMES = re.compile(r'"([^"]*)"')
_DAYS = re.compile(r"\d{4}-\d{2}-\d{2}")
_MARKED_SYMBOLS = re.compile(rf'symbol != "({SYMBOLS_MARK}([0-9A-F]*))"')

# The end of an expression that Arrow truncates.
_TRUNCATED = "..."

_EPOCH = date(1970, 1, 1)

_MONTH_MS_MAX = 31 * DAY_MS

_TIMES = frozenset(("date", "candle_begin_time", "candle_end_time"))

_FORMAT = ds.ParquetFileFormat()
_DISK = pyarrow.fs.LocalFileSystem()

# The first and the last position of a range, both inclusive.
Span = tuple[int, int]
Guarantee = Callable[[Span], pc.Expression]


class FilterPruner:
    """A `PartitionSelection` of the partitions in which a filter can hold.

    Args:
        pushed: a filter over the columns of CANDLES_SCHEMA.

    Attributes:
        newest: whether the statement needs only the newest candles of each series.
    """

    def __init__(self, pushed: pc.Expression) -> None:
        self._pushed = pushed
        self._text = text = str(pushed)
        self.newest = NEWEST_MARK in text
        # The symbols and globs that a macro wants; None without such a macro.
        self._symbols = self._marked_symbols()
        self._tests_max = min(TESTS_MAX, LINKS_MAX // (1 + text.count(" or ")))
        # A literal may contain a column's name. That costs only time.
        self._named = {name for name in CANDLES_SCHEMA.names if name in text}
        if "null" in text:
            # A file of another tool may lack this column. Its nulls are in no range.
            self._named.discard("candle_end_time")
        self._days: dict[int, list[Span] | None] = {}
        self._few: dict[str, list[str] | None] = {}  # by interval, for all series
        # Level → the names of the last call, and the kept names.
        self._last_kept: dict[str, tuple[list[str], list[str]]] = {}

    def single_name(self, level: str) -> str:
        """Return the only name that the filter compares a level with; "" for no name or several."""
        found = set(re.findall(rf'\(?\b{level} == "([^"]*)"', self._text))
        return found.pop() if len(found) == 1 else ""

    def keep(self, level: str, names: list[str]) -> list[str]:
        """Return the names in which the filter can hold, from the sorted names of a level."""
        last = self._last_kept.get(level)
        if last is None or last[0] != names:
            last = self._last_kept[level] = (list(names), self._keep(level, names))
        return list(last[1])

    def _keep(self, level: str, names: list[str]) -> list[str]:
        names = [name for name in names if _is_utf8(name)]
        if level == "symbol" and self._symbols is not None:
            names = chosen(self._symbols, names)
        if level not in self._named or not names:
            return names
        column = ds.field(level)

        def guarantee(span: Span) -> pc.Expression:
            low, high = names[span[0]], names[span[1]]
            return column == low if low == high else (column >= low) & (column <= high)

        cuts = {at + more for at in self._mentioned(names) for more in (0, 1)}
        spans = self._kept((0, len(names) - 1), cuts, guarantee)
        return [name for low, high in spans for name in names[low : high + 1]]

    def names(self, level: str) -> list[str] | None:
        """Return all names of a level in which the filter can hold, sorted; None if they are unknown."""
        if level == "symbol" and self._symbols is not None and not any(map(is_glob, self._symbols)):
            return self.keep(level, self._symbols)
        names = sorted({name for name in _NAMES.findall(self._text) if _is_utf8(name)})
        if level not in self._named or not names or len(names) > CUTS_MAX or _TRUNCATED in self._text:
            return None
        column = ds.field(level)
        others = [column < names[0], column > names[-1]]
        others += [(column > low) & (column < high) for low, high in pairwise(names)]
        if self._can_hold([(at, at) for at in range(len(others))], lambda span: others[span[0]]):
            return None
        return self.keep(level, names)

    def keep_days(self, interval: str, names: list[str]) -> list[str]:
        """Return the periods of an interval in which the filter can hold.

        Args:
            names: the first days of the periods, sorted.
        """
        spans = self._spans(interval)
        if spans is None:
            return names
        runs = [
            (period_date(interval, _day(low)).isoformat(), _last_day(high).isoformat()) for low, high in spans
        ]
        return [name for name in names if any(first <= name <= last for first, last in runs)]

    def few_days(self, interval: str) -> list[str] | None:
        """Return an interval's days in which the filter can hold; None if they exceed FEW_DAYS."""
        if interval not in self._few:
            self._few[interval] = self._few_days(interval)
        return self._few[interval]

    def _few_days(self, interval: str) -> list[str] | None:
        spans = self._spans(interval)
        if INTERVALS[interval].file_period != "day":
            return None
        if spans is None or sum(high - low + 1 for low, high in spans) > FEW_DAYS:
            return None
        if spans and spans[-1][1] == DAYS_MAX - 1:
            return None
        return [_day(number).isoformat() for low, high in spans for number in range(low, high + 1)]

    def _spans(self, interval: str) -> list[Span] | None:
        """Return ranges of days since 1970 in which the filter can hold; None if it compares no time."""
        columns = self._named & _TIMES
        if not columns:
            return None
        length_ms = 0
        if "candle_end_time" in columns:
            length_ms = INTERVALS[interval].length_ms or _MONTH_MS_MAX
        if length_ms not in self._days:
            # A candle may end up to its length after its day.
            around = range(-1 - length_ms // DAY_MS if length_ms else 0, 2)
            cuts = {at + more for at in self._mentioned_days() for more in around}
            spans = self._kept(
                (0, DAYS_MAX - 1), cuts, lambda span: _guarantee_for_days(columns, span, length_ms), runs=True
            )
            self._days[length_ms] = _merge_adjacent(spans)
        return self._days[length_ms]

    def _marked_symbols(self) -> list[str] | None:
        """Return the symbols and globs that a macro's filter lists, sorted; None without such a list.

        A macro writes them as `symbol <> mark`. The list counts only if the filter excludes
        this symbol. So the comparison is not one part of an OR.
        """
        found = _MARKED_SYMBOLS.findall(self._text)
        if len(set(found)) != 1:
            return None
        mark, symbols = found[0]
        if self._can_hold([(0, 0)], lambda _: ds.field("symbol") == mark):
            return None
        # Bracket expressions may differ between Python and DuckDB, so `*` stands for them.
        names = {
            name.partition("[")[0] + "*" if "[" in name else name
            for name in bytes.fromhex(symbols).decode().split(",")
        }
        return sorted(names)

    def _mentioned(self, names: list[str]) -> set[int]:
        """Return the positions of the names in the filter among sorted names."""
        return {bisect_left(names, name) for name in _NAMES.findall(self._text)}

    def _mentioned_days(self) -> set[int]:
        days = (parse_date_value(text) for text in _DAYS.findall(self._text))
        return {(day - _EPOCH).days for day in days if day is not None}

    def _kept(self, whole: Span, cuts: set[int], guarantee: Guarantee, *, runs: bool = False) -> list[Span]:
        """Return the parts of a range in which the filter can hold, sorted.

        Args:
            cuts: positions at which the filter may start or stop to hold.
        """
        cuts = {at for at in cuts if whole[0] < at <= whole[1]}
        if len(cuts) > CUTS_MAX or _TRUNCATED in self._text:
            return self._narrowed(whole, guarantee, runs=runs)
        starts = [whole[0], *sorted(cuts)]
        ends = [start - 1 for start in starts[1:]] + [whole[1]]
        return self._can_hold(list(zip(starts, ends, strict=True)), guarantee)

    def _narrowed(self, whole: Span, guarantee: Guarantee, *, runs: bool = False) -> list[Span]:
        """Split a range repeatedly; return the parts in which the filter can hold, sorted.

        Args:
            runs: whether the result is probably a few long runs. Then a range is kept
                whole if the filter can hold in all its parts. Only the ranges at the
                outer ends are split further.
        """
        done: list[Span] = []
        parts = self._can_hold([whole], guarantee)
        tests = 1
        while parts:
            done += [span for span in parts if span[0] == span[1]]
            cut = [_cut(span) for span in parts if span[0] < span[1]]
            asked = [part for each in cut for part in each]
            tests += len(asked)
            if tests > self._tests_max:
                return sorted(done + [span for span in parts if span[0] < span[1]])
            parts = self._can_hold(asked, guarantee) if asked else []
            if runs and parts:
                held = set(parts)
                full = {part for each in cut if held.issuperset(each) for part in each}
                full -= {min(done + parts), max(done + parts)}
                done += full
                parts = [span for span in parts if span not in full]
        return sorted(done)

    def _can_hold(self, spans: list[Span], guarantee: Guarantee) -> list[Span]:
        """Return the ranges in which the filter can hold, in order.

        Arrow drops the fragments of a dataset whose guarantee contradicts the filter.
        Arrow opens no file for this, so the files need not exist.
        """
        fragments = ds.FileSystemDataset.from_paths(
            [str(number) for number in range(len(spans))],
            schema=CANDLES_SCHEMA,
            format=_FORMAT,
            filesystem=_DISK,
            partitions=[guarantee(span) for span in spans],
        ).get_fragments(filter=self._pushed)
        return [spans[number] for number in sorted(int(fragment.path) for fragment in fragments)]


def _cut(span: Span) -> list[Span]:
    low, high = span
    size = -((low - high - 1) // PARTS)
    return [(at, min(at + size - 1, high)) for at in range(low, high + 1, size)]


def _merge_adjacent(spans: Iterable[Span]) -> list[Span]:
    merged: list[Span] = []
    for low, high in spans:
        if merged and merged[-1][1] + 1 == low:
            low = merged.pop()[0]
        merged.append((low, high))
    return merged


def _guarantee_for_days(columns: set[str], span: Span, length_ms: int) -> pc.Expression:
    """Return the guarantee for the rows in the partitions of some days.

    Args:
        columns: the columns of the guarantee.
        length_ms: the length of the longest candle in these partitions.
    """
    first, last = _day(span[0]), _last_day(span[1])
    start_ms, stop_ms = day_start_ms(first), day_start_ms(last) + DAY_MS
    known = pc.scalar(True)
    if "date" in columns:
        day = ds.field("date")
        known &= day == first if first == last else (day >= first) & (day <= last)
    if "candle_begin_time" in columns:
        begin = ds.field("candle_begin_time")
        known &= (begin >= _time(start_ms)) & (begin < _time(stop_ms))
    if "candle_end_time" in columns:
        end = ds.field("candle_end_time")
        known &= (end >= _time(start_ms)) & (end <= _time(stop_ms + length_ms))
    return known


def _time(time_ms: int) -> pa.Scalar:
    return pa.scalar(time_ms * 1000, _TIME)


def _day(number: int) -> date:
    return _EPOCH + timedelta(days=number)


def _last_day(number: int) -> date:
    return date.max if number == DAYS_MAX - 1 else _day(number)


def _is_utf8(name: str) -> bool:
    """Return whether a directory's name is UTF-8, like the names of all partitions."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
