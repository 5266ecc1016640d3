"""Detect the dialect of a text file of candles: its header, separator and quotes. Pure.

Lines before the header are titles. Without a header, the first row must have a known
shape: six values as in ccxt, twelve as in REST, or a date, a time of day and five
values. Other files are refused.
"""

import csv
import re
from typing import NamedTuple

from lakewriter.errors import LakewriterError
from lakewriter.importer.column_names import is_header

# The maximum number of lines up to the header or the first row.
LINES_MAX = 20
LINE_BYTES_MAX = 1 << 16

_SEPARATORS = (",", ";", "\t", "|", " ")
_SAMPLE_ROWS = 5
_SHOWN_MAX = 80

OHLCV = ["open_time", "open", "high", "low", "close", "volume"]
REST = [
    *OHLCV, "close_time", "quote_volume", "trade_num", "taker_buy_base_asset_volume",
    "taker_buy_quote_asset_volume", "ignore",
]  # fmt: skip
_CLOCKED = ["date", "time", *OHLCV[1:]]

_TIME = re.compile(r"\d{9,19}(?:\.0*)?|\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}(?:[T ].*)?|\d{8}(?:[T ]\d{4,6})?")
_CLOCK = re.compile(r"\d{1,2}:\d{2}(?::\d{2})?")
_NUMBER = re.compile(r"[+-]?[\d.,]*\d[\d.,]*(?:[eE][+-]?\d+)?|nan|null|none|", re.IGNORECASE)


class Dialect(NamedTuple):
    """The dialect of a text file.

    Args:
        names: the names of its columns, as the file spells them; lakewriter's names without
            a header.
        separator, quote: one character each.
        body_at: the position of the first byte after the header.
        first_line: the number of the line at `body_at`, from 1.
        header: the line of the header; empty without a header.
    """

    names: list[str]
    separator: str
    quote: str
    body_at: int
    first_line: int
    header: bytes = b""


def sniff(data: bytes) -> Dialect:
    """Return the dialect of a text.

    Args:
        data: UTF-8; lines end in line feeds.

    Raises:
        LakewriterError: if none of the first LINES_MAX lines is a header or a row of candles.
    """
    at, before = 0, ""
    for number, line in enumerate(_lines(data), 1):
        after = at + len(line) + 1
        text = line.decode(errors="replace").strip(" ")
        if (named := _header(text)) is not None:
            names, separator, quote = named
            names = _padded_names(names, data[after:], separator, quote)
            return Dialect(names, separator, quote, min(after, len(data)), number + 1, line)
        if text and not text.startswith("#"):
            if (row := _headerless(text)) is not None:
                _refuse_unknown_header(before, *row)
                return Dialect(*row, '"', at, number)
            before = text
        at = after
    shown = data[:_SHOWN_MAX].decode(errors="replace").partition("\n")[0]
    raise LakewriterError(
        f"not a CSV of candles: no header with open, high, low, close, and no row of candles; "
        f"it begins {shown!r}"
    )


def _lines(data: bytes) -> list[bytes]:
    return data[: LINE_BYTES_MAX * 2].split(b"\n", LINES_MAX)[:LINES_MAX]


def _cells(text: str, separator: str, quote: str) -> list[str]:
    if separator == " ":
        text = re.sub(" +", " ", text.strip())
    try:
        cells = next(csv.reader([text], delimiter=separator, quotechar=quote), [])
    except csv.Error:
        return []
    return [cell.strip() for cell in cells]


def _header(text: str) -> tuple[list[str], str, str] | None:
    text = text.lstrip("#").strip(" ")
    quote = "'" if text.startswith("'") else '"'
    for separator in _SEPARATORS:
        if (numbered := _numbered(_cells(text, separator, quote))) is not None:
            return numbered, separator, quote
    found = [
        (cells, separator) for separator in _SEPARATORS if is_header(cells := _cells(text, separator, quote))
    ]
    if not found:
        return None
    cells, separator = max(found, key=lambda each: len(each[0]))
    return cells, separator, quote


def _refuse_unknown_header(line: str, names: list[str], separator: str) -> None:
    """Check that the line before the first row is not a header with unknown names.

    Raises:
        LakewriterError: if the line has as many cells as the row.
    """
    cells = _cells(line, separator, '"')
    if len(cells) == len(names):
        raise LakewriterError(
            f"not a CSV of candles: its header names no open, high, low, close: {line[:_SHOWN_MAX]!r}",
            "open_time,open,high,low,close,volume as header",
        )


def _numbered(cells: list[str]) -> list[str] | None:
    """Return the names for columns that pandas numbered; None for other columns."""
    index = cells[:1] == [""]
    numbers = cells[index:]
    for names in (OHLCV, REST):
        if numbers == [str(number) for number in range(len(names))]:
            return [""] * index + names
    return None


def _headerless(text: str) -> tuple[list[str], str] | None:
    for separator in _SEPARATORS:
        cells = _cells(text, separator, '"')
        if len(cells) < len(OHLCV) - 1 or not _TIME.fullmatch(cells[0]):
            continue
        if len(cells) == len(_CLOCKED) and _CLOCK.fullmatch(cells[1]) and _are_numbers(cells[2:]):
            return _CLOCKED, separator
        if not _are_numbers(cells[1:6]):
            continue
        if len(cells) == len(OHLCV):
            return OHLCV, separator
        if len(cells) >= len(REST) and _TIME.fullmatch(cells[6]) and _are_numbers(cells[7:11]):
            return [*REST, *("" for _ in cells[len(REST) :])], separator
        raise LakewriterError(
            f"has no header, and its rows have {len(cells)} values, not 6 or 12",
            "write a header line: open_time,open,high,low,close,volume",
        )
    return None


def _are_numbers(cells: list[str]) -> bool:
    return all(_NUMBER.fullmatch(cell) for cell in cells)


def _padded_names(names: list[str], rest: bytes, separator: str, quote: str) -> list[str]:
    """Return the names, padded or cut to the width of the first rows.

    R writes row names in a first column without a name. Other tools end rows, or only the
    header, with a separator.
    """
    lines = [line.decode(errors="replace") for line in _lines(rest)]
    rows = [_cells(line, separator, quote) for line in lines if line.strip() and not line.startswith("#")]
    widths = {len(row) for row in rows[:_SAMPLE_ROWS]}
    if len(widths) != 1:
        return names
    extra = widths.pop() - len(names)
    if extra == 1:
        trailing = not any(row[-1] for row in rows[:_SAMPLE_ROWS])
        return [*names, ""] if trailing else ["", *names]
    if extra < 0 and not any(names[extra:]):
        return names[:extra]
    return names
