"""A request for candles of some symbols of one market and interval, without SQL.

A wrong name raises an error with the hint of the command line. A backtest on a list with
a misspelt symbol would otherwise run without it.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, NoReturn

import pyarrow as pa

from lakewriter.errors import UsageError
from lakewriter.interval import parse_interval
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.partition_filter import PartitionFilter
from lakewriter.lake.presence_many import known_series
from lakewriter.market import parse_market
from lakewriter.query.empty_answer import Absence, absences_of, warn_of_empty_answer
from lakewriter.query.python.series_rows import SymbolSelection
from lakewriter.ranges import Range
from lakewriter.subscription import is_glob, matching, parse_symbol_or_glob

# A symbol, a glob such as "*USDT", or several of both: a list, or text with commas.
Symbols = str | Iterable[str]

_EXAMPLE = '["BTCUSDT", "ETHUSDT"], or "*USDT"'
_HINT = "Lake.series() lists the series"

_START_MS_MIN = 0
_STOP_MS_MAX = 253_402_214_400_000


class CandleRequest(NamedTuple):
    """The wanted series and range.

    Args:
        market: the market's name.
        symbols: names in upper case, and globs, without duplicates.
        several: whether the caller asked for several symbols, even if one matches.
        interval: the interval's name on disk.
        start_ms, stop_ms: the half-open range of begin times; None is open.
    """

    market: str
    symbols: tuple[str, ...]
    several: bool
    interval: str
    start_ms: int | None
    stop_ms: int | None

    @property
    def range_ms(self) -> Range:
        """The range of begin times, within Python's calendar. It may be empty."""
        start_ms = _START_MS_MIN if self.start_ms is None else max(self.start_ms, _START_MS_MIN)
        return start_ms, _STOP_MS_MAX if self.stop_ms is None else min(self.stop_ms, _STOP_MS_MAX)

    def selection(self) -> SymbolSelection:
        """Return the selection of the partitions to read. The range must not be empty."""
        return SymbolSelection(self.market, self.symbols, self.interval, self.range_ms)

    def ordered(self, found: Mapping[str, pa.Table], schema: pa.Schema) -> dict[str, pa.Table]:
        """Return the rows by symbol, in the order of the names. A glob gives its matching symbols, sorted.

        Args:
            found: the rows of each symbol that has any. Other named symbols get an empty table.
        """
        names = [
            name
            for symbol in self.symbols
            for name in (matching(symbol, sorted(found)) if is_glob(symbol) else [symbol])
        ]
        return {name: found.get(name, schema.empty_table()) for name in names}


def parse_request(
    market: str, symbols: Symbols, interval: str, start_ms: int | None, stop_ms: int | None
) -> CandleRequest:
    """Parse the names of a request.

    Raises:
        UsageError: if a name is invalid, or there is no symbol.
    """
    names = _parse_symbols(symbols)
    several = not isinstance(symbols, str) or "," in symbols or is_glob(symbols)
    return CandleRequest(
        parse_market(market).name, names, several, parse_interval(interval).name, start_ms, stop_ms
    )


def parse_selection(market: str | None, symbols: Symbols | None, interval: str | None) -> SymbolSelection:
    """Parse the names of a selection of series; None is all.

    Raises:
        UsageError: if a name is invalid.
    """
    return SymbolSelection(
        "" if market is None else parse_market(market).name,
        () if symbols is None else _parse_symbols(symbols),
        "" if interval is None else parse_interval(interval).name,
    )


def _parse_symbols(symbols: Symbols) -> tuple[str, ...]:
    """Return the names and globs without duplicates."""
    if not isinstance(symbols, Iterable):
        raise UsageError(f"symbols: {symbols!r} is no symbol", _EXAMPLE)
    written = symbols.split(",") if isinstance(symbols, str) else list(symbols)
    for name in written:
        if not isinstance(name, str):
            raise UsageError(f"symbols: {name!r} is no symbol", _EXAMPLE)
    if not written:
        raise UsageError("symbols: none is given", _EXAMPLE)
    return tuple(dict.fromkeys(map(parse_symbol_or_glob, map(str.strip, written))))


def raise_absence(store: LakeStore, wanted: SymbolSelection) -> NoReturn:
    """Raise UsageError, because the lake has no series of a selection."""
    text = "no candles: no series matches"
    if not store.is_remote:  # a listing of all series would take many requests
        text = next(absences_of(store, [wanted])).text or text
    raise UsageError(text, _HINT)


def check_found(store: LakeStore, request: CandleRequest, found: Collection[str]) -> None:
    """Raise or warn if a wanted name or glob has no candles.

    Args:
        found: the symbols that have candles in the range.

    Raises:
        UsageError: if the lake has no series of a name.
    """
    absent = [name for name in request.symbols if not _matches(name, found)]
    absences = [absence for absence in _absences(store, request, absent) if absence.text] if absent else []
    if not absences:
        return
    worst = next((absence for absence in absences if absence.of_names), absences[0])
    others = len(absences) - 1
    text = f"{worst.text}, and {others:,} more symbols have none" if others else worst.text
    if worst.of_names:
        raise UsageError(text, _HINT)
    warn_of_empty_answer(text)


def _matches(symbol: str, found: Collection[str]) -> bool:
    return bool(matching(symbol, list(found))) if is_glob(symbol) else symbol in found


def _absences(store: LakeStore, request: CandleRequest, absent: Sequence[str]) -> Iterator[Absence]:
    """Yield for each symbol or glob why it has no candles in the range."""
    market, interval = request.market, request.interval
    if store.is_remote:  # a listing of all series would take many requests
        for name in absent:
            yield Absence(f"no candles: {market} {name} {interval} has none in this range", of_names=False)
        return
    known = {series.symbol for series in known_series(store, PartitionFilter((market,), (), (interval,)))}
    selections = (request._replace(symbols=(name,)).selection() for name in absent)
    for name, absence in zip(absent, absences_of(store, selections), strict=True):
        if absence.of_names and name in known:
            yield Absence(f"no candles: {market} {name} {interval} has none yet", of_names=False)
        else:
            yield absence
