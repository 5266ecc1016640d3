"""The errors of a query, and the translation of DuckDB's errors into them.

DuckDB raises its own classes while it binds and runs a statement. It raises OSError
or Arrow errors while rows are fetched. The text is the same in both cases.
"""

import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa

from lakewriter.errors import LakeError, LakewriterError

# The errors that running or fetching can raise; RuntimeError is an interrupt.
ENGINE_ERRORS = (duckdb.Error, OSError, pa.ArrowException, RuntimeError)

# "Binder Error: …", "INTERRUPT Error: …"
_KIND = re.compile(r"^([A-Za-z -]+) Error: ")

# Kinds of errors that no file causes, unless the text names a file.
_KINDS_OF_SQL = frozenset(
    ["Parser", "Syntax", "Binder", "Catalog", "Conversion", "Out of Range", "Out of Memory", "INTERRUPT"]
)

# Kinds of errors that report a bug in DuckDB.
_KINDS_OF_ENGINE = frozenset(["INTERNAL", "FATAL"])

# The kinds in _KINDS_OF_SQL that a file can cause too, if it is replaced during the read.
_KINDS_OF_VALUES = frozenset(["Conversion", "Out of Range"])

# DuckDB's and Python's texts for a missing file.
_GONE = ("No such file or directory", "No files found that match the pattern")

# DuckDB's text for a missing file whose name it treats as a pattern.
_UNMATCHED = re.compile(r'No files found that match the pattern ("[^"]*")')

_PATH = re.compile(r'"([^"]*)"')

# An unknown column whose name looks like text in double quotes.
_TEXT_TAKEN_FOR_A_NAME = re.compile(r'Referenced column "([^"]*[A-Z0-9-][^"]*)" (?:was )?not found')

# A duration without quotes, such as 15m.
_UNQUOTED_DURATION = re.compile(r'syntax error at or near "(mo|[smhdwM])"')

# A time of a candle that is compared with a number or a text.
_NUMBER_OR_TEXT = "(BIGINT|INTEGER|UBIGINT|HUGEINT|DOUBLE|VARCHAR)"
_TIME_BESIDE_OTHER = re.compile(
    r"Cannot compare values of type (?:"
    rf"TIMESTAMP WITH TIME ZONE and type {_NUMBER_OR_TEXT}|{_NUMBER_OR_TEXT} and type TIMESTAMP WITH TIME ZONE)"
)
_NUMBER_AS_TIME = "to_timestamp(t.time / 1000) is a time from milliseconds since 1970"
_TEXT_AS_TIME = "t.time::TIMESTAMPTZ is a time; strptime(t.time, '%d/%m/%Y %H:%M') reads other forms"

# A text that is neither a time nor a duration.
_NO_DURATION = re.compile(
    r"""Could not convert string '.*' to INTERVAL|extract specifier ".*" not recognized"""
)

# The column names of other sources of candles → the names in this lake.
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
    """The SQL is invalid or not allowed, or it failed while it ran."""


class FileReplacedError(LakeError):
    """A file was replaced before it was read completely. The retry lists again and holds files open."""


class FileGoneError(FileReplacedError):
    """A listed file is missing, because compaction folded it. The retry lists again.

    Args:
        path: the file's path; "" if unknown.
    """

    def __init__(self, what: str, path: str) -> None:
        super().__init__(what, "files kept vanishing; try again when compaction is done")
        self.path = path


class UnreadableAsIsError(LakewriterError):
    """The engine cannot read some own files. The retry reads them as foreign files.

    Args:
        names: the files' names, relative to the root.
        error: the error to raise if the retry fails too.
    """

    def __init__(self, names: frozenset[str], error: LakewriterError) -> None:
        super().__init__(error.what, error.hint)
        self.names = names
        self.error = error


def as_lakewriter_error(error: Exception, root: Path) -> LakewriterError:
    """Return an engine's error as a LakewriterError.

    Args:
        error: an instance of ENGINE_ERRORS.
        root: the lake's root. An error that names a path below it becomes a LakeError.
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
        return LakeError(
            f"lake: {first}", f"run this as the user who records, or let others read: chmod -R a+rX {root}"
        )
    if names_a_file(error, root):
        return LakeError(f"lake: {first}", "if the file is not ours, move it out of the lake")
    text_in_quotes = _TEXT_TAKEN_FOR_A_NAME.match(first)
    if text_in_quotes:
        rest = [f"put text in single quotes: '{text_in_quotes[1]}'", *rest]
    rest = [*_hints(first, rest), *rest]
    # The hint is indented; the caret has to stay below its line.
    return QueryError(f"sql: {first}", "\n  ".join(rest[:_HINT_LINES_MAX]))


def file_gone_error(path: str) -> FileGoneError:
    """Return the error for a listed file that is missing."""
    return FileGoneError(f"lake: {path}: {os.strerror(errno.ENOENT)}", path)


def _hints(first: str, rest: list[str]) -> Iterator[str]:
    """Yield hints about durations, times and column names, which DuckDB cannot know."""
    duration = _UNQUOTED_DURATION.match(first)
    written = re.search(rf"(?<![\w'])\d+{duration[1]}\b", " ".join(rest)) if duration else None
    if written:
        yield f"put text in single quotes: '{written[0]}'"
    if _NO_DURATION.match(first):
        yield "a time is 2024-06-30, 2024-06-30 12:00, or an age such as 7d; a bucket is 15m, 1h, 1d or 1mo"
    beside = _TIME_BESIDE_OTHER.match(first)
    if beside:
        yield _TEXT_AS_TIME if "VARCHAR" in beside.groups() else _NUMBER_AS_TIME
    column = _COLUMN_ELSEWHERE.match(first)
    ours = _COLUMNS_ELSEWHERE.get(column[1].lower()) if column else None
    if ours:
        yield f"the column is called {ours} here"


def names_a_file(error: Exception, root: Path) -> bool:
    """Return whether an engine's error names a file of the lake."""
    return f"{root}/" in str(error)


def is_fault_of_sql(error: Exception, root: Path) -> bool:
    """Return whether the SQL alone caused an engine's error."""
    kind = _KIND.match(str(error))
    return kind is not None and kind[1] in _KINDS_OF_SQL and not names_a_file(error, root)


def is_fault_of_engine(error: Exception) -> bool:
    """Return whether an error means that the engine may be broken."""
    kind = _KIND.match(str(error))
    return kind is not None and kind[1] in _KINDS_OF_ENGINE


def is_about_values(error: Exception) -> bool:
    """Return whether values in the rows caused an engine's error."""
    kind = _KIND.match(str(error))
    return kind is not None and kind[1] in _KINDS_OF_VALUES
