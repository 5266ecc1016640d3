"""Parse columns of text into doubles, with any decimal mark. Pure.

Rule 1: all numbers of a file have the same format. The formats are a decimal point, a
decimal comma, and commas between thousands.
Rule 2: if two formats or none fit all numbers, the file is refused. So no number is wrong
by a factor of 1000.
"""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lakewriter.candle import BoolArray
from lakewriter.errors import LakewriterError

_EXPONENT = r"(?:[eE][+-]?\d+)?"
_PLAIN = rf"^[+-]?(?:\d+\.?\d*|\.\d+){_EXPONENT}$"
_COMMA = rf"^[+-]?(?:\d+|[1-9]\d{{0,2}}(?:\.\d{{3}})+)(?:,\d+)?{_EXPONENT}$"
_THOUSANDS = rf"^[+-]?(?:\d+|[1-9]\d{{0,2}}(?:,\d{{3}})+)(?:\.\d*)?{_EXPONENT}$"
_LIKE = rf"^[+-]?[\d.,]*\d[\d.,]*{_EXPONENT}$"

# A number whose points may separate thousands, and a number with a point or at least four digits.
_DOTTED = r"^[1-9]\d{0,2}(?:\.\d{3})+$"
_DOT_OR_LONG = r"\.|\d{4}"

# The separators in files with a decimal comma.
_COMMA_SEPARATORS = (";", "\t", "|", " ")


class TextNumbers:
    """Columns of numbers in text.

    Args:
        columns: arrays of trimmed text or null, by column name.
        separator: the separator of a text file's values; "" for other files.

    Raises:
        LakewriterError: if the decimal mark is ambiguous.
    """

    def __init__(self, columns: Mapping[str, pa.Array], separator: str = "") -> None:
        self._columns = columns
        self._decimals = self._sniff_decimals(separator)

    def doubles(self, name: str) -> tuple[pa.Array, BoolArray]:
        """Return a column's numbers, and whether each cell is not a number."""
        text = self._columns[name]
        try:
            return (_with_decimal_point(text, self._decimals)).cast(pa.float64()), np.zeros(
                len(text), np.bool_
            )
        except pa.ArrowInvalid:
            fits = _matches(text, _PATTERNS[self._decimals]) | text.is_null().to_numpy(zero_copy_only=False)
            cells = pc.if_else(pa.array(fits), text, None)
            return _with_decimal_point(cells, self._decimals).cast(pa.float64()), ~fits

    def _sniff_decimals(self, separator: str) -> str:
        columns = self._columns.values()
        if all(_is_plain(text) for text in columns):
            if separator in _COMMA_SEPARATORS and self._may_be_thousands():
                raise _ambiguous(self._columns, _DOTTED)
            return "."
        like = [text.filter(pc.match_substring_regex(text, _LIKE)) for text in columns]
        fitting = [
            kind for kind, pattern in _PATTERNS.items() if all(_matches(text, pattern).all() for text in like)
        ]
        if "." in fitting:
            return "."
        if len(fitting) != 1:
            raise _ambiguous(self._columns, r"\d,\d")
        return fitting[0]

    def _may_be_thousands(self) -> bool:
        """Return whether the points of all numbers could separate thousands."""
        dotted = False
        for text in self._columns.values():
            telling = text.filter(pc.match_substring_regex(text, _DOT_OR_LONG)).drop_null()
            if not _matches(telling, _DOTTED).all():
                return False
            dotted = dotted or len(telling) > 0
        return dotted


_PATTERNS = {".": _PLAIN, ",": _COMMA, "thousands": _THOUSANDS}


def _with_decimal_point(text: pa.Array, decimals: str) -> pa.Array:
    """Return numbers with a decimal point and without separators of thousands."""
    if decimals == ",":
        return pc.replace_substring(pc.replace_substring(text, ".", ""), ",", ".")
    return pc.replace_substring(text, ",", "") if decimals == "thousands" else text


def _is_plain(text: pa.Array) -> bool:
    try:
        text.cast(pa.float64())
    except pa.ArrowInvalid:
        return False
    return True


def _matches(text: pa.Array, pattern: str) -> BoolArray:
    found: BoolArray = pc.match_substring_regex(text, pattern).fill_null(False).to_numpy(zero_copy_only=False)
    return found


def _ambiguous(columns: Mapping[str, pa.Array], pattern: str) -> LakewriterError:
    for name, text in columns.items():
        found = text.filter(pc.match_substring_regex(text, pattern)).drop_null()
        if len(found):
            return LakewriterError(
                f"{name} has {found[0].as_py()!r}, whose decimal mark is ambiguous",
                "write numbers with a decimal point, and without separators of thousands",
            )
    return LakewriterError("has numbers whose decimal mark is ambiguous")
