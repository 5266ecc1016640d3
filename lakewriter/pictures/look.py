"""The look of pictures in files: size, colours and fonts, for a light and a dark background.

The colours differ for every kind of colour-blindness. Their source is Okabe and Ito,
"Color Universal Design", 2008.
"""

from typing import NamedTuple

# The formats of pictures, by their suffix.
FORMATS = ("png", "svg")

# Limits of the sides of a picture, in pixels.
SIDE_MIN = 200
SIDE_MAX = 8_000

# Pixels of an inch, so that text of 10 points is 14 pixels high.
DPI = 100


class Look(NamedTuple):
    """The look of a picture.

    Args:
        width, height: the size in pixels.
        dark: whether the background is dark.
    """

    width: int
    height: int
    dark: bool = False


class Colours(NamedTuple):
    """The colours of a picture.

    Args:
        background, text, faint, grid: of the page.
        up, down: of candles.
        gap, open_gap: of missing candles with a reason and without.
        never: of bins without expected candles.
        levels: of bins by the level of `heat`, from none to complete.
        open_levels: the same of bins with candles that are missing without a reason.
    """

    background: str
    text: str
    faint: str
    grid: str
    up: str
    down: str
    gap: str
    open_gap: str
    never: str
    levels: tuple[str, ...]
    open_levels: tuple[str, ...]


LIGHT = Colours(
    "#ffffff", "#1a1d21", "#6b7280", "#e8eaed", "#0072b2", "#d55e00", "#9aa1ab", "#e69f00", "#d4d7dc",
    ("#f3f8fd", "#dbe9f6", "#bad6eb", "#89bedc", "#539ecd", "#2b7bba", "#0b559f"),
    ("#7f2704", "#a63603", "#d94801", "#f16913", "#fd8d3c", "#fdae6b", "#fdd0a2"),
)  # fmt: skip
DARK = Colours(
    "#12161c", "#e6e8eb", "#8b949e", "#262c34", "#56b4e9", "#e8702a", "#6e7681", "#e69f00", "#3a414a",
    ("#0e1a28", "#0f2a44", "#123d63", "#175286", "#1f6aab", "#3187cc", "#56b4e9"),
    ("#ffc078", "#ffa94d", "#f08a24", "#d97614", "#b96416", "#99551a", "#7a4a1e"),
)  # fmt: skip


def colours_of(look: Look) -> Colours:
    """Return the colours of a look."""
    return DARK if look.dark else LIGHT
