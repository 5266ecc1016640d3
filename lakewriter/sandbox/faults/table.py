"""What the sandbox does wrong on request: one name for each failure, and which are active.

    faults.add(Fault("late_close", market="spot", symbols=("BTCUSDT",), value=30), now_ms)

Rule 1: `FAULTS` names every failure; what is not in it is refused.
Rule 2: a fault holds while start_ms <= simulated time < stop_ms. Five of them
select candles by their begin instead: `exchange_halt`, `new_listing`,
`delisting`, `rest_missing_rows`, `archive_missing_rows`. Those of single files of
the archive choose them by their first day, and a share of them by name.
Rule 3: candles that did not exist never will: a halt or a listing that is
taken away ends, but is not undone.

Pure: the time is told. Others do what a fault says.
"""

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from lakewriter.binance.archive_files import ArchiveFile
from lakewriter.errors import UsageError
from lakewriter.interval import parse_interval
from lakewriter.market import parse_market, parse_symbol


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One failure.

    Args:
        name: one of `FAULTS`.
        market, symbols, interval: whose; empty for all.
        start_ms, stop_ms: when, in simulated time; None for open.
        value: what `FAULTS` says of it; 0 for the default.
        retry_after_s: sent as Retry-After with a refusal; 0 for none.
        share: of the archive's files, those that have it; which ones follows from their paths.
    """

    name: str
    market: str = ""
    symbols: tuple[str, ...] = ()
    interval: str = ""
    start_ms: int | None = None
    stop_ms: int | None = None
    value: float = 0.0
    retry_after_s: float = 0.0
    share: float = 1.0

    def concerns(self, market: str, symbol: str = "", interval: str = "") -> bool:
        """Tell whether it is about this market, this symbol, this interval (its name on disk)."""
        return (
            self.market in ("", market)
            and (not self.symbols or symbol in self.symbols)
            and self.interval in ("", interval)
        )

    def holds(self, time_ms: int) -> bool:
        """Tell whether the time is in its range."""
        return (self.start_ms is None or self.start_ms <= time_ms) and (
            self.stop_ms is None or time_ms < self.stop_ms
        )

    def hits(self, path: str) -> bool:
        """Tell whether the archive's file at the path is among its share of them."""
        drawn = hashlib.blake2b(f"{self.name}{path}".encode(), digest_size=8).digest()
        return int.from_bytes(drawn) < self.share * 2**64


class FaultKind(NamedTuple):
    """What a name means.

    Args:
        value: what `Fault.value` is, with its unit; "" if it means nothing.
        default: stands for a value of 0.
        least, most: the values allowed, both inclusive.
        choices: the only values allowed; empty for any between.
        of_series: whether single symbols and intervals can have it.
        of_files: whether a share of the archive's files can have it.
    """

    description: str
    value: str = ""
    default: float = 0.0
    least: float = 0.0
    most: float = 0.0
    choices: tuple[int, ...] = ()
    of_series: bool = True
    of_files: bool = False


# What the exchange refuses with; 418 is a ban, 451 a region.
STATUSES = (400, 403, 404, 418, 429, 451, *range(500, 600))

_DAY_S = 86_400.0
_YEARS_S = 10 * 365 * _DAY_S

FAULTS: dict[str, FaultKind] = {
    "ack_then_silence": FaultKind(
        "streams of connections opened meanwhile are acknowledged and never send anything"
    ),
    "silent_stream": FaultKind("frames are lost"),
    "stalled_socket": FaultKind(
        "connections open at its start turn half open: not a frame, not a pong, ever", of_series=False
    ),
    "late_close": FaultKind("closing frames come later", "simulated seconds", 10, 0.001, _DAY_S),
    "missing_close": FaultKind("closing frames never come; open candles do"),
    "duplicate_close": FaultKind("each closing frame is sent twice"),
    "out_of_order_closes": FaultKind("of two consecutive candles the newer one closes first"),
    "close_ahead": FaultKind(
        "closing frames are of a later candle, and stamped so much later", "simulated seconds", 3600, 1, _YEARS_S
    ),
    "silent_zero_trades": FaultKind("no frame at all for candles without trades"),
    "connection_age": FaultKind(
        "connections end at this age instead of 24 hours", "simulated hours", 24, 1e-6, 24, of_series=False
    ),
    "server_shutdown": FaultKind(
        "open connections are told serverShutdown at its start, and closed with 1001",
        "real seconds between", 1, 0.001, 3600, of_series=False,
    ),
    "close_code": FaultKind(
        "open connections end at its start", "close code; 1006 ends without a word", 1001,
        choices=(1001, 1006, 1008), of_series=False,
    ),
    "fewer_streams": FaultKind(
        "a connection carries fewer streams", "streams", 50, 1, 1024, of_series=False
    ),
    "fewer_messages": FaultKind(
        "a client may send fewer messages", "messages a second", 2, 1, 10, of_series=False
    ),
    "refuse_handshake": FaultKind(
        "connections are refused", "HTTP status", 503, choices=STATUSES, of_series=False
    ),
    "rest_status": FaultKind("REST calls are refused", "HTTP status", 503, choices=STATUSES),
    "rest_lag": FaultKind(
        "a candle appears in klines only so long after its close", "simulated seconds", 10, 0.001, _DAY_S
    ),
    "rest_unsettled": FaultKind(
        "a candle's row in klines is unfinished so long after its close", "simulated seconds", 10, 0.001, _DAY_S
    ),
    "rest_missing_rows": FaultKind("candles that begin between start and stop are absent from klines"),
    "slow_rest": FaultKind("REST calls take so long", "real seconds", 1, 0.001, 3600),
    "time_off": FaultKind(
        "serverTime is wrong", "simulated seconds ahead", 3600, -_YEARS_S, _YEARS_S, of_series=False
    ),
    "time_microseconds": FaultKind("serverTime is in microseconds", of_series=False),
    "archive_status": FaultKind(
        "archive files are refused", "HTTP status", 503, choices=STATUSES, of_files=True
    ),
    "slow_archive": FaultKind("archive files take so long", "real seconds", 1, 0.001, 3600, of_files=True),
    "archive_missing_file": FaultKind("archive files do not exist", of_files=True),
    "archive_missing_checksum": FaultKind("checksums of archive files do not exist", of_files=True),
    "archive_wrong_checksum": FaultKind("checksums of archive files are of other bytes", of_files=True),
    "archive_corrupt_zip": FaultKind(
        "bytes of archive files are flipped", "1: their checksums are of the flipped ones", 0, 0, 1, (0, 1),
        of_files=True,
    ),
    "archive_missing_rows": FaultKind(
        "candles that begin between start and stop are absent from archive files", of_files=True
    ),
    "archive_list_status": FaultKind(
        "lists of archive files are refused", "HTTP status", 403, choices=STATUSES
    ),
    "exchange_halt": FaultKind("candles that begin between start and stop do not exist"),
    "new_listing": FaultKind("symbols are unknown before start, and trade from then on"),
    "delisting": FaultKind(
        "symbols do not trade from start to stop", "1: they vanish from exchangeInfo", 0, 0, 1, (0, 1)
    ),
}  # fmt: skip

# Their open start is the moment they are added; and what they did stays done.
_LASTING = ("exchange_halt", "new_listing", "delisting")

# What is asked for every frame, and so not asked if there is none of them.
_OF_FRAMES = (
    "silent_stream", "late_close", "missing_close", "duplicate_close", "out_of_order_closes",
    "silent_zero_trades", "close_ahead",
)  # fmt: skip


class Faults:
    """The faults of one sandbox.

    Changes replace tuples, never alter them: a thread may read meanwhile.

    Attributes:
        touch_candles: whether any of them may make a candle not exist.
        touch_frames: whether any of them may lose, delay or repeat a frame.
    """

    def __init__(self) -> None:
        self.touch_candles = False
        self.touch_frames = False
        self._listed: dict[int, Fault] = {}
        self._past: tuple[Fault, ...] = ()
        self._by_name: dict[str, tuple[Fault, ...]] = {}
        self._added = 0

    def __bool__(self) -> bool:
        return bool(self._by_name)

    def add(self, fault: Fault, now_ms: int) -> int:
        """Let something go wrong, and return the id to take it away with.

        Raises:
            UsageError: if there is no such fault, or it cannot be so.
        """
        fault = checked(fault)
        if fault.start_ms is None and fault.name in _LASTING:
            fault = msgspec.structs.replace(fault, start_ms=now_ms)
        self._added += 1
        self._listed = {**self._listed, self._added: fault}
        self._index()
        return self._added

    def remove(self, fault_id: int, now_ms: int) -> None:
        """Let it go right again.

        Raises:
            UsageError: if there is no fault of that id.
        """
        if fault_id not in self._listed:
            raise UsageError(f"fault: no id {fault_id}", "GET /control lists them")
        fault = self._listed[fault_id]
        self._listed = {key: value for key, value in self._listed.items() if key != fault_id}
        if fault.name in _LASTING and (fault.start_ms or 0) < now_ms:
            if fault.name != "new_listing" and (fault.stop_ms is None or fault.stop_ms > now_ms):
                fault = msgspec.structs.replace(fault, stop_ms=now_ms)
            self._past = (*self._past, fault)
        self._index()

    def clear(self, now_ms: int) -> None:
        """Let everything go right again."""
        for fault_id in self._listed:
            self.remove(fault_id, now_ms)

    def all(self) -> dict[int, Fault]:
        """Return the faults by id, also those whose time is yet to come or over."""
        return self._listed

    def named(self, name: str) -> tuple[Fault, ...]:
        """Return every fault of that name, whoever it concerns; also past halts and listings."""
        return self._by_name.get(name, ())

    def of(self, name: str, market: str, symbol: str = "", interval: str = "") -> Iterator[Fault]:
        """Iterate over the faults of that name that concern a series, whenever they hold."""
        return (fault for fault in self.named(name) if fault.concerns(market, symbol, interval))

    def active(
        self, name: str, market: str, symbol: str = "", interval: str = "", *, now_ms: int
    ) -> Fault | None:
        """Return the first fault of that name that concerns a series and holds now."""
        if name not in self._by_name:
            return None
        return next((fault for fault in self.of(name, market, symbol, interval) if fault.holds(now_ms)), None)

    def of_file(self, name: str, file: ArchiveFile) -> Fault | None:
        """Return the first fault of that name that a file of the archive has."""
        return next(
            (
                fault
                for fault in self.of(name, *file.series)
                if fault.holds(file.start_ms) and fault.hits(file.path)
            ),
            None,
        )

    def _index(self) -> None:
        by_name: dict[str, tuple[Fault, ...]] = {}
        for fault in (*self._past, *self._listed.values()):
            by_name[fault.name] = (*by_name.get(fault.name, ()), fault)
        self._by_name = by_name
        self.touch_candles = any(name in by_name for name in _LASTING)
        self.touch_frames = any(name in by_name for name in _OF_FRAMES)


def checked(fault: Fault) -> Fault:
    """Return the fault with its default value, symbols in upper case and its interval's name on disk.

    Raises:
        UsageError: if there is no such fault, or it cannot be so.
    """
    kind = FAULTS.get(fault.name)
    if kind is None:
        raise UsageError(f"fault: {fault.name!r} is unknown", "lakewriter sandbox --list-faults")
    if fault.market:
        parse_market(fault.market)
    if not kind.of_series and (fault.symbols or fault.interval):
        raise UsageError(f"fault: {fault.name} is of whole markets: it takes no symbols and no interval")
    if fault.start_ms is not None and fault.stop_ms is not None and fault.start_ms >= fault.stop_ms:
        raise UsageError(f"fault: {fault.name} stops before it starts")
    if not 0 <= fault.retry_after_s <= _DAY_S:
        raise UsageError(f"fault: retry_after_s: {fault.retry_after_s:g} is not between 0 and {_DAY_S:g}")
    if not 0 < fault.share <= 1:
        raise UsageError(f"fault: share: {fault.share:g} is not above 0, and 1 at most")
    if fault.share != 1 and not kind.of_files:
        raise UsageError(f"fault: {fault.name} is not of archive files: it takes no share")
    interval = parse_interval(fault.interval).name if fault.interval else ""
    return msgspec.structs.replace(
        fault,
        symbols=tuple(map(parse_symbol, fault.symbols)),
        interval=interval,
        value=_value(fault.name, kind, fault.value),
    )


def _value(name: str, kind: FaultKind, value: float) -> float:
    if value == 0:
        return kind.default
    if not kind.value:
        raise UsageError(f"fault: {name} takes no value")
    if kind.choices and value not in kind.choices:
        some = (
            "400, 403, 404, 418, 429, 451 or 5xx"
            if kind.choices is STATUSES
            else ", ".join(map(str, kind.choices))
        )
        raise UsageError(f"fault: {name}: {value:g} is no value: {kind.value}, {some}")
    if not kind.choices and not kind.least <= value <= kind.most:
        raise UsageError(
            f"fault: {name}: {value:g} is no value: {kind.value}, {kind.least:g} to {kind.most:g}"
        )
    return value
