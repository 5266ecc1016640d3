"""A heat map of coverage as text: a line for each series, and a column for each bin of time."""

from collections.abc import Sequence
from typing import NamedTuple, cast

from lakewriter.lake.coverage.absences import SeriesAbsences
from lakewriter.pictures.canvas import Cells, Line, Role, Screen, cell_width, flowed
from lakewriter.pictures.heat import LEVELS, NEVER, HeatMap, HeatRow, heat_map
from lakewriter.pictures.timescale import time_ticks
from lakewriter.series import Series

COLUMNS_MIN = 40

# Columns of one bin, if there are few.
_STRIDE_MAX = 4

# Columns between two labels of times.
_COLUMNS_OF_TICK = 9

# The fewest columns of all bins. Longer names make the lines longer than the screen.
_MAP_COLUMNS_MIN = 6

_PERCENT, _NO_REASON = "percent", "no reason"


class CharSet(NamedTuple):
    """The characters of a heat map.

    Args:
        levels: one for each level, from none to complete.
        never: for bins without expected candles.
        open: for bins with candles that are missing without a reason; "" keeps that of the level.
        at_least: the sign before a share.
        dash, dot: separators.
    """

    levels: str
    never: str
    open: str
    at_least: str
    dash: str
    dot: str


COLOURED = CharSet("×▁▃▅▆▇█", "·", "", "≥", "–", " · ")
PLAIN = COLOURED._replace(open="!")
ASCII = CharSet("x.:-=+#", "~", "!", ">=", "to", ", ")


def heatmap_lines(found: Sequence[SeriesAbsences], screen: Screen, rows_max: int | None) -> list[Line]:
    """Return the lines of a heat map.

    Args:
        found: the series, at least one with expected candles.
        screen: its size. Only the width matters.
        rows_max: the maximum number of series; those that miss most are drawn. None is no limit.
    """
    chars = ASCII if screen.ascii_only else COLOURED if screen.colours else PLAIN
    columns = max(screen.columns, COLUMNS_MIN)
    names = max(cell_width(_name(each.series)) for each in found)
    # The columns of numbers, each with two spaces before it.
    has_open = any(not run.has_reason for each in found for run in each.runs)
    numbers = len(_PERCENT) + 2 + (len(_NO_REASON) + 2 if has_open else 0)
    room = max(_MAP_COLUMNS_MIN, columns - names - 2 - numbers)
    heat = heat_map(found, room, rows_max)
    stride = min(_STRIDE_MAX, max(1, room // len(heat.begins)))
    lines = _title_lines(heat, columns, chars)
    width = stride * len(heat.begins)
    head = f"{'':{names + 2}}{'':{width}}  {_PERCENT}" + (f"  {_NO_REASON}" if has_open else "")
    lines.append([Cells(head, "dim")])
    market = ""
    for row in heat.rows:
        if row.series.market != market:
            market = row.series.market
            lines.append([Cells(market, "title")])
        lines.append(_row_line(row, names, stride, chars, has_open=has_open))
    lines.append([Cells(_time_line(heat, names + 2, stride), "dim")])
    return [*lines, *_legend_lines(columns, chars, has_open=has_open)]


def _name(series: Series) -> str:
    return f" {series.symbol} {series.interval}"


def _row_line(row: HeatRow, names: int, stride: int, chars: CharSet, *, has_open: bool) -> Line:
    name = _name(row.series)
    cells = [Cells(name + " " * (names - cell_width(name) + 2))]
    for level, is_open in zip(row.levels, row.open_bins, strict=True):
        char = chars.never if level == NEVER else (is_open and chars.open) or chars.levels[level]
        cells.append(Cells(char * stride, role_of(level, is_open=is_open)))
    number = f"  {row.percent:{len(_PERCENT)}.2f}"
    if has_open and row.without_reason:
        number += f"  {row.without_reason:{len(_NO_REASON)},}"
    return [*cells, Cells(number)]


def role_of(level: int, *, is_open: bool) -> Role:
    """Return the role of a bin."""
    if level == NEVER:
        return "never"
    return cast("Role", f"{'open' if is_open else 'level'} {level}")


def _title_lines(heat: HeatMap, columns: int, chars: CharSet) -> list[Line]:
    facts: list[Line] = [[Cells(fact, "dim")] for fact in heat.facts("column", chars.dash)]
    return [[Cells("coverage", "title")], *flowed(facts, columns, chars.dot)]


def _time_line(heat: HeatMap, indent: int, stride: int) -> str:
    width = stride * len(heat.begins)
    line = ""
    number = {begin_ms: at for at, begin_ms in enumerate(heat.begins)}
    for tick in time_ticks(heat.begins[0], heat.stop_ms, max(1, width // _COLUMNS_OF_TICK)):
        bin_number = number.get(heat.span.floor(tick.at_ms))
        if bin_number is None:
            continue
        column = indent + bin_number * stride
        if not line or column >= len(line) + 2:
            line = f"{line:{column}}{tick.label}"
    return line


def _legend_lines(columns: int, chars: CharSet, *, has_open: bool) -> list[Line]:
    parts: list[Line] = []
    for level in range(len(LEVELS) - 1, -1, -1):
        text = LEVELS[level][1]
        shown = f"{chars.at_least} {text}" if text.endswith("%") else text
        parts.append([Cells(chars.levels[level], role_of(level, is_open=False)), Cells(f" {shown}", "dim")])
    parts.append([Cells(chars.never, "never"), Cells(" never recorded", "dim")])
    if has_open:
        open_char = chars.open or chars.levels[3]
        parts.append([Cells(open_char, "open 1"), Cells(" missing without a reason", "dim")])
    return flowed(parts, columns)
