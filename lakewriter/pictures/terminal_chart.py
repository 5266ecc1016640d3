"""A chart of candles as text: candles in half lines, volume below, gaps as shaded columns."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from lakewriter.pictures.bars import Bars, ChartData, buckets_of_gaps, chart_facts, gap_totals
from lakewriter.pictures.canvas import Canvas, Cells, Line, Role, Screen, flowed
from lakewriter.pictures.numbers import format_amount, format_change, format_price, value_ticks
from lakewriter.pictures.timescale import time_ticks

# The smallest chart that shows anything.
COLUMNS_MIN = 40
LINES_MIN = 12

# Columns of one candle, if there are few.
_STRIDE_MAX = 4

# Lines between two ticks of prices, and columns between two ticks of times.
_LINES_OF_TICK = 4
_COLUMNS_OF_TICK = 9


class CharSet(NamedTuple):
    """The characters of a chart.

    Args:
        up, down: what a cell shows whose upper and lower halves have nothing (0), a wick
            (1) or a body (2), by both numbers.
        volume: parts of a cell, from empty to full.
        gap, open_gap: the shading of gaps with a reason and without.
        axis, tick: the time axis.
        side, last: the price axis at a tick and at the last price.
        dot, dash: separators.
        rise, fall: signs of the change.
    """

    up: Mapping[tuple[int, int], str]
    down: Mapping[tuple[int, int], str]
    volume: str
    gap: str
    open_gap: str
    axis: str
    tick: str
    side: str
    last: str
    dot: str
    dash: str
    rise: str
    fall: str


_LINES = {
    (0, 0): " ", (0, 1): "╷", (1, 0): "╵", (1, 1): "│", (0, 2): "╻", (2, 0): "╹", (2, 2): "┃", (1, 2): "╽", (2, 1): "╿",
}  # fmt: skip
_BLOCKS = _LINES | {(0, 2): "▄", (2, 0): "▀", (2, 2): "█", (1, 2): "▄", (2, 1): "▀"}
_ASCII_UP = {pair: " |O"[max(pair)] for pair in _LINES}
_ASCII_DOWN = {pair: " |#"[max(pair)] for pair in _LINES}

_EIGHTHS = " ▁▂▃▄▅▆▇█"
COLOURED = CharSet(_LINES, _LINES, _EIGHTHS, "░", "▒", "─", "┬", "┤", "◂", " · ", "–", "▲", "▼")
PLAIN = COLOURED._replace(down=_BLOCKS)
ASCII = CharSet(_ASCII_UP, _ASCII_DOWN, " .:|", ":", "?", "-", "+", "|", "<", ", ", "to", "up", "down")


def chart_lines(data: ChartData, screen: Screen) -> list[Line]:
    """Return the lines of a chart.

    Args:
        screen: its size, which the chart does not exceed unless it is smaller than
            COLUMNS_MIN and LINES_MIN.
    """
    columns, lines = max(screen.columns, COLUMNS_MIN), max(screen.lines, LINES_MIN)
    chars = ASCII if screen.ascii_only else COLOURED if screen.colours else PLAIN
    low, high = _price_range(data.candles)
    # The labels of prices need the height, and the height needs the number of lines of text.
    labels = [tick.label for tick in value_ticks(low, high, max(2, lines // _LINES_OF_TICK))]
    last = format_price(float(data.candles.close[-1]))
    side = 2 + max(map(len, [*labels, last]))
    span = data.span_for(columns - side)
    begins = span.begins(data.start_ms, data.stop_ms)
    stride = min(_STRIDE_MAX, max(1, (columns - side) // len(begins)))
    title = _title_lines(data, span.name, columns, chars)
    legend = _legend_lines(data, columns, chars, screen)
    layout = _Layout(begins, span.end(begins[-1]), stride, side, lines - len(title) - len(legend) - 2)
    return [*title, *_drawn(data, data.bars(span), layout, (low, high), chars), *legend]


class _Layout(NamedTuple):
    """The geometry of a chart.

    Args:
        begins: begin times of all buckets.
        stop_ms: the end of the last bucket.
        stride: columns of a bucket.
        side: columns of the price axis.
        lines: lines of prices and volume together.
    """

    begins: Sequence[int]
    stop_ms: int
    stride: int
    side: int
    lines: int

    @property
    def width(self) -> int:
        """Columns of all buckets."""
        return self.stride * len(self.begins)

    @property
    def volume_lines(self) -> int:
        """Lines of the volume."""
        return max(1, self.lines // 6)

    @property
    def price_lines(self) -> int:
        """Lines of the prices."""
        return self.lines - self.volume_lines

    def column(self, bucket: int) -> int:
        """Return the column in which the candle of a bucket stands."""
        return bucket * self.stride + (self.stride - 1) // 2


def _drawn(
    data: ChartData, bars: Bars, layout: _Layout, prices: tuple[float, float], chars: CharSet
) -> list[Line]:
    canvas = Canvas(layout.width + layout.side, layout.lines + 2)
    at_bucket = {begin_ms: number for number, begin_ms in enumerate(layout.begins)}
    # The first bucket may begin before the first candle of the range.
    numbers = [at_bucket[int(begin_ms)] for begin_ms in bars.begins]
    gaps = buckets_of_gaps(data.gaps, layout.begins, layout.stop_ms)
    axis = layout.lines
    canvas.put(0, axis, chars.axis * layout.width, "dim")
    _draw_times(canvas, layout, axis, chars)
    with_bar = set(numbers)
    for bucket, has_reason in gaps.items():
        role: Role = "gap" if has_reason else "open gap"
        shade = (chars.gap if has_reason else chars.open_gap) * layout.stride
        canvas.put(bucket * layout.stride, axis, shade, role)
        if bucket not in with_bar:
            for line in range(layout.price_lines):
                canvas.put(bucket * layout.stride, line, shade, role)
    columns = [layout.column(number) for number in numbers]
    _draw_candles(canvas, bars, columns, layout, prices, chars)
    _draw_volume(canvas, bars, columns, layout, chars)
    _draw_prices(canvas, float(data.candles.close[-1]), layout, prices, chars)
    return canvas.rows()


def _draw_candles(
    canvas: Canvas,
    bars: Bars,
    columns: Sequence[int],
    layout: _Layout,
    prices: tuple[float, float],
    chars: CharSet,
) -> None:
    low, high = prices
    halves = 2 * layout.price_lines
    scale = (halves - 1) / (high - low)

    def half(price: float) -> int:
        return round((high - price) * scale)

    for at, column in enumerate(columns):
        is_up = bars.close[at] >= bars.open[at]
        body = sorted((half(bars.open[at]), half(bars.close[at])))
        top, bottom = half(bars.high[at]), half(bars.low[at])
        glyphs = chars.up if is_up else chars.down
        for line in range(top // 2, bottom // 2 + 1):
            pair = [
                2 if body[0] <= part <= body[1] else 1 if top <= part <= bottom else 0
                for part in (2 * line, 2 * line + 1)
            ]
            canvas.put(column, line, glyphs[pair[0], pair[1]], "up" if is_up else "down")


def _draw_volume(canvas: Canvas, bars: Bars, columns: Sequence[int], layout: _Layout, chars: CharSet) -> None:
    most = float(bars.volume.max())
    parts = len(chars.volume) - 1
    bottom = layout.lines - 1
    for at, column in enumerate(columns):
        if not bars.volume[at] > 0:
            continue
        role: Role = "up" if bars.close[at] >= bars.open[at] else "down"
        height = max(1, round(bars.volume[at] / most * layout.volume_lines * parts))
        for line in range(layout.volume_lines):
            part = min(parts, height - line * parts)
            if part > 0:
                canvas.put(column, bottom - line, chars.volume[part], role)
    top = layout.price_lines
    canvas.put(layout.width, top, f"{chars.side} {format_amount(most)}"[: layout.side], "dim")


def _draw_prices(
    canvas: Canvas, last: float, layout: _Layout, prices: tuple[float, float], chars: CharSet
) -> None:
    low, high = prices
    lines = layout.price_lines

    def line_of(price: float) -> int:
        return round((high - price) / (high - low) * (2 * lines - 1)) // 2

    for tick in value_ticks(low, high, max(2, lines // _LINES_OF_TICK + 1)):
        if abs(line_of(tick.value) - line_of(last)) > 0:
            canvas.put(layout.width, line_of(tick.value), f"{chars.side} {tick.label}", "dim")
    canvas.put(layout.width, line_of(last), f"{chars.last} {format_price(last)}", "title")


def _draw_times(canvas: Canvas, layout: _Layout, axis: int, chars: CharSet) -> None:
    begins, stride = layout.begins, layout.stride
    free = 0
    for tick in time_ticks(begins[0], layout.stop_ms, max(1, layout.width // _COLUMNS_OF_TICK)):
        bucket = int(np.searchsorted(np.array(begins), tick.at_ms, "right")) - 1
        column = layout.column(bucket) if stride > 1 else bucket
        start = min(max(0, column - len(tick.label) // 2), canvas.columns - len(tick.label))
        if start < free:
            continue
        canvas.put(column, axis, chars.tick, "dim")
        canvas.put(start, axis + 1, tick.label, "dim")
        free = start + len(tick.label) + 2


def _price_range(bars: Bars) -> tuple[float, float]:
    low, high = float(bars.low.min()), float(bars.high.max())
    if high > low:
        return low, high
    margin = abs(low) / 100 or 1.0
    return low - margin, high + margin


def _title_lines(data: ChartData, span_name: str, columns: int, chars: CharSet) -> list[Line]:
    change = data.change
    role: Role = "up" if change >= 0 else "down"
    sign = chars.rise if change >= 0 else chars.fall
    head = flowed(
        [
            [Cells(str(data.wanted), "title")],
            [Cells(format_price(float(data.candles.close[-1])), "title")],
            [Cells(f"{sign} {format_change(change)}", role)],
        ],
        columns,
    )
    facts = chart_facts(data, span_name, chars.dash)
    return [*head, *flowed([[Cells(fact, "dim")] for fact in facts], columns, chars.dot)]


def _legend_lines(data: ChartData, columns: int, chars: CharSet, screen: Screen) -> list[Line]:
    parts: list[Line] = []
    if not screen.colours:
        parts += [[Cells(f"{chars.up[2, 2]} up  {chars.down[2, 2]} down")]]
    for total in gap_totals(data.gaps):
        role: Role = "gap" if total.has_reason else "open gap"
        shade = chars.gap if total.has_reason else chars.open_gap
        parts.append([Cells(shade, role), Cells(f" {total.candles:,} missing: {total.reason}", "dim")])
    return flowed(parts, columns)
