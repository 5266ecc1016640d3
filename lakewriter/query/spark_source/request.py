"""The options of Spark's `format("lakewriter")`, parsed. Each error is one line with the allowed values."""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import pyarrow as pa

from lakewriter.candle import SCHEMA
from lakewriter.errors import UsageError
from lakewriter.interval import parse_interval
from lakewriter.lake.coverage.tables import GAPS_SCHEMA
from lakewriter.lake.partition_filter import PartitionFilter
from lakewriter.market import parse_market
from lakewriter.partition import LEVELS, day_of
from lakewriter.query.schema import SPARK_TYPES, SQL_TYPES
from lakewriter.ranges import Range
from lakewriter.series import Series
from lakewriter.subscription import SYMBOLS_MAX, chosen, is_glob, parse_symbol_or_glob
from lakewriter.written_time import parse_time

T = TypeVar("T")

OPTIONS = ("path", "table", "markets", "symbols", "intervals", "since", "until", "columns")

_STRING = pa.string()


def _for_spark(schema: pa.Schema) -> pa.Schema:
    """Return the schema with the unit of Spark's times, which is a microsecond."""
    return pa.schema(
        [
            (
                field.name,
                pa.timestamp("us", field.type.tz) if pa.types.is_timestamp(field.type) else field.type,
            )
            for field in schema
        ]
    )


# Table → its columns, in the order of SQL. `date` is the candle's own UTC day.
TABLES: dict[str, pa.Schema] = {
    "candles": _for_spark(
        pa.schema(
            [("market", _STRING), ("symbol", _STRING), ("interval", _STRING), ("date", pa.date32()), *SCHEMA]
        )
    ),
    "gaps": _for_spark(GAPS_SCHEMA),
}


class SymbolFilter(PartitionFilter, frozen=True):
    """A filter of partitions whose symbols may be globs."""

    def keep(self, level: str, names: list[str]) -> list[str]:
        """Return the wanted names of a level."""
        if level == "symbol" and self.symbols:
            return chosen(self.symbols, names)
        return super().keep(level, names)

    def names(self, level: str) -> list[str] | None:
        """Return the wanted names of a level, or None if they are not known."""
        if level == "symbol" and any(map(is_glob, self.symbols)):
            return None
        return super().names(level)


class SparkRequest(NamedTuple):
    """The wanted rows of a lake.

    Args:
        uri: the lake's root: an absolute path, or a URI of an object store.
        table: a name in TABLES.
        markets, intervals: names; empty selects all.
        symbols: names in upper case, and globs; empty selects all.
        range_ms: the half-open range of begin times; None is open at its end.
        columns: the names of columns, without duplicates.
    """

    uri: str
    table: str
    markets: tuple[str, ...]
    symbols: tuple[str, ...]
    intervals: tuple[str, ...]
    range_ms: tuple[int | None, int | None]
    columns: tuple[str, ...]

    @property
    def schema(self) -> pa.Schema:
        """The chosen columns."""
        return pa.schema([TABLES[self.table].field(name) for name in self.columns])

    @property
    def ddl(self) -> str:
        """The chosen columns, as Spark's DDL."""
        return ", ".join(f"`{field.name}` {SPARK_TYPES[SQL_TYPES[field.type]]}" for field in self.schema)

    def check_columns(self, names: Sequence[str]) -> None:
        """Raise UsageError if a schema of the caller has other columns."""
        if tuple(names) != self.columns:
            raise UsageError(
                f"schema: give none; the option columns chooses from: {_all_columns(self.table)}"
            )

    def partition_filter(self) -> SymbolFilter:
        """Return the filter of the series and of the days that the range touches."""
        start_ms, stop_ms = self.range_ms
        return SymbolFilter(
            self.markets,
            self.symbols,
            self.intervals,
            None if start_ms is None else day_of(start_ms),
            None if stop_ms is None else day_of(stop_ms - 1),
        )

    def within(self, range_ms: Range) -> Range:
        """Return the wanted part of a range; its start may be after its stop."""
        start_ms, stop_ms = self.range_ms
        return (
            range_ms[0] if start_ms is None else max(start_ms, range_ms[0]),
            range_ms[1] if stop_ms is None else min(stop_ms, range_ms[1]),
        )

    def absent_names(self, found: Collection[Series]) -> list[tuple[str, str]]:
        """Return each wanted name or glob that no series matches, with the level of the path."""
        absent = []
        for level, wanted in zip(LEVELS, (self.markets, self.symbols, self.intervals), strict=False):
            names = {str(getattr(series, level)) for series in found}
            absent += [(level, name) for name in wanted if not chosen([name], names)]
        return absent

    def without_level(self, level: str) -> SymbolFilter:
        """Return the filter of the series without the names of one level, on all days."""
        return SymbolFilter(
            () if level == "market" else self.markets,
            () if level == "symbol" else self.symbols,
            () if level == "interval" else self.intervals,
        )


def parse_options(options: Mapping[str, str], now_ms: int) -> SparkRequest:
    """Parse the options, whose names have lower case.

    Args:
        now_ms: the present, from which ages count back.

    Raises:
        UsageError: if an option is unknown or its value is not allowed, or there is no path.
    """
    for name in options:
        if name.lower() not in OPTIONS:
            raise UsageError(f"option {name}: unknown; the options are: {', '.join(OPTIONS)}")
    table = options.get("table", "candles")
    if table not in TABLES:
        raise UsageError(f"option table: {table!r} is unknown; choose from: {', '.join(TABLES)}")
    since_ms, until_ms = (_time(options, name, now_ms) for name in ("since", "until"))
    if since_ms is not None and until_ms is not None and until_ms <= since_ms:
        raise UsageError(
            f"option until: {options['until']} is not after since {options['since']}; since is in, until is out"
        )
    columns = TABLES[table].names
    return SparkRequest(
        uri=_uri(options.get("path", "")),
        table=table,
        markets=_list(options, "markets", lambda name: parse_market(name).name),
        symbols=_list(options, "symbols", parse_symbol_or_glob),
        intervals=_list(options, "intervals", lambda name: parse_interval(name).name),
        range_ms=(since_ms, until_ms),
        columns=_list(options, "columns", lambda name: _column(name, table)) or tuple(columns),
    )


def _uri(path: str) -> str:
    """Return an absolute path, since executors have other working directories, or an object store's URI."""
    if not path:
        raise UsageError('option path: missing; .load("/srv/candles"), or .load("s3://bucket/prefix")')
    if path.startswith("s3a://"):  # Hadoop's name
        return "s3" + path.removeprefix("s3a")
    if path.startswith("file:"):
        path = "/" + path.removeprefix("file:").lstrip("/")
    return path if "://" in path else str(Path(path).absolute())


def _list(options: Mapping[str, str], name: str, parse: Callable[[str], str]) -> tuple[str, ...]:
    """Return the values of an option with commas, without duplicates; none if the option is absent."""
    if name not in options:
        return ()
    values = options[name].split(",")
    if len(values) > SYMBOLS_MAX:
        raise UsageError(f"option {name}: {len(values):,} names are more than {SYMBOLS_MAX:,}; use a glob")
    return tuple(dict.fromkeys(_parsed(name, value.strip(), parse) for value in values))


def _time(options: Mapping[str, str], name: str, now_ms: int) -> int | None:
    if name not in options:
        return None
    return _parsed(name, options[name], lambda text: parse_time(text, name, now_ms).ceil_ms)


def _parsed(name: str, text: str, parse: Callable[[str], T]) -> T:
    """Return a parsed value, or raise its error with the name of the option and the hint in one line."""
    try:
        return parse(text)
    except UsageError as error:
        what = error.what.partition(": ")[2] or error.what
        raise UsageError(f"option {name}: {what}; {error.hint}".rstrip("; ")) from None


def _column(name: str, table: str) -> str:
    if name not in TABLES[table].names:
        raise UsageError(f"columns: {name!r} is unknown", f"choose from: {_all_columns(table)}")
    return name


def _all_columns(table: str) -> str:
    return " ".join(TABLES[table].names)
