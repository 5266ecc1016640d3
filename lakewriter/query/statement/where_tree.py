"""The WHERE of a simple statement, read from its syntax tree.

A simple statement is one SELECT from `candles` alone, whose WHERE compares the
columns of paths and the times with constants. A row that fails one of the joined
conditions cannot change its answer. So these conditions select the partitions, and
the statement needs no run without rows (see `scan.pushdown`).

Strategy: every condition has to be understood, or compare other columns only. Any
doubt makes a statement not simple, which costs time, but never makes an answer wrong.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from itertools import chain
from typing import Any, NamedTuple

from lakewriter.query.engine import nodes
from lakewriter.query.statement.shape import (
    PATH_COLUMNS,
    SELECTING,
    SERIES_COLUMNS,
    UnclearError,
    alias_of_only_table,
    column_of,
    needs_ends_only,
)

_OPERATORS = {
    "COMPARE_EQUAL": "=",
    "COMPARE_NOTEQUAL": "<>",
    "COMPARE_LESSTHAN": "<",
    "COMPARE_GREATERTHAN": ">",
    "COMPARE_LESSTHANOREQUALTO": "<=",
    "COMPARE_GREATERTHANOREQUALTO": ">=",
}
_MIRRORED = {"=": "=", "<>": "<>", "<": ">", ">": "<", "<=": ">=", ">=": "<="}
_LIKES = {"~~": "like", "!~~": "not like"}

# DuckDB reads these texts as Python does. It reads other ones too.
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}([ T]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?(Z|[+-]\d{2}(:\d{2})?)?)?")
_ZONED_TYPES = frozenset(("TIMESTAMPTZ", "TIMESTAMP WITH TIME ZONE"))

# Python's matching of a text takes a time that grows with the power of their number.
_WILDCARDS_MAX = 3

_MICROSECOND = timedelta(microseconds=1)


class Constant(NamedTuple):
    """A text, and the type to which the statement casts it; "" without a cast."""

    text: str
    type: str = ""


class NamedParameter(NamedTuple):
    """The value of a statement's $name."""

    name: str


Value = Constant | NamedParameter
Params = Mapping[str, Any]


class ColumnComparison(NamedTuple):
    """A column, an operator, and the values that it is compared with: one, or several for "in"."""

    column: str
    operator: str
    values: tuple[Value, ...]


class Combination(NamedTuple):
    """Conditions on one column of paths, which "and", "or" or "not" combines."""

    operator: str
    parts: tuple["Condition", ...]

    @property
    def column(self) -> str:
        """The column that all parts compare."""
        return self.parts[0].column


Condition = ColumnComparison | Combination
Test = Callable[[str], bool]


class BoundWhere(NamedTuple):
    """The conditions on partitions, with the values of parameters.

    Args:
        tests: level of the path → tests that a name has to pass.
        equal: level → names of which a row has to have one; levels without such names are absent.
        since, until: the first and the last day that can have rows; None is open.
    """

    tests: dict[str, list[Test]]
    equal: dict[str, frozenset[str]]
    since: date | None
    until: date | None


class SimpleWhere(NamedTuple):
    """The conditions of a simple statement that select partitions.

    Args:
        conditions: conditions that each row of the answer passes.
        statement: the statement's syntax tree.
        columns: for each part of the WHERE, the columns of its conditions; empty if it has none.
        needs_ends: whether the first and the last partition of each selected series suffice.
    """

    conditions: tuple[Condition, ...]
    statement: dict[str, Any]
    columns: tuple[frozenset[str], ...]
    needs_ends: bool = False

    def bind(self, params: Params) -> BoundWhere | None:
        """Return the conditions with values; None if a value is no plain text or time."""
        bound = BoundWhere({}, {}, None, None)
        try:
            for condition in self.conditions:
                if condition.column in SERIES_COLUMNS:
                    bound.tests.setdefault(condition.column, []).append(_test(condition, params))
                    if isinstance(condition, ColumnComparison) and condition.operator in ("=", "in"):
                        names = frozenset(_text(value, params) for value in condition.values)
                        bound.equal[condition.column] = names & bound.equal.get(condition.column, names)
                else:
                    bound = _within(bound, condition, params)
        except UnclearError:
            return None
        return bound

    def without(self, columns: frozenset[str]) -> dict[str, Any] | None:
        """Return the statement's tree without conditions on some columns; None if it has none of them."""
        node = self.statement["node"]
        if node["where_clause"] is None:
            return None
        parts = _parts(node["where_clause"])
        left = [
            part
            for part, compared in zip(parts, self.columns, strict=True)
            if not compared or not compared <= columns
        ]
        if len(left) == len(parts):
            return None
        where = left[0] if len(left) == 1 else {**node["where_clause"], "children": left}
        return {**self.statement, "node": {**node, "where_clause": where if left else None}}


def read_where(statement: dict[str, Any]) -> SimpleWhere | None:
    """Return the conditions of a statement that select partitions; None if it is not simple.

    Args:
        statement: the statement's syntax tree, as DuckDB prints it.
    """
    try:
        node = statement["node"]
        alias = alias_of_only_table(node)
        where = node["where_clause"]
        read = [] if where is None else [_read_part(part, alias) for part in _parts(where)]
        columns = tuple(frozenset(condition.column for condition in part) for part in read)
        needs_ends = all(each and each <= PATH_COLUMNS for each in columns) and needs_ends_only(node, alias)
        # The engine may push down the conditions of HAVING and QUALIFY too.
        if not needs_ends and (where is None or node["having"] is not None or node["qualify"] is not None):
            return None
    except (UnclearError, LookupError, TypeError):
        return None
    return SimpleWhere(tuple(chain.from_iterable(read)), statement, columns, needs_ends)


def _parts(where: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the conditions that AND joins at the top of a WHERE."""
    return where["children"] if where["type"] == "CONJUNCTION_AND" else [where]


def _read_part(part: dict[str, Any], alias: str) -> list[Condition]:
    """Return the conditions of one part of a WHERE; none if it compares other columns only."""
    try:
        return list(_condition(part, alias))
    except UnclearError:
        columns = [column_of(each, alias) for each in nodes(part) if each.get("class") == "COLUMN_REF"]
        if not columns or not SELECTING.isdisjoint(columns):
            raise
        return []


def _condition(node: dict[str, Any], alias: str) -> Iterator[Condition]:
    """Yield the conditions of one part of a WHERE. A row passes the part if it passes all of them."""
    kind = node["type"]
    if kind == "COMPARE_BETWEEN":
        column = _selecting_column(node["input"], alias)
        yield ColumnComparison(column, ">=", (_value(node["lower"]),))
        yield ColumnComparison(column, "<=", (_value(node["upper"]),))
    elif kind in _OPERATORS:
        left, right, operator = node["left"], node["right"], _OPERATORS[kind]
        if left["class"] != "COLUMN_REF":
            left, right, operator = right, left, _MIRRORED[operator]
        yield ColumnComparison(_selecting_column(left, alias), operator, (_value(right),))
    elif kind in ("COMPARE_IN", "COMPARE_NOT_IN"):
        first, *others = node["children"]
        column = _selecting_column(first, alias)
        found = ColumnComparison(column, "in", tuple(map(_value, others)))
        yield found if kind == "COMPARE_IN" else _combined("not", [found])
    elif kind == "FUNCTION" and node["function_name"] in _LIKES:
        text, pattern = (argument["expression"] for argument in node["arguments"])
        column = _selecting_column(text, alias)
        yield ColumnComparison(column, _LIKES[node["function_name"]], (_value(pattern),))
    elif kind in ("CONJUNCTION_AND", "CONJUNCTION_OR", "OPERATOR_NOT"):
        parts = [_combined("and", list(_condition(child, alias))) for child in node["children"]]
        yield _combined({"CONJUNCTION_AND": "and", "CONJUNCTION_OR": "or"}.get(kind, "not"), parts)
    else:
        raise UnclearError


def _combined(operator: str, parts: list[Condition]) -> Condition:
    """Return a combination of conditions on one level. Names are never null, so NOT is exact."""
    if len({part.column for part in parts}) != 1 or parts[0].column not in SERIES_COLUMNS:
        raise UnclearError
    return parts[0] if operator == "and" and len(parts) == 1 else Combination(operator, tuple(parts))


def _selecting_column(node: dict[str, Any], alias: str) -> str:
    if node["class"] != "COLUMN_REF":
        raise UnclearError
    column = column_of(node, alias)
    if column not in SELECTING:
        raise UnclearError
    return column


def _value(node: dict[str, Any]) -> Value:
    if node["class"] == "PARAMETER":
        return NamedParameter(str(node["identifier"]))
    if node["class"] == "CAST":
        [name] = node["type_expr"]["qualified_name"]["path"]
        constant = _value(node["child"])
        if not isinstance(constant, Constant) or constant.type or node["type_expr"].get("children"):
            raise UnclearError
        return Constant(constant.text, str(name).upper())
    if node["class"] != "CONSTANT" or node["literal"]["kind"] != "STRING":
        raise UnclearError
    return Constant(str(node["literal"]["text"]))


def _test(condition: Condition, params: Params) -> Test:
    """Return the test of a level's names."""
    if isinstance(condition, Combination):
        tests = [_test(part, params) for part in condition.parts]
        if condition.operator == "not":
            return lambda name: not tests[0](name)
        if condition.operator == "or":
            return lambda name: any(test(name) for test in tests)
        return lambda name: all(test(name) for test in tests)
    texts = [_text(value, params) for value in condition.values]
    text, several = texts[0], frozenset(texts)
    # Python orders texts by code points, which is the order of UTF-8 bytes.
    tests_of: dict[str, Test] = {
        "=": lambda name: name == text,
        "<>": lambda name: name != text,
        "<": lambda name: name < text,
        ">": lambda name: name > text,
        "<=": lambda name: name <= text,
        ">=": lambda name: name >= text,
        "in": lambda name: name in several,
    }
    if condition.operator in tests_of:
        return tests_of[condition.operator]
    matches = _like(text).fullmatch
    if condition.operator == "like":
        return lambda name: matches(name) is not None
    return lambda name: matches(name) is None


def _like(pattern: str) -> re.Pattern[str]:
    if pattern.count("%") > _WILDCARDS_MAX:
        raise UnclearError
    parts = {"%": ".*", "_": "."}
    return re.compile("".join(parts.get(char) or re.escape(char) for char in pattern), re.DOTALL)


def _text(value: Value, params: Params) -> str:
    text = params.get(value.name) if isinstance(value, NamedParameter) else value.text
    if type(text) is not str or (isinstance(value, Constant) and value.type not in ("", "VARCHAR")):
        raise UnclearError
    return text


def _within(bound: BoundWhere, condition: Condition, params: Params) -> BoundWhere:
    """Return the conditions with the days of a comparison of a time."""
    if not isinstance(condition, ColumnComparison) or len(condition.values) != 1:
        raise UnclearError
    column, operator, [value] = condition
    since = until = None
    if column == "date":
        day = _date(value, params)
        if operator in ("=", ">=", ">"):
            since = day + timedelta(days=operator == ">")
        if operator in ("=", "<=", "<"):
            until = day - timedelta(days=operator == "<")
    else:
        moment = _moment(value, params)
        # A candle begins before its end. How long before depends on the interval.
        if column == "candle_begin_time" and operator in ("=", ">=", ">"):
            since = moment.date()
        elif operator not in ("<=", "<"):
            raise UnclearError
        if operator in ("=", "<=", "<"):
            is_before = operator == "<" or column == "candle_end_time"
            until = (moment - _MICROSECOND if is_before else moment).date()
    if since is None and until is None:
        raise UnclearError
    return bound._replace(
        since=max(filter(None, (since, bound.since)), default=None),
        until=min(filter(None, (until, bound.until)), default=None),
    )


def _date(value: Value, params: Params) -> date:
    if isinstance(value, NamedParameter):
        day = params.get(value.name)
        if type(day) is not date:
            raise UnclearError
        return _inside_calendar(day)
    if value.type not in ("", "DATE") or not _DATE.fullmatch(value.text):
        raise UnclearError
    return _inside_calendar(_parsed(value.text).date())


def _moment(value: Value, params: Params) -> datetime:
    """Return a moment in UTC. The engine reads times without a zone in UTC, too."""
    if isinstance(value, NamedParameter):
        given = params.get(value.name)
        if type(given) is date:
            given = datetime(given.year, given.month, given.day)
        if type(given) is not datetime:
            raise UnclearError
        moment = given
    elif value.type == "DATE":
        day = _date(value, params)
        moment = datetime(day.year, day.month, day.day)
    else:
        # A cast to a time without a zone would ignore the zone in a text.
        pattern = _TIME if value.type in ("", *_ZONED_TYPES) else _DATE
        if value.type not in ("", "TIMESTAMP", *_ZONED_TYPES) or not pattern.fullmatch(value.text):
            raise UnclearError
        moment = _parsed(value.text)
    try:
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError:
        raise UnclearError from None
    _inside_calendar(moment.date())
    return moment


def _parsed(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise UnclearError from None


def _inside_calendar(day: date) -> date:
    """Return the day; raise UnclearError for the first and the last day of Python's calendar."""
    if not date.min < day < date.max:
        raise UnclearError
    return day
