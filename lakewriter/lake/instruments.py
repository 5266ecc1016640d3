"""Answers of exchangeInfo over time: one small file for each market.

    _lakewriter/instruments/<market>.ndjson

Each line is a period in which a symbol's status and contract type stayed the
same. A repeated answer only changes `last_seen_ms`. A symbol that is no longer
listed keeps its `last_seen_ms`. The file has a few hundred bytes for each symbol.
Each write replaces the file. In an object store each host has its own files.
"""

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import msgspec

from lakewriter.instrument import Instrument
from lakewriter.interval import CALENDAR_MS_MAX
from lakewriter.lake.durable import make_directories, write_durably
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.row_file import HOST_MARK, RowFile
from lakewriter.lake.warn_once import warn_once
from lakewriter.market import is_symbol

INSTRUMENTS_DIRECTORY = "_lakewriter/instruments"
_SUFFIX = ".ndjson"

# 3,700 symbols take 700 kB.
FILE_BYTES_MAX = 64 * 1024 * 1024


class InstrumentPeriod(NamedTuple):
    """A period in which a market listed a symbol with one status.

    Args:
        market, symbol: the instrument.
        status, contract_type: texts of the exchange.
        onboard_ms, delivery_ms: times in the last answer, or None if it lacked them.
        first_seen_ms, last_seen_ms: times of the first and the last answer of the period.
    """

    market: str
    symbol: str
    status: str
    contract_type: str
    onboard_ms: int | None
    delivery_ms: int | None
    first_seen_ms: int
    last_seen_ms: int


class MarketList(NamedTuple):
    """The last answer of a market.

    Args:
        answered_ms: the time of the answer.
        statuses: the status of each symbol, as the exchange's text.
    """

    answered_ms: int
    statuses: dict[str, str]


class _InstrumentRow(msgspec.Struct, omit_defaults=True):
    symbol: str
    status: str
    first_seen_ms: int
    last_seen_ms: int
    contract_type: str = ""
    onboard_ms: int | None = None
    delivery_ms: int | None = None


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_InstrumentRow).decode


def record_instruments(store: LakeStore, market: str, instruments: Iterable[Instrument], now_ms: int) -> None:
    """Write the instruments that a market lists now. The call blocks.

    A file with damaged lines becomes a `.bad` file, and the new file has the other
    lines.

    Args:
        instruments: the whole answer. A symbol that it lacks is not listed.
        now_ms: the exchange's time. If it is before the last answer's time, that time
            is used instead.

    Raises:
        OSError: if the file cannot be read or written.

    Crash: the old file or the new one is there, whole; or only the old one under its
    other name.
    """
    directory = store.state_dir / INSTRUMENTS_DIRECTORY
    path = directory / f"{market}{_SUFFIX}"
    with store.state.exclusive(f"{INSTRUMENTS_DIRECTORY}/{market}"):
        make_directories(store.state_dir, directory)
        rows = _FILE.read_to_replace(path)
        answered_ms = max((row.last_seen_ms for row in rows), default=now_ms)
        now_ms = max(now_ms, answered_ms)
        # A symbol that was not in the last answer begins a new period.
        current = {row.symbol: row for row in rows if row.last_seen_ms == answered_ms}
        for instrument in instruments:
            row = current.get(instrument.symbol)
            if row is None or (row.status, row.contract_type) != (
                instrument.status,
                instrument.contract_type,
            ):
                row = _InstrumentRow(
                    instrument.symbol, instrument.status, now_ms, now_ms, instrument.contract_type
                )  # fmt: skip
                rows.append(row)
                current[instrument.symbol] = row
            row.last_seen_ms = now_ms
            row.onboard_ms, row.delivery_ms = map(_sound, (instrument.onboard_ms, instrument.delivery_ms))
        rows.sort(key=lambda row: (row.symbol, row.first_seen_ms))
        write_durably(path, b"".join(_encode(row) + b"\n" for row in rows))


def unknown_instruments(
    known: Iterable[InstrumentPeriod], periods: Iterable[InstrumentPeriod]
) -> list[InstrumentPeriod]:
    """Return the periods of another lake that are not part of a known period."""
    seen: dict[tuple[str, ...], list[InstrumentPeriod]] = {}
    for period in known:
        seen.setdefault(period[:4], []).append(period)
    return [
        period
        for period in periods
        if not any(
            each.first_seen_ms <= period.first_seen_ms and period.last_seen_ms <= each.last_seen_ms
            for each in seen.get(period[:4], ())
        )
    ]


def add_instruments(store: LakeStore, periods: Iterable[InstrumentPeriod]) -> None:
    """Add the periods of another lake. Overlapping ones of a symbol become one. The call blocks.

    Raises:
        OSError: if a file cannot be read or written.

    Crash: each market's file is the old one or the new one, whole; or only the old one
    is there under its other name.
    """
    by_market: dict[str, list[_InstrumentRow]] = {}
    for period in periods:
        market, symbol, status, contract_type, onboard_ms, delivery_ms, first_ms, last_ms = period
        row = _InstrumentRow(symbol, status, first_ms, last_ms, contract_type, onboard_ms, delivery_ms)
        by_market.setdefault(market, []).append(row)
    directory = store.state_dir / INSTRUMENTS_DIRECTORY
    for market, rows in by_market.items():
        path = directory / f"{market}{_SUFFIX}"
        with store.state.exclusive(f"{INSTRUMENTS_DIRECTORY}/{market}"):
            make_directories(store.state_dir, directory)
            joined = _joined([*_FILE.read_to_replace(path), *rows])
            write_durably(path, b"".join(_encode(row) + b"\n" for row in joined))


def _joined(rows: list[_InstrumentRow]) -> list[_InstrumentRow]:
    """Return the rows, sorted. Overlapping periods of one symbol, status and type become one."""
    result: list[_InstrumentRow] = []
    for row in sorted(
        rows, key=lambda row: (row.symbol, row.status, row.contract_type, row.first_seen_ms, row.last_seen_ms)
    ):
        last = result[-1] if result else None
        names = (row.symbol, row.status, row.contract_type)
        if (
            last is None
            or (last.symbol, last.status, last.contract_type) != names
            or last.last_seen_ms < row.first_seen_ms
        ):
            result.append(row)
        elif row.last_seen_ms >= last.last_seen_ms:
            last.last_seen_ms = row.last_seen_ms
            last.onboard_ms, last.delivery_ms = row.onboard_ms, row.delivery_ms
    return sorted(result, key=lambda row: (row.symbol, row.first_seen_ms))


def read_instruments(root: Path) -> list[InstrumentPeriod]:
    """Return the periods of all markets, by market, symbol and time.

    Each host of a lake on an object store has its own files. Their periods are merged, so
    that the result is that of one host that saw every answer.

    Files and lines that cannot be read are logged and left out.
    """
    directory = root / INSTRUMENTS_DIRECTORY
    if not directory.is_dir():
        return []
    of_markets: dict[str, list[InstrumentPeriod]] = {}
    hosts: Counter[str] = Counter()
    for path in sorted(directory.iterdir()):
        if path.suffix == _SUFFIX:
            market = path.stem.partition(HOST_MARK)[0]
            hosts[market] += 1
            of_markets.setdefault(market, []).extend(_periods(market, path))
    return [
        period
        for market, periods in of_markets.items()
        for period in (periods if hosts[market] == 1 else merged_periods(periods))
    ]


def merged_periods(periods: Iterable[InstrumentPeriod]) -> list[InstrumentPeriod]:
    """Return the periods of one market, as several hosts saw them, by symbol and time.

    Two periods of one status are one if they overlap. They are also one if no host was
    there between them: the list after the pause then says the same as the one before.
    """
    known = list(periods)
    answers = _Answers(known)
    merged: list[InstrumentPeriod] = []
    for period in sorted(known, key=lambda each: (each.symbol, each.first_seen_ms, each.last_seen_ms)):
        last = merged[-1] if merged else None
        if (
            last is None
            or (last.symbol, last.status, last.contract_type)
            != (period.symbol, period.status, period.contract_type)
            or answers.any_between(last.last_seen_ms, period.first_seen_ms)
        ):
            merged.append(period)
        else:
            newer = max(last, period, key=lambda each: each.last_seen_ms)
            merged[-1] = newer._replace(first_seen_ms=last.first_seen_ms)
    return merged


class _Answers:
    """The times of a market's answers, as far as its periods show them."""

    def __init__(self, periods: Iterable[InstrumentPeriod]) -> None:
        spans = sorted((each.first_seen_ms, each.last_seen_ms) for each in periods)
        self._times_ms = sorted({moment for span in spans for moment in span})
        self._firsts_ms = [first_ms for first_ms, _ in spans]
        self._until_ms = list(accumulate((last_ms for _, last_ms in spans), max))

    def any_between(self, start_ms: int, stop_ms: int) -> bool:
        """Return whether a host answered between two times, or before and after them.

        A host that has another symbol's period over both times did not see this symbol.
        """
        if stop_ms <= start_ms:
            return False
        at = bisect_right(self._firsts_ms, start_ms)
        spanned = at > 0 and self._until_ms[at - 1] >= stop_ms
        return spanned or bisect_left(self._times_ms, stop_ms) > bisect_right(self._times_ms, start_ms)


def _periods(market: str, path: Path) -> list[InstrumentPeriod]:
    return [
        InstrumentPeriod(
            market,
            row.symbol,
            row.status,
            row.contract_type,
            row.onboard_ms,
            row.delivery_ms,
            row.first_seen_ms,
            row.last_seen_ms,
        )
        for row in _rows_or_none(path)
    ]


def read_last_lists(root: Path) -> dict[str, MarketList]:
    """Return the last answer of each market."""
    lists: dict[str, MarketList] = {}
    for seen in read_instruments(root):
        found = lists.get(seen.market)
        if found is None or seen.last_seen_ms > found.answered_ms:
            found = lists[seen.market] = MarketList(seen.last_seen_ms, {})
        if seen.last_seen_ms == found.answered_ms:
            found.statuses[seen.symbol] = seen.status
    return lists


def _rows_or_none(path: Path) -> list[_InstrumentRow]:
    try:
        return _FILE.read(path)
    except OSError as error:
        warn_once(f"instruments: {path}: {error.strerror}; its rows are left out")
        return []


def _row(line: bytes) -> _InstrumentRow | None:
    """Return the row of a line, or None if its symbol or a time is impossible."""
    row = _decode(line)
    moments = (row.first_seen_ms, row.last_seen_ms, row.onboard_ms, row.delivery_ms)
    return row if is_symbol(row.symbol) and all(_sound(each) == each for each in moments) else None


def _sound(moment_ms: int | None) -> int | None:
    """Return the moment, or None if it is outside of the calendar's range."""
    return moment_ms if moment_ms is not None and 0 <= moment_ms <= CALENDAR_MS_MAX else None


_FILE = RowFile("instruments", FILE_BYTES_MAX, _row)
