"""The figure of a plotted picture: matplotlib with the fonts and colours of a look.

Only this module and the plots import matplotlib, which is optional and slow to import.
"""

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO

from lakewriter import __version__
from lakewriter.errors import LakewriterError
from lakewriter.pictures.look import DPI, Colours, Look, colours_of

# Fonts in the order of their use: first one for text, then those that have Chinese symbols.
_FONTS = (
    "Inter", "Helvetica Neue", "Segoe UI", "Noto Sans", "DejaVu Sans",
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei",
    "PingFang SC", "Microsoft YaHei", "SimHei", "Droid Sans Fallback", "Unifont",
)  # fmt: skip

# The part of an axis in which a label would reach beyond its end.
_EDGE = 0.02

# Height of a line of the legend, and the width from which on text has its full size, in pixels.
_LEGEND_LINE_PX = 19.0
_FULL_TEXT_PX = 560

_MISSING_GLYPH = re.compile(r"Glyph (\d+)")

_logger = logging.getLogger(__name__)


class Drawing:
    """A figure and its colours.

    Args:
        look: the size and the background.
    """

    def __init__(self, look: Look) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - optional
        from matplotlib.figure import Figure  # noqa: PLC0415 - optional

        self.look = look
        self.colours: Colours = colours_of(look)
        self.figure: Any = Figure(
            figsize=(look.width / DPI, look.height / DPI), dpi=DPI, facecolor=self.colours.background
        )
        self._canvas: Any = FigureCanvasAgg(self.figure)

    def text(self, x_px: float, y_px: float, s: str, **options: Any) -> Any:
        """Write text at a place in pixels from the top left."""
        return self.figure.text(
            x_px / self.look.width, 1 - y_px / self.look.height, s, **{"va": "baseline"} | options
        )

    def right_px(self, text: Any) -> float:
        """Return the right edge of a text, in pixels."""
        return float(text.get_window_extent(self._canvas.get_renderer()).x1)

    def width_px(self, texts: Iterable[str], size: float) -> float:
        """Return the width of the widest text, in pixels."""
        widest = 0.0
        for text in texts:
            shown = self.text(0, 0, text, size=size)
            widest = max(widest, self.right_px(shown))
            shown.remove()
        return widest

    def title(self, left_px: float, parts: Sequence[Mapping[str, Any]], facts: Sequence[str]) -> None:
        """Write a title of several parts, and a line of facts below. Those without room are left out.

        Args:
            parts: the arguments of `text` for each part; the first one stays.
        """
        x_px, scale = left_px, 1.0 if self.look.width >= _FULL_TEXT_PX else 0.75
        for number, part in enumerate(parts):
            shown = self.text(x_px, 34, **{**part, "size": part["size"] * scale})
            if number and self.right_px(shown) > self.look.width:
                shown.remove()
                break
            x_px = self.right_px(shown) + 14 * scale
        for count in range(len(facts), 0, -1):
            shown = self.text(left_px, 56, "  ·  ".join(facts[:count]), size=9, color=self.colours.faint)
            if self.right_px(shown) <= self.look.width:
                break
            shown.remove()

    def axes(self, left: float, top: float, right: float, bottom: float, **options: Any) -> Any:
        """Return axes between margins in pixels from the edges; `top` and `bottom` count from the top."""
        width, height = self.look.width, self.look.height
        box = (left / width, 1 - bottom / height, (right - left) / width, (bottom - top) / height)
        axes = self.figure.add_axes(box, facecolor=self.colours.background, **options)
        for side in axes.spines.values():
            side.set_visible(False)
        axes.tick_params(length=0, colors=self.colours.faint, labelsize=9)
        return axes

    def legend(self, entries: Sequence[tuple[Any, str]], left_px: float) -> float:
        """Draw a legend of patches at the bottom, and return its height in pixels.

        Args:
            entries: each patch with its label.
            left_px: the left edge.
        """
        longest = max((len(label) for _, label in entries), default=0)
        columns = max(1, int((self.look.width - 2 * left_px) // (longest * 6 + 56)))
        height_px = -(-len(entries) // columns) * _LEGEND_LINE_PX
        if not entries:
            return 0.0
        self.figure.legend(
            [handle for handle, _ in entries],
            [label for _, label in entries],
            loc="upper left",
            bbox_to_anchor=(left_px / self.look.width, (height_px + 8) / self.look.height),
            ncols=columns,
            frameon=False,
            fontsize=9,
            labelcolor=self.colours.faint,
            borderpad=0,
            borderaxespad=0,
            handlelength=1.4,
            handleheight=0.9,
            columnspacing=1.6,
        )
        return height_px

    def save(self, out: BinaryIO, format_name: str, title: str) -> None:
        """Write the picture to a stream. The same candles make the same bytes.

        Args:
            title: the title in the file's metadata.
        """
        metadata = {
            "Title": title,
            ("Software" if format_name == "png" else "Creator"): f"lakewriter {__version__}",
        }
        if format_name == "svg":
            metadata["Date"] = None  # type: ignore[assignment]
        whole = io.BytesIO()  # matplotlib seeks in a PNG, and a pipe cannot
        self.figure.savefig(whole, format=format_name, dpi=DPI, metadata=metadata)
        out.write(whole.getvalue())


def keep_labels_inside(axes: Any) -> None:
    """Align the label of a time next to the left edge so that it is not cut."""
    left, right = axes.get_xlim()
    for tick in axes.xaxis.get_major_ticks():
        if tick.get_loc() - left < (right - left) * _EDGE:
            tick.label1.set_horizontalalignment("left")


@contextlib.contextmanager
def drawing(look: Look) -> Iterator[Drawing]:
    """Yield a new figure, with matplotlib's settings for it.

    Raises:
        LakewriterError: if matplotlib is not installed.
    """
    try:
        import matplotlib as mpl  # noqa: PLC0415 - optional
        from matplotlib import font_manager  # noqa: PLC0415 - optional
    except ImportError:
        raise LakewriterError(
            "output: matplotlib is not installed", "pip install 'lakewriter[charts]', or leave out -o"
        ) from None
    available = {font.name for font in font_manager.fontManager.ttflist}
    colours = colours_of(look)
    settings: Any = {
        "font.family": [name for name in _FONTS if name in available] or ["sans-serif"],
        "font.size": 10,
        "text.color": colours.text,
        "text.parse_math": False,
        "hatch.linewidth": 0.7,
        # Text stays text: it can be searched and copied, and the file is small.
        "svg.fonttype": "none",
        "svg.hashsalt": "lakewriter",
        "path.simplify": True,
        "timezone": "UTC",
    }
    with _glyphs_logged(), mpl.rc_context(settings):
        yield Drawing(look)


@contextlib.contextmanager
def _glyphs_logged() -> Iterator[None]:
    """Log the characters that no font has in one line, in place of a warning for each."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    missing = set()
    for each in caught:
        found = _MISSING_GLYPH.match(str(each.message))
        if found:
            missing.add(chr(int(found[1])))
        else:
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)
    if missing:
        _logger.warning(
            "output: no font of this machine has %s; install one, such as fonts-noto-cjk",
            " ".join(sorted(missing)),
        )
