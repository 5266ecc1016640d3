"""Columns of text → doubles, whatever marks the decimals. Pure.

Rule 1: one file writes all its numbers alike: with a decimal point, with a
decimal comma, or with commas between thousands. Rule 2: if two readings fit all
of them, or none does, the file is refused: a number is never wrong by 1000.
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

# What a thousand looks like where a comma marks the decimals, and a number that is none.
_DOTTED = r"^[1-9]\d{0,2}(?:\.\d{3})+$"
_DOT_OR_LONG = r"\.|\d{4}"

# Tools that write a decimal comma put other characters between values.
_COMMA_SEPARATORS = (";", "\t", "|", " ")


class TextNumbers:
    """Numbers in text.

    Args:
        columns: arrays of trimmed text or null, by the names of the columns.
        separator: between the values of the file; "" if it is no text file.

    Raises:
        LakewriterError: if the decimals of all of them cannot be told.
    """

    def __init__(self, columns: Mapping[str, pa.Array], separator: str = "") -> None:
        self._columns = columns
        self._decimals = self._sniff_decimals(separator)

    def doubles(self, name: str) -> tuple[pa.Array, BoolArray]:
        """Return a column's numbers, and which of its cells are none."""
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
        if all(_is_plain(each) for each in columns):
            if separator in _COMMA_SEPARATORS and self._may_be_thousands():
                raise _ambiguous(self._columns, _DOTTED)
            return "."
        like = [each.filter(pc.match_substring_regex(each, _LIKE)) for each in columns]
        fitting = [
            kind for kind, pattern in _PATTERNS.items() if all(_matches(each, pattern).all() for each in like)
        ]
        if "." in fitting:
            return "."
        if len(fitting) != 1:
            raise _ambiguous(self._columns, r"\d,\d")
        return fitting[0]

    def _may_be_thousands(self) -> bool:
        """Return whether each number with a point in it could be a whole number of thousands."""
        dotted = False
        for each in self._columns.values():
            telling = each.filter(pc.match_substring_regex(each, _DOT_OR_LONG)).drop_null()
            if not _matches(telling, _DOTTED).all():
                return False
            dotted = dotted or len(telling) > 0
        return dotted


_PATTERNS = {".": _PLAIN, ",": _COMMA, "thousands": _THOUSANDS}


def _with_decimal_point(text: pa.Array, decimals: str) -> pa.Array:
    """Return numbers with a decimal point, and nothing between thousands."""
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
                f"{name} has {found[0].as_py()!r}, whose decimals cannot be told from thousands",
                "write numbers with a decimal point and nothing between thousands",
            )
    return LakewriterError("has numbers whose decimals cannot be told from thousands")
