"""A heat map of coverage as a picture: a row for each series, and a cell for each bin of time."""

from collections.abc import Callable, Sequence
from typing import Any, BinaryIO

import numpy as np

from lakewriter.lake.coverage.absences import SeriesAbsences
from lakewriter.pictures.canvas import cell_width
from lakewriter.pictures.figure import Drawing, drawing, keep_labels_inside
from lakewriter.pictures.heat import COMPLETE, LEVELS, NEVER, HeatMap, HeatRow, heat_map
from lakewriter.pictures.look import SIDE_MAX, Colours, Look
from lakewriter.pictures.timescale import format_time, time_ticks

# Height of a row, and the least height in which its name can be read, in pixels.
ROW_PX = 20
_ROW_PX_MIN = 9

# More cells than this are pixels in an SVG, too.
_VECTOR_CELLS_MAX = 4_000

# Width of a bin, in pixels.
_BIN_PX = 3

# The size of names in points. Only the longest names are measured, because it takes time.
_NAME_SIZE = 9.0
_MEASURED_MAX = 5

# Margins in pixels.
_LEFT, _RIGHT, _TOP, _BOTTOM = 24, 76, 78, 36


def default_size(series: int) -> tuple[int, int]:
    """Return the width and height in pixels of the picture of so many series."""
    return 1200, min(SIDE_MAX // 2, max(300, _TOP + _BOTTOM + 60 + series * ROW_PX))


def plot_heatmap(found: Sequence[SeriesAbsences], look: Look) -> Callable[[BinaryIO, str], None]:
    """Return a function that writes the heat map to a stream, in a format of `look.FORMATS`.

    Args:
        found: the series, at least one with expected candles.

    Raises:
        LakewriterError: if matplotlib is not installed.
    """

    def write(out: BinaryIO, format_name: str) -> None:
        with drawing(look) as sheet:
            longest = sorted((str(each.series) for each in found), key=cell_width)[-_MEASURED_MAX:]
            left = _LEFT + sheet.width_px(longest, _NAME_SIZE) + 10
            rows_max = max(1, (look.height - _TOP - _BOTTOM - 40) // _ROW_PX_MIN)
            heat = heat_map(found, max(10, int(look.width - left - _RIGHT) // _BIN_PX), rows_max)
            sheet.title(_LEFT, [{"s": "coverage", "size": 15, "weight": "bold"}], heat.facts("cell"))
            bottom = look.height - _BOTTOM - _draw_legend(sheet, heat)
            _draw(sheet, heat, left, min(bottom, _TOP + len(heat.rows) * 2 * ROW_PX))
            range_text = f"{format_time(heat.start_ms)} to {format_time(heat.stop_ms)} UTC"
            sheet.save(out, format_name, f"coverage, {range_text}")

    with drawing(look):  # an error before the file is opened
        pass
    return write


def _draw(sheet: Drawing, heat: HeatMap, left: float, bottom: float) -> None:
    axes = sheet.axes(left, _TOP, sheet.look.width - _RIGHT, bottom)
    count = len(heat.rows)
    edges = [*heat.begins, heat.span.end(heat.begins[-1])]
    cells = np.array([_row_colours(row, sheet.colours) for row in heat.rows])
    # An image has cells of one width. Months differ by a tenth, so their cells are drawn one by one.
    mesh = axes.pcolormesh(
        np.array(edges, np.float64),
        np.arange(count + 1),
        cells,
        rasterized=len(cells) * len(edges) > _VECTOR_CELLS_MAX,
    )
    mesh.set_gid("cells")
    axes.set_ylim(count, 0)
    axes.set_xlim(edges[0], edges[-1])
    row_px = (bottom - _TOP) / count
    if row_px >= _ROW_PX_MIN:
        for number in range(1, count):
            axes.axhline(number, color=sheet.colours.background, linewidth=1.5)
    size = max(5.5, min(_NAME_SIZE, row_px * 0.55))
    axes.set_yticks(
        [number + 0.5 for number in range(count)], [str(row.series) for row in heat.rows], size=size
    )
    axes.tick_params(axis="y", colors=sheet.colours.text, pad=6)
    ticks = time_ticks(edges[0], edges[-1], max(2, int(sheet.look.width - left - _RIGHT) // 90))
    axes.set_xticks([tick.at_ms for tick in ticks], [tick.label for tick in ticks])
    keep_labels_inside(axes)
    for number, row in enumerate(heat.rows):
        color = sheet.colours.down if row.without_reason else sheet.colours.faint
        axes.annotate(
            f"{row.percent:.2f} %", (1, number + 0.5), xycoords=("axes fraction", "data"), xytext=(6, 0),
            textcoords="offset points", va="center", size=size, color=color, annotation_clip=False,
        )  # fmt: skip


def _row_colours(row: HeatRow, colours: Colours) -> list[tuple[float, float, float]]:
    from matplotlib.colors import to_rgb  # noqa: PLC0415 - optional

    return [to_rgb(_colour(level, colours, is_open=is_open)) for level, is_open in zip(row.levels, row.open_bins, strict=True)]  # fmt: skip


def _colour(level: int, colours: Colours, *, is_open: bool) -> str:
    if level == NEVER:
        return colours.never
    return (colours.open_levels if is_open else colours.levels)[level]


def _draw_legend(sheet: Drawing, heat: HeatMap) -> float:
    """Draw the levels that occur, and return the height in pixels."""
    from matplotlib.patches import Patch  # noqa: PLC0415 - optional

    pairs = {pair for row in heat.rows for pair in zip(row.levels, row.open_bins, strict=True)}
    entries: list[tuple[Any, str]] = []
    for is_open in (False, True):
        for level in range(COMPLETE, -1, -1):
            if (level, is_open) in pairs:
                text = LEVELS[level][1]
                label = ("≥ " if text.endswith("%") else "") + text + (", no reason" if is_open else "")
                entries.append((_patch(Patch, _colour(level, sheet.colours, is_open=is_open), sheet), label))
        if not is_open and any(level == NEVER for level, _ in pairs):
            entries.append((_patch(Patch, sheet.colours.never, sheet), "never recorded"))
    return sheet.legend(entries, _LEFT)


def _patch(kind: Any, color: str, sheet: Drawing) -> Any:
    return kind(facecolor=color, edgecolor=sheet.colours.grid, linewidth=0.8)
