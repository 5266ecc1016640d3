"""The sandbox's answers to REST calls, and their weights.

Pure: the parameters and the time determine the answer.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from lakewriter.interval import BY_WIRE_NAME, DAY_MS, Interval
from lakewriter.market import MARKETS
from lakewriter.sandbox.faults.fault_set import FaultSet
from lakewriter.sandbox.streams.feed import partial_row
from lakewriter.sandbox.streams.protocol import kline_row
from lakewriter.sandbox.truth.candles import Truth
from lakewriter.sandbox.truth.catalogue import SymbolCatalogue
from lakewriter.sandbox.truth.integer_candles import rows
from lakewriter.sandbox.truth.symbols import SymbolListing

ROWS_DEFAULT = 500

# The maximum range of a COIN-M request.
_COIN_SPAN_MS = 200 * DAY_MS

# Spot also accepts times in microseconds. Milliseconds have fewer digits until the year 33658.
_MICROSECONDS_FROM = 10**15

# The part of a candle's values in its row before the candle settles.
_UNSETTLED_FRACTION = 0.75


class RestAnswer(NamedTuple):
    """The HTTP status and the JSON body of an answer."""

    status: int
    body: Any


class _InvalidError(Exception):
    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.body = {"code": code, "msg": text}


class _Query(NamedTuple):
    spec: SymbolListing
    grid: Interval
    start_ms: int | None
    end_ms: int | None
    limit: int
    first_ms: int
    last_ms: int


def klines(
    catalogue: SymbolCatalogue, faults: FaultSet, truth: Truth, params: Mapping[str, str], now_ms: int
) -> RestAnswer:
    """Return the answer to `/klines`: rows that begin from startTime to endTime, both inclusive.

    The last row may hold the open candle. A symbol that no longer trades keeps its older rows.
    """
    try:
        query = _query(catalogue, params, now_ms)
        range_of = _coin_range if catalogue.market == "coin_futures" else _range
        start_ms, stop_ms = range_of(query, catalogue, now_ms)
    except _InvalidError as error:
        return RestAnswer(400, error.body)
    spec, grid = query.spec, query.grid
    if spec.status != "TRADING":
        return RestAnswer(200, [])
    candles = truth.integer_candles(catalogue.market, spec.symbol, grid.name, start_ms, stop_ms)
    existing = (row for row in rows(candles) if catalogue.exists(spec, grid, row[0]))
    if not faults:
        return RestAnswer(200, [_row(spec, grid, row, now_ms) for row in existing])
    return RestAnswer(200, list(_with_faults(faults, spec, grid, existing, now_ms)))


def _row(spec: SymbolListing, grid: Interval, row: tuple[int, ...], now_ms: int) -> list[int | str]:
    begin_ms = row[0]
    end_ms = grid.end(begin_ms)
    if end_ms > now_ms:
        row = partial_row(row, (now_ms - begin_ms) / (end_ms - begin_ms))
    return kline_row(spec, grid, row)


def _with_faults(
    faults: FaultSet, spec: SymbolListing, grid: Interval, candles: Iterable[tuple[int, ...]], now_ms: int
) -> Iterator[list[int | str]]:
    series = (spec.market, spec.symbol, grid.name)
    missing = list(faults.concerning("rest_missing_rows", *series))
    lag = faults.active("rest_lag", *series, now_ms=now_ms)
    unsettled = faults.active("rest_unsettled", *series, now_ms=now_ms)
    lag_ms = 0 if lag is None else lag.value * 1000
    unsettled_ms = 0 if unsettled is None else unsettled.value * 1000
    for row in candles:
        end_ms = grid.end(row[0])
        if any(fault.holds_at(row[0]) for fault in missing) or (lag_ms and now_ms < end_ms + lag_ms):
            continue
        settling = end_ms <= now_ms < end_ms + unsettled_ms
        yield _row(spec, grid, partial_row(row, _UNSETTLED_FRACTION) if settling else row, now_ms)


def _query(catalogue: SymbolCatalogue, params: Mapping[str, str], now_ms: int) -> _Query:
    market = catalogue.market
    for name in ("symbol", "interval"):
        if not params.get(name):
            raise _InvalidError(
                -1102, f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed."
            )
    spec = catalogue.find(params["symbol"])
    if spec is None or catalogue.listing_at(spec.symbol, now_ms) is None:
        raise _InvalidError(-1121, "Invalid symbol.")
    grid = BY_WIRE_NAME.get(params["interval"])
    if grid is None or grid.name not in MARKETS[market].intervals:
        raise _InvalidError(-1120, "Invalid interval.")
    start_ms, end_ms = _time(market, params, "startTime"), _time(market, params, "endTime")
    if start_ms is not None and end_ms is not None and start_ms > end_ms and market != "spot":
        raise _InvalidError(-1023, "Start time is greater than end time.")
    first_ms = grid.floor(catalogue.onboard_ms(spec))
    last_ms = catalogue.end_ms(spec, now_ms) - 1
    return _Query(spec, grid, start_ms, end_ms, _limit(market, params), first_ms, last_ms)


def _limit(market: str, params: Mapping[str, str]) -> int:
    limit = _integer(params, "limit")
    rows_max = MARKETS[market].klines_max
    if limit is None:
        return ROWS_DEFAULT
    if market == "spot" and limit > rows_max:
        return rows_max
    if not 1 <= limit <= rows_max:
        raise _InvalidError(-1130, "Data sent for parameter 'limit' is not valid.")
    return limit


def _time(market: str, params: Mapping[str, str], name: str) -> int | None:
    time = _integer(params, name)
    if market == "spot" and time is not None and time >= _MICROSECONDS_FROM:
        return time // 1000
    return time


def _integer(params: Mapping[str, str], name: str) -> int | None:
    text = params.get(name)
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 20):
        raise _InvalidError(
            -1100,
            f"Illegal characters found in parameter '{name}'; legal range is '^[0-9]{{1,20}}$'.",
        )
    return int(text)


def _range(query: _Query, catalogue: SymbolCatalogue, now_ms: int) -> tuple[int, int]:
    # Return the oldest rows from startTime on; without startTime, the newest rows.
    stop_ms = min(query.last_ms, query.end_ms if query.end_ms is not None else now_ms) + 1
    if query.start_ms is None:
        return _start_of_newest(query, catalogue, query.first_ms, stop_ms), stop_ms
    start_ms = query.grid.ceil(max(query.start_ms, query.first_ms))
    return start_ms, _stop_of_oldest(query, catalogue, start_ms, stop_ms)


def _coin_range(query: _Query, catalogue: SymbolCatalogue, now_ms: int) -> tuple[int, int]:
    # Return the newest rows up to endTime, even with a startTime.
    start_ms, end_ms = query.start_ms, query.end_ms
    if start_ms is not None and end_ms is not None and end_ms - start_ms > _COIN_SPAN_MS:
        raise _InvalidError(-1130, "Data sent for parameter 'endTime' is not valid.")
    if end_ms is None:
        end_ms = now_ms if start_ms is None else start_ms + _COIN_SPAN_MS
    if start_ms is None:
        start_ms = max(0, end_ms - _COIN_SPAN_MS)
    stop_ms = min(query.last_ms, end_ms) + 1
    return _start_of_newest(query, catalogue, start_ms, stop_ms), stop_ms


def _stop_of_oldest(query: _Query, catalogue: SymbolCatalogue, start_ms: int, stop_ms: int) -> int:
    """Return the end of the range that has the first `limit` existing candles."""
    left = query.limit
    for low_ms, high_ms in catalogue.existing_ranges(query.spec, query.grid, start_ms, stop_ms):
        count = query.grid.count(low_ms, high_ms)
        if count >= left:
            return _begin_after(query.grid, query.grid.ceil(low_ms), left)
        left -= count
    return stop_ms


def _start_of_newest(query: _Query, catalogue: SymbolCatalogue, start_ms: int, stop_ms: int) -> int:
    """Return the begin of the range that has the last `limit` existing candles."""
    left = query.limit
    for low_ms, high_ms in reversed(catalogue.existing_ranges(query.spec, query.grid, start_ms, stop_ms)):
        count = query.grid.count(low_ms, high_ms)
        if count >= left:
            return _begin_before(query.grid, high_ms, left)
        left -= count
    return start_ms


def _begin_before(grid: Interval, stop_ms: int, count: int) -> int:
    """Return the begin time of the first of `count` candles that begin before `stop_ms`."""
    begin_ms = grid.floor(max(0, stop_ms - 1))
    if grid.length_ms:
        return max(0, begin_ms - (count - 1) * grid.length_ms)
    for _ in range(count - 1):
        begin_ms = grid.floor(max(0, begin_ms - 1))
    return begin_ms


def _begin_after(grid: Interval, begin_ms: int, count: int) -> int:
    """Return the begin time that follows `count` candles from `begin_ms` on."""
    if grid.length_ms:
        return begin_ms + count * grid.length_ms
    for _ in range(count):
        begin_ms = grid.end(begin_ms)
    return begin_ms


def klines_weight(market: str, params: Mapping[str, str]) -> int:
    """Return the weight of a `/klines` call. A refused call has the same weight.

    Source: measured on USDⓈ-M, 2026-10-07; documented for spot.
    """
    if market == "spot":
        return 2
    text = params.get("limit", "")
    if not (text.isascii() and text.isdigit()):
        return 5
    return next((weight for most, weight in ((100, 1), (500, 2), (1000, 5)) if int(text) <= most), 10)
