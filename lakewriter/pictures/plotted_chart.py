"""A chart of candles as a picture: candles, volume below, gaps shaded, with a legend of their reasons."""

from collections.abc import Callable, Iterable
from typing import Any, BinaryIO

import numpy as np

from lakewriter.gap import LEFT, REASONS, UNEXPLAINED
from lakewriter.lake.coverage.absences import AbsentCandles
from lakewriter.pictures.bars import Bars, ChartData, GapTotal, chart_facts, gap_totals
from lakewriter.pictures.figure import Drawing, drawing, keep_labels_inside
from lakewriter.pictures.look import Look
from lakewriter.pictures.numbers import format_amount, format_change, format_price, value_ticks
from lakewriter.pictures.timescale import Span, format_time, time_ticks
from lakewriter.ranges import Range, union

# Width of a bar and of the narrowest gap, in pixels.
_BAR_PX = 5
_GAP_PX = 2.0

# Margins in pixels.
_LEFT, _RIGHT, _TOP, _BOTTOM = 24, 84, 78, 36

# The share of a bar that its body takes.
_BODY = 0.7

# Each reason has its own hatch, so that it needs no colour.
_HATCHES = dict(
    zip(
        (*REASONS, LEFT, UNEXPLAINED),
        ("....", "////", "", "\\\\\\\\", "----", "xxxx", "||||", "", "xx"),
        strict=True,
    )
)


def bars_for(look: Look) -> int:
    """Return the number of bars that a picture has room for."""
    return max(20, (look.width - _LEFT - _RIGHT) // _BAR_PX)


def plot_chart(data: ChartData, look: Look) -> Callable[[BinaryIO, str], None]:
    """Return a function that writes the chart to a stream, in a format of `look.FORMATS`.

    Raises:
        LakewriterError: if matplotlib is not installed.
    """

    def write(out: BinaryIO, format_name: str) -> None:
        span = data.span_for(bars_for(look))
        bars = data.bars(span)
        with drawing(look) as sheet:
            _write_title(sheet, data, span)
            _draw(sheet, data, bars, span)
            sheet.save(
                out,
                format_name,
                f"{data.wanted}, {format_time(data.start_ms)} to {format_time(data.stop_ms)} UTC",
            )

    with drawing(look):  # an error before the file is opened
        pass
    return write


def _write_title(sheet: Drawing, data: ChartData, span: Span) -> None:
    change = data.change
    color = sheet.colours.up if change >= 0 else sheet.colours.down
    parts: list[dict[str, Any]] = [
        {"s": str(data.wanted), "size": 15, "weight": "bold"},
        {"s": format_price(float(data.candles.close[-1])), "size": 15},
        {"s": f"{'▲' if change >= 0 else '▼'} {format_change(change)}", "size": 11, "color": color},
    ]
    sheet.title(_LEFT, parts, chart_facts(data, span.name))


def _draw(sheet: Drawing, data: ChartData, bars: Bars, span: Span) -> None:
    look = sheet.look
    right, bottom = look.width - _RIGHT, look.height - _BOTTOM - _draw_legend(sheet, data.gaps)
    split = _TOP + (bottom - _TOP) * 0.8
    prices = sheet.axes(_LEFT, _TOP, right, split - 8)
    volumes = sheet.axes(_LEFT, split, right, bottom, sharex=prices)
    begins = span.begins(data.start_ms, data.stop_ms)
    start_ms, stop_ms = begins[0], span.end(begins[-1])
    prices.set_xlim(start_ms, stop_ms)
    ms_of_px = (stop_ms - start_ms) / (right - _LEFT)
    _shade_gaps(sheet, (prices, volumes), data.gaps, ms_of_px)
    _draw_bars(sheet, prices, volumes, bars, span)
    _draw_axes(sheet, prices, volumes, data, bars, (start_ms, stop_ms))


def _draw_legend(sheet: Drawing, gaps: list[AbsentCandles]) -> float:
    """Draw the reasons of the gaps, and return the height in pixels."""
    from matplotlib.patches import Patch  # noqa: PLC0415 - optional

    entries = [
        (Patch(**_shade(sheet, total)), f"{total.candles:,} missing: {total.reason}")
        for total in gap_totals(gaps)
    ]
    return sheet.legend(entries, _LEFT)


def _shade(sheet: Drawing, total: GapTotal) -> dict[str, Any]:
    color = sheet.colours.gap if total.has_reason else sheet.colours.open_gap
    return {"facecolor": (color, 0.22), "hatch": _HATCHES[total.reason], "edgecolor": color, "linewidth": 0}


def _shade_gaps(sheet: Drawing, axes: Iterable[Any], gaps: list[AbsentCandles], ms_of_px: float) -> None:
    """Shade the ranges of absent candles, each at least _GAP_PX wide. SVG has their reasons as ids."""
    for name, each in zip(("prices", "volume"), axes, strict=True):
        for total in gap_totals(gaps):
            of_reason = [
                gap for gap in gaps if (gap.reason, gap.has_reason) == (total.reason, total.has_reason)
            ]
            for number, (low_ms, high_ms) in enumerate(_wide_ranges(of_reason, ms_of_px)):
                patch = each.axvspan(low_ms, high_ms, zorder=0.5, **_shade(sheet, total))
                patch.set_gid(f"gap-{total.reason}-{name}-{number}")


def _wide_ranges(gaps: list[AbsentCandles], ms_of_px: float) -> list[Range]:
    """Return the ranges of gaps, wide enough to be seen, and merged where they touch then."""
    least_ms = _GAP_PX * ms_of_px
    ranges = []
    for gap in gaps:
        more_ms = max(0.0, least_ms - (gap.stop_ms - gap.start_ms)) / 2
        ranges.append((int(gap.start_ms - more_ms), int(gap.stop_ms + more_ms)))
    return union(ranges)


def _draw_bars(sheet: Drawing, prices: Any, volumes: Any, bars: Bars, span: Span) -> None:
    from matplotlib.collections import LineCollection, PolyCollection  # noqa: PLC0415 - optional

    ends = np.array([span.end(int(begin_ms)) for begin_ms in bars.begins], np.float64)
    begins = bars.begins.astype(np.float64)
    middles, halves = (begins + ends) / 2, (ends - begins) * _BODY / 2
    is_up = bars.close >= bars.open
    low, high = float(bars.low.min()), float(bars.high.max())
    margin = (high - low) * 0.04 or abs(low) * 0.01 or 1.0
    prices.set_ylim(low - margin, high + margin)
    volumes.set_ylim(0, float(bars.volume.max()) * 1.08 or 1.0)
    # A body without a height would be invisible.
    least = (high - low + 2 * margin) / sheet.look.height
    for name, chosen, color in (("up", is_up, sheet.colours.up), ("down", ~is_up, sheet.colours.down)):
        if not chosen.any():
            continue
        x, half = middles[chosen], halves[chosen]
        bottom = np.minimum(bars.open, bars.close)[chosen]
        top = np.maximum(np.maximum(bars.open, bars.close)[chosen], bottom + least)
        wicks = LineCollection(
            list(zip(zip(x, bars.low[chosen], strict=True), zip(x, bars.high[chosen], strict=True), strict=True)),
            colors=color, linewidths=0.9, zorder=2,
        )  # fmt: skip
        wicks.set_gid(f"wicks-{name}")
        prices.add_collection(wicks)
        bodies = PolyCollection(_boxes(x, half, bottom, top), facecolors=color, linewidths=0, zorder=3)
        bodies.set_gid(f"bodies-{name}")
        prices.add_collection(bodies)
        bought = bars.volume[chosen]
        columns = PolyCollection(
            _boxes(x, half, 0 * bought, bought), facecolors=(color, 0.55), linewidths=0, zorder=2
        )
        columns.set_gid(f"volume-{name}")
        volumes.add_collection(columns)


def _boxes(x: Any, half: Any, bottom: Any, top: Any) -> Any:
    """Return rectangles as an array of rectangle × corner × (x, y)."""
    corners = [(x - half, bottom), (x - half, top), (x + half, top), (x + half, bottom)]
    return np.stack([np.stack(corner, axis=-1) for corner in corners], axis=1)


def _draw_axes(
    sheet: Drawing, prices: Any, volumes: Any, data: ChartData, bars: Bars, range_ms: Range
) -> None:
    colours, look = sheet.colours, sheet.look
    ticks = time_ticks(*range_ms, max(2, (look.width - _LEFT - _RIGHT) // 90))
    for axes in (prices, volumes):
        axes.set_xticks([tick.at_ms for tick in ticks], [tick.label for tick in ticks])
        axes.yaxis.tick_right()
        axes.grid(color=colours.grid, linewidth=0.8, zorder=0)
        axes.set_axisbelow(True)
    keep_labels_inside(volumes)
    prices.tick_params(labelbottom=False)
    low, high = prices.get_ylim()
    marks = value_ticks(low, high, max(2, look.height // 70))
    prices.set_yticks([mark.value for mark in marks], [mark.label for mark in marks])
    most = float(bars.volume.max())
    volumes.set_yticks([most] if most else [], [format_amount(most)] if most else [])
    close = float(data.candles.close[-1])
    color = colours.up if bars.close[-1] >= bars.open[-1] else colours.down
    prices.axhline(close, color=color, linewidth=0.8, linestyle=(0, (2, 2)), zorder=1.5)
    prices.annotate(
        format_price(close), (1, close), xycoords=("axes fraction", "data"), xytext=(4, 0),
        textcoords="offset points", va="center", size=9, color=colours.background, weight="bold",
        bbox={"boxstyle": "square,pad=0.25", "facecolor": color, "linewidth": 0}, zorder=6, annotation_clip=False,
    )  # fmt: skip
