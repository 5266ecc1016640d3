"""The faults of one sandbox, and the selection of those that are active.

    faults.add(Fault("late_close", market="spot", symbols=("BTCUSDT",), value=30), now_ms)

Rule 1: a fault is active while start_ms <= simulated time < stop_ms. Five faults select
candles by their begin instead: `exchange_halt`, `new_listing`, `delisting`,
`rest_missing_rows`, `archive_missing_rows`. Faults of single archive files select files by
their first day, and a share of files by their paths.
Rule 2: an absent candle stays absent. The removal of a halt or a listing only ends it.

Pure: the time is passed in. Other modules apply the faults.
"""

from collections.abc import Iterator

import msgspec

from lakewriter.binance.archive_files import ArchiveFile
from lakewriter.errors import UsageError
from lakewriter.sandbox.faults.table import Fault, normalized

# Faults that remove candles. Without a start, they begin at the time of `add`. `remove`
# cannot undo them.
CANDLE_FAULTS = ("exchange_halt", "new_listing", "delisting")

# Faults of frames. Without such faults, no frame is checked.
FRAME_FAULTS = (
    "silent_stream", "late_close", "missing_close", "duplicate_close", "out_of_order_closes",
    "silent_zero_trades", "close_ahead",
)  # fmt: skip


class FaultSet:
    """The faults of one sandbox.

    A change replaces the tuples and dicts, because another thread may read them.

    Attributes:
        may_remove_candles: whether the set has a fault that removes candles.
        may_change_frames: whether the set has a fault that loses, delays or repeats frames.
    """

    def __init__(self) -> None:
        self.may_remove_candles = False
        self.may_change_frames = False
        self._by_id: dict[int, Fault] = {}
        self._past: tuple[Fault, ...] = ()
        self._by_name: dict[str, tuple[Fault, ...]] = {}
        self._last_id = 0

    def __bool__(self) -> bool:
        return bool(self._by_name)

    def add(self, fault: Fault, now_ms: int) -> int:
        """Add a fault; return its id for `remove`.

        Raises:
            UsageError: if the fault is unknown, or a field is not allowed.
        """
        fault = normalized(fault)
        if fault.start_ms is None and fault.name in CANDLE_FAULTS:
            fault = msgspec.structs.replace(fault, start_ms=now_ms)
        self._last_id += 1
        self._by_id = {**self._by_id, self._last_id: fault}
        self._index()
        return self._last_id

    def remove(self, fault_id: int, now_ms: int) -> None:
        """Remove a fault.

        Raises:
            UsageError: if no fault has this id.
        """
        if fault_id not in self._by_id:
            raise UsageError(f"fault: no id {fault_id}", "GET /control lists them")
        fault = self._by_id[fault_id]
        self._by_id = {key: value for key, value in self._by_id.items() if key != fault_id}
        if fault.name in CANDLE_FAULTS and (fault.start_ms or 0) < now_ms:
            if fault.name != "new_listing" and (fault.stop_ms is None or fault.stop_ms > now_ms):
                fault = msgspec.structs.replace(fault, stop_ms=now_ms)
            self._past = (*self._past, fault)
        self._index()

    def clear(self, now_ms: int) -> None:
        """Remove all faults."""
        for fault_id in self._by_id:
            self.remove(fault_id, now_ms)

    def all(self) -> dict[int, Fault]:
        """Return all faults by id, including past and future ones."""
        return self._by_id

    def named(self, name: str) -> tuple[Fault, ...]:
        """Return all faults of this name, including removed halts and listings."""
        return self._by_name.get(name, ())

    def concerning(self, name: str, market: str, symbol: str = "", interval: str = "") -> Iterator[Fault]:
        """Yield the faults of this name that concern a series at any time."""
        return (fault for fault in self.named(name) if fault.concerns(market, symbol, interval))

    def active(
        self, name: str, market: str, symbol: str = "", interval: str = "", *, now_ms: int
    ) -> Fault | None:
        """Return the first fault of this name that concerns a series and is active at `now_ms`."""
        if name not in self._by_name:
            return None
        return next(
            (fault for fault in self.concerning(name, market, symbol, interval) if fault.holds_at(now_ms)),
            None,
        )

    def active_for_file(self, name: str, file: ArchiveFile) -> Fault | None:
        """Return the first fault of this name that affects an archive file."""
        return next(
            (
                fault
                for fault in self.concerning(name, *file.series)
                if fault.holds_at(file.start_ms) and fault.affects_file(file.path)
            ),
            None,
        )

    def _index(self) -> None:
        by_name: dict[str, tuple[Fault, ...]] = {}
        for fault in (*self._past, *self._by_id.values()):
            by_name[fault.name] = (*by_name.get(fault.name, ()), fault)
        self._by_name = by_name
        self.may_remove_candles = any(name in by_name for name in CANDLE_FAULTS)
        self.may_change_frames = any(name in by_name for name in FRAME_FAULTS)
