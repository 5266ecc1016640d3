"""What one market of the sandbox lists at a time, and which candles exist.

The truth has a candle for every place on the grid; the exchange has fewer:
none before a listing, after a delisting or a delivery, or in a halt. Pure:
listings, faults and the time in.
"""

import msgspec

from lakewriter.interval import INTERVALS, Interval
from lakewriter.ranges import Range, minus
from lakewriter.sandbox.faults.table import Fault, Faults
from lakewriter.sandbox.truth.symbols import LISTED_MS, SymbolListing, listing

# What a market calls a symbol that is gone, and a contract that was delivered.
_DELISTED = {"spot": "BREAK", "usdt_futures": "SETTLING", "coin_futures": "SETTLING"}
_DELIVERED = {"spot": "BREAK", "usdt_futures": "SETTLING", "coin_futures": "DELIVERED"}


class Catalogue:
    """The list of one market.

    Args:
        listed: everything it lists without faults.
    """

    def __init__(self, market: str, listed: list[SymbolListing], faults: Faults) -> None:
        self.market = market
        self._listed = listed
        self._by_symbol = {item.symbol: item for item in listed}
        self._faults = faults

    def known(self, symbol: str) -> SymbolListing | None:
        """Return what the symbol is like, if the market has it at any time."""
        found = self._by_symbol.get(symbol)
        if found is None and any(
            fault.market == self.market and symbol in fault.symbols
            for fault in self._faults.named("new_listing")
        ):
            return listing(self.market, symbol)
        return found

    def visible(self, symbol: str, now_ms: int) -> SymbolListing | None:
        """Return the symbol as the market lists it now, or None if it does not."""
        spec = self.known(symbol)
        return None if spec is None else self._as_listed(spec, now_ms)

    def listed(self, now_ms: int) -> list[SymbolListing]:
        """Return what the market lists now, each with its status and its day of listing."""
        if not self._faults.touch_candles and all(item.delivery_ms > now_ms for item in self._listed):
            return self._listed
        found = (self.visible(symbol, now_ms) for symbol in self.everyone())
        return [spec for spec in found if spec is not None]

    def everyone(self) -> list[str]:
        """Return the symbols that the market has at any time, in the order of its list."""
        named = (symbol for fault in self._faults.named("new_listing") for symbol in fault.symbols)
        return list(dict.fromkeys([*self._by_symbol, *named]))

    def exists(self, spec: SymbolListing, grid: Interval, begin_ms: int) -> bool:
        """Tell whether there is, or will be, a candle that begins there."""
        return bool(self.present(spec, grid, begin_ms, begin_ms + 1))

    def present(self, spec: SymbolListing, grid: Interval, start_ms: int, stop_ms: int) -> list[Range]:
        """Return when in the half-open range candles begin that exist, or will."""
        start_ms, stop_ms = max(start_ms, LISTED_MS), min(stop_ms, spec.delivery_ms)
        if self._faults.touch_candles:
            start_ms = max(start_ms, grid.floor(self.onboard_ms(spec)))
        if spec.status != "TRADING" or start_ms >= stop_ms:
            return []
        if not self._faults.touch_candles:
            return [(start_ms, stop_ms)]
        gone = (
            (fault.start_ms or 0, stop_ms if fault.stop_ms is None else fault.stop_ms)
            for name in ("exchange_halt", "delisting")
            for fault in self._faults.of(name, self.market, spec.symbol, grid.name)
        )
        return minus([(start_ms, stop_ms)], gone)

    def onboard_ms(self, spec: SymbolListing) -> int:
        """Return when the symbol began to trade."""
        starts = [fault.start_ms for fault in self._faults.of("new_listing", self.market, spec.symbol)]
        return max((start_ms for start_ms in starts if start_ms is not None), default=LISTED_MS)

    def end_ms(self, spec: SymbolListing, now_ms: int) -> int:
        """Return when the last candle so far must have begun before: now, if it trades."""
        gone = self._delisting(spec, now_ms)
        return min(now_ms + 1, spec.delivery_ms, now_ms + 1 if gone is None else gone.start_ms or 0)

    def begins(self, symbol: str, interval: str, start_ms: int, stop_ms: int) -> list[int]:
        """Return the begin times of the candles that exist in the half-open range, ascending.

        Args:
            interval: its name on disk.
        """
        spec, grid = self.known(symbol), INTERVALS[interval]
        if spec is None:
            return []
        ranges = self.present(spec, grid, start_ms, stop_ms)
        return [begin_ms for each in ranges for begin_ms in grid.grid(*each)]

    def _as_listed(self, spec: SymbolListing, now_ms: int) -> SymbolListing | None:
        onboard_ms = self.onboard_ms(spec)
        gone = self._delisting(spec, now_ms)
        if now_ms < onboard_ms or (gone is not None and gone.value):
            return None
        status = spec.status
        if status == "TRADING" and gone is not None:
            status = _DELISTED[self.market]
        if status == "TRADING" and now_ms >= spec.delivery_ms:
            status = _DELIVERED[self.market]
        return msgspec.structs.replace(spec, status=status, onboard_ms=onboard_ms)

    def _delisting(self, spec: SymbolListing, now_ms: int) -> Fault | None:
        return self._faults.active("delisting", self.market, spec.symbol, now_ms=now_ms)
