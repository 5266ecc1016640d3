"""The symbols that one market of the sandbox lists at a time, and their existing candles.

`Truth` has a candle for each position on the grid. The exchange has no candles before a
listing, after a delisting or a delivery, or in a halt. Pure: listings, faults and the time
are passed in.
"""

import msgspec

from lakewriter.interval import INTERVALS, Interval
from lakewriter.ranges import Range, minus
from lakewriter.sandbox.faults.fault_set import FaultSet
from lakewriter.sandbox.faults.table import Fault
from lakewriter.sandbox.truth.symbols import LISTED_MS, SymbolListing, listing

# The status of a delisted symbol or a delivered contract.
_DELISTED = {"spot": "BREAK", "usdt_futures": "SETTLING", "coin_futures": "SETTLING"}
_DELIVERED = {"spot": "BREAK", "usdt_futures": "SETTLING", "coin_futures": "DELIVERED"}


class SymbolCatalogue:
    """The symbols of one market.

    Args:
        listed: the symbols that the market lists without faults.
    """

    def __init__(self, market: str, listed: list[SymbolListing], faults: FaultSet) -> None:
        self.market = market
        self._listed = listed
        self._by_symbol = {item.symbol: item for item in listed}
        self._faults = faults

    def find(self, symbol: str) -> SymbolListing | None:
        """Return the listing of a symbol; None if the market never lists the symbol."""
        listing_found = self._by_symbol.get(symbol)
        if listing_found is None and any(
            fault.market == self.market and symbol in fault.symbols
            for fault in self._faults.named("new_listing")
        ):
            return listing(self.market, symbol)
        return listing_found

    def listing_at(self, symbol: str, now_ms: int) -> SymbolListing | None:
        """Return the present listing of a symbol; None if the market does not list the symbol now."""
        spec = self.find(symbol)
        return None if spec is None else self._with_status(spec, now_ms)

    def listed(self, now_ms: int) -> list[SymbolListing]:
        """Return the symbols that the market lists now, with their status and listing time."""
        if not self._faults.may_remove_candles and all(item.delivery_ms > now_ms for item in self._listed):
            return self._listed
        visible = (self.listing_at(symbol, now_ms) for symbol in self.symbols())
        return [spec for spec in visible if spec is not None]

    def symbols(self) -> list[str]:
        """Return the symbols that the market lists at any time, in the market's order."""
        newly_listed = (symbol for fault in self._faults.named("new_listing") for symbol in fault.symbols)
        return list(dict.fromkeys([*self._by_symbol, *newly_listed]))

    def exists(self, spec: SymbolListing, grid: Interval, begin_ms: int) -> bool:
        """Return whether a candle that begins at `begin_ms` exists or will exist."""
        return bool(self.existing_ranges(spec, grid, begin_ms, begin_ms + 1))

    def existing_ranges(
        self, spec: SymbolListing, grid: Interval, start_ms: int, stop_ms: int
    ) -> list[Range]:
        """Return the parts of a half-open range in which candles exist or will exist."""
        start_ms, stop_ms = max(start_ms, LISTED_MS), min(stop_ms, spec.delivery_ms)
        if self._faults.may_remove_candles:
            start_ms = max(start_ms, grid.floor(self.onboard_ms(spec)))
        if spec.status != "TRADING" or start_ms >= stop_ms:
            return []
        if not self._faults.may_remove_candles:
            return [(start_ms, stop_ms)]
        absences = (
            (fault.start_ms or 0, stop_ms if fault.stop_ms is None else fault.stop_ms)
            for name in ("exchange_halt", "delisting")
            for fault in self._faults.concerning(name, self.market, spec.symbol, grid.name)
        )
        return minus([(start_ms, stop_ms)], absences)

    def onboard_ms(self, spec: SymbolListing) -> int:
        """Return the time of the symbol's listing."""
        starts = [
            fault.start_ms for fault in self._faults.concerning("new_listing", self.market, spec.symbol)
        ]
        return max((start_ms for start_ms in starts if start_ms is not None), default=LISTED_MS)

    def end_ms(self, spec: SymbolListing, now_ms: int) -> int:
        """Return the exclusive end of candle begin times; it is after now if the symbol trades."""
        delisting = self._active_delisting(spec, now_ms)
        return min(now_ms + 1, spec.delivery_ms, now_ms + 1 if delisting is None else delisting.start_ms or 0)

    def begin_times(self, symbol: str, interval: str, start_ms: int, stop_ms: int) -> list[int]:
        """Return the begin times of the existing candles in the half-open range, ascending.

        Args:
            interval: the interval's name on disk.
        """
        spec, grid = self.find(symbol), INTERVALS[interval]
        if spec is None:
            return []
        ranges = self.existing_ranges(spec, grid, start_ms, stop_ms)
        return [begin_ms for each in ranges for begin_ms in grid.grid(*each)]

    def _with_status(self, spec: SymbolListing, now_ms: int) -> SymbolListing | None:
        onboard_ms = self.onboard_ms(spec)
        delisting = self._active_delisting(spec, now_ms)
        if now_ms < onboard_ms or (delisting is not None and delisting.value):
            return None
        status = spec.status
        if status == "TRADING" and delisting is not None:
            status = _DELISTED[self.market]
        if status == "TRADING" and now_ms >= spec.delivery_ms:
            status = _DELIVERED[self.market]
        return msgspec.structs.replace(spec, status=status, onboard_ms=onboard_ms)

    def _active_delisting(self, spec: SymbolListing, now_ms: int) -> Fault | None:
        return self._faults.active("delisting", self.market, spec.symbol, now_ms=now_ms)
