"""PIVOT without the values of its columns, such as `PIVOT … ON symbol USING last(close)`.

DuckDB would run such a statement as several ones, of which one creates a type. So
another statement finds the values first, and they become part of the text:
`ON (symbol) IN ('BTCUSDT', 'ETHUSDT')`. The guard checks both statements.

Strategy: DuckDB's tokenizer finds the parts of the text. A PIVOT whose parts are not
understood stays as it is, and the guard refuses it with a hint.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import duckdb

from lakewriter.query.errors import QueryError

# Maximum number of columns that one PIVOT makes of the values.
VALUES_MAX = 1_000

_PIVOT = re.compile(r"\bpivot(_wider)?\b", re.IGNORECASE)
_WORDS = frozenset(("PIVOT", "PIVOT_WIDER"))

# The clauses after ON.
_ENDS = frozenset(("USING", "GROUP", "ORDER", "LIMIT", "OFFSET", "UNION", "EXCEPT", "INTERSECT"))

# Words that make the source more than one table, or the column more than an expression.
_NOT_SIMPLE = frozenset(("JOIN", "ON", "USING", ","))

# Returns the values of one column, and raises the errors of a statement.
FindValues = Callable[[str], Sequence[str]]


class _Token(NamedTuple):
    """A token with its position in bytes.

    Args:
        word: the token in upper case; "" for a text or a number.
        depth: the number of open parentheses around it.
    """

    word: str
    start: int
    stop: int
    depth: int


class _Column(NamedTuple):
    """A column of a PIVOT without values: its position in bytes, and the text."""

    start: int
    stop: int
    text: str


class _Pivot(NamedTuple):
    """A PIVOT that lacks values.

    Args:
        before: the text that a statement about its source needs: a WITH clause, or nothing.
        source: the text of the source.
        columns: the columns without values.
    """

    before: str
    source: str
    columns: list[_Column]


def name_values(sql: str, find_values: FindValues) -> str:
    """Return a statement whose PIVOTs name their values.

    Args:
        find_values: returns the rows of a statement with one column of text.

    Raises:
        QueryError: if there are no values, or more than VALUES_MAX.
        the errors of `find_values`.
    """
    if not _PIVOT.search(sql):
        return sql
    try:
        text = sql.encode()
        pivots = list(_pivots(sql))
    except (UnicodeEncodeError, duckdb.Error):
        return sql  # the execution of the statement raises the error
    named = [
        (column, _named(column.text, find_values(_statement(pivot, column.text))))
        for pivot in pivots
        for column in pivot.columns
    ]
    for column, written in sorted(named, reverse=True):
        text = text[: column.start] + written.encode() + text[column.stop :]
    return text.decode()


def _named(column: str, values: Sequence[str]) -> str:
    if not values:
        raise QueryError(f"sql: PIVOT finds no value of {column}", "its source may have no rows")
    if len(values) > VALUES_MAX:
        raise QueryError(
            f"sql: PIVOT finds more than {VALUES_MAX:,} values of {column}",
            f"ON {column} IN ('…', '…') names some",
        )
    listed = ", ".join("'" + value.replace("'", "''") + "'" for value in values)
    return f"({column}) IN ({listed})"


def _statement(pivot: _Pivot, column: str) -> str:
    distinct = f"SELECT DISTINCT ({column}) AS value FROM {pivot.source}"  # noqa: S608 - the guard checks it
    ordered = f"FROM ({distinct}) WHERE value IS NOT NULL ORDER BY value LIMIT {VALUES_MAX + 1}"
    return f"{pivot.before} SELECT value::VARCHAR FROM ({ordered})"  # noqa: S608 - as above


def _pivots(sql: str) -> Iterator[_Pivot]:
    text = sql.encode()
    tokens = list(_tokens(sql))
    for at, token in enumerate(tokens):
        if token.word not in _WORDS:
            continue
        inside = _until(tokens[at + 1 :], token.depth, frozenset())
        source = _until(inside, token.depth, frozenset(("ON",)))
        rest = inside[len(source) + 1 :]
        if not source or not rest or any(_is_word(each, token.depth, _NOT_SIMPLE) for each in source):
            continue
        before = text[: token.start] if token.depth == 0 and tokens[0].word == "WITH" else b""
        columns = list(_columns(text, _until(rest, token.depth, _ENDS), token.depth))
        yield _Pivot(before.decode(), text[source[0].start : source[-1].stop].decode(), columns)


def _columns(text: bytes, listed: Sequence[_Token], depth: int) -> Iterator[_Column]:
    """Yield the columns without values in a list of columns."""
    while listed:
        column = _until(listed, depth, frozenset((",",)))
        listed = listed[len(column) + 1 :]
        words = [token.word for token in column if token.depth == depth]
        # An IN before END belongs to a CASE.
        if column and "IN" not in words[len(words) - words[::-1].index("END") if "END" in words else 0 :]:
            start, stop = column[0].start, column[-1].stop
            yield _Column(start, stop, text[start:stop].decode())


def _tokens(sql: str) -> Iterator[_Token]:
    """Yield the tokens of a statement, without comments."""
    text = sql.encode()
    found = duckdb.tokenize(sql)
    stops = [start for start, _ in found[1:]] + [len(text)]
    depth = 0
    for (start, kind), stop in zip(found, stops, strict=True):
        if kind == duckdb.token_type.comment:
            continue
        word = text[start:stop].decode().strip()
        if kind == duckdb.token_type.operator and word[:1] == ")":
            depth -= 1
        is_text = kind in (duckdb.token_type.string_const, duckdb.token_type.numeric_const)
        yield _Token("" if is_text else word.upper(), start, start + len(word.encode()), depth)
        if kind == duckdb.token_type.operator and word[:1] == "(":
            depth += 1


def _until(tokens: Sequence[_Token], depth: int, words: frozenset[str]) -> list[_Token]:
    """Return the tokens before one of the words at a depth, or before the end of the depth."""
    found = []
    for token in tokens:
        if token.depth < depth or _is_word(token, depth, words) or token.word == ";":
            break
        found.append(token)
    return found


def _is_word(token: _Token, depth: int, words: frozenset[str]) -> bool:
    return token.depth == depth and token.word in words
