"""How a query fails: the engine's errors as ours, in one clean line.

DuckDB raises its own classes while it binds and runs, and plain OSError or
Arrow errors while its rows are fetched; all of them carry the same text.
"""

import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa

from lakewriter.errors import LakeError, LakewriterError

# What running or fetching a query can raise; RuntimeError is an interrupt.
ENGINE_ERRORS = (duckdb.Error, OSError, pa.ArrowException, RuntimeError)

# "Binder Error: …", "INTERRUPT Error: …"
_KIND = re.compile(r"^([A-Za-z -]+) Error: ")

# Kinds that no file can cause, unless their text names one.
_KINDS_OF_SQL = frozenset(
    ["Parser", "Syntax", "Binder", "Catalog", "Conversion", "Out of Range", "Out of Memory", "INTERRUPT"]
)

# Of these, kinds that a file read half old, half new can cause as well.
_KINDS_OF_VALUES = frozenset(["Conversion", "Out of Range"])

# DuckDB and Python, of a file that was listed and is no longer there.
_GONE = ("No such file or directory", "No files found that match the pattern")

# The engine says so of a name that it takes for a pattern.
_UNMATCHED = re.compile(r'No files found that match the pattern ("[^"]*")')

_PATH = re.compile(r'"([^"]*)"')

# A name that no column has, and that looks like text rather than like a column.
_TEXT_TAKEN_FOR_A_NAME = re.compile(r'Referenced column "([^"]*[A-Z0-9-][^"]*)" (?:was )?not found')

# A length of time, as 15m, that stands without quotes.
_LENGTH_BEGUN = re.compile(r'syntax error at or near "(mo|[smhdwM])"')

# What other sources of candles call our columns.
_COLUMNS_ELSEWHERE = {
    **dict.fromkeys(("time", "timestamp", "datetime", "ts", "open_time", "begin_time"), "candle_begin_time"),
    **dict.fromkeys(("close_time", "end_time"), "candle_end_time"),
    **dict.fromkeys(("price", "last"), "close"),
    **dict.fromkeys(("trades", "count", "num_trades"), "trade_num"),
    **dict.fromkeys(("ticker", "pair", "instrument"), "symbol"),
    **dict.fromkeys(("exchange", "venue"), "market"),
    **dict.fromkeys(("timeframe", "tf", "freq", "resolution"), "interval"),
}
_COLUMN_ELSEWHERE = re.compile(r'Referenced column "(\w+)" (?:was )?not found')

_HINT_LINES_MAX = 4


class QueryError(LakewriterError):
    """The SQL is broken, may not be run, or failed while it ran."""


class FileReplacedError(LakeError):
    """A file was replaced before all of it was read. List again, and hold it."""


class FileGoneError(FileReplacedError):
    """A file that was listed is gone: compaction folded it. List again.

    Args:
        path: of the file; "" if it is not known.
    """

    def __init__(self, what: str, path: str) -> None:
        super().__init__(what, "files kept vanishing; try again when compaction is done")
        self.path = path


class UnreadableAsIsError(LakewriterError):
    """Own files that the engine cannot read as they stand. Read them as foreign ones.

    Args:
        names: which, relative to the root.
        error: what to say if that does not help.
    """

    def __init__(self, names: frozenset[str], error: LakewriterError) -> None:
        super().__init__(error.what, error.hint)
        self.names = names
        self.error = error


def as_lakewriter_error(error: Exception, root: Path) -> LakewriterError:
    """Return the engine's error as one of ours.

    Args:
        error: one of ENGINE_ERRORS.
        root: the lake's root; an error that names a path below it is the lake's.
    """
    text = _KIND.sub("", str(error)).strip()
    first, *rest = [line for line in text.splitlines() if line.strip()] or [type(error).__name__]
    if isinstance(error, OSError) and error.filename:
        first = f"{error.filename}: {error.strerror}"
    gone = isinstance(error, FileNotFoundError) or any(words in text for words in _GONE)
    if gone and isinstance(error, duckdb.IOException | OSError):
        first = _UNMATCHED.sub(r"Cannot open file \1: No such file or directory", first)
        named = _PATH.search(first)
        return FileGoneError(
            f"lake: {first}", str(getattr(error, "filename", None) or (named[1] if named else ""))
        )
    if isinstance(error, PermissionError) or "Permission denied" in first:
        return LakeError(f"lake: {first}", f"ask as who records, or let others read it: chmod -R a+rX {root}")
    if names_a_file(error, root):
        return LakeError(f"lake: {first}", "if the file is not ours, move it out of the lake")
    text_in_quotes = _TEXT_TAKEN_FOR_A_NAME.match(first)
    if text_in_quotes:
        rest = [f"text stands in single quotes: '{text_in_quotes[1]}'", *rest]
    rest = [*_advice(first, rest), *rest]
    # The caret below its line must stay below it when the hint is indented.
    return QueryError(f"sql: {first}", "\n  ".join(rest[:_HINT_LINES_MAX]))


def file_gone_error(path: str) -> FileGoneError:
    """Return the error for a file that was listed and is no longer there."""
    return FileGoneError(f"lake: {path}: {os.strerror(errno.ENOENT)}", path)


def _advice(first: str, rest: list[str]) -> Iterator[str]:
    """Yield what the engine cannot know: how lengths and columns are written here."""
    length = _LENGTH_BEGUN.match(first)
    written = re.search(rf"(?<![\w'])\d+{length[1]}\b", " ".join(rest)) if length else None
    if written:
        yield f"text stands in single quotes: '{written[0]}'"
    column = _COLUMN_ELSEWHERE.match(first)
    ours = _COLUMNS_ELSEWHERE.get(column[1].lower()) if column else None
    if ours:
        yield f"the column is called {ours} here"


def names_a_file(error: Exception, root: Path) -> bool:
    """Tell whether an engine's error is about a file of the lake."""
    return f"{root}/" in str(error)


def is_fault_of_sql(error: Exception, root: Path) -> bool:
    """Tell whether no file can have caused an engine's error."""
    kind = _KIND.match(str(error))
    return kind is not None and kind[1] in _KINDS_OF_SQL and not names_a_file(error, root)


def is_about_values(error: Exception) -> bool:
    """Tell whether an engine's error came of what is in the rows."""
    kind = _KIND.match(str(error))
    return kind is not None and kind[1] in _KINDS_OF_VALUES
