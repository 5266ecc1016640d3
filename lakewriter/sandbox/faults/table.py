"""The sandbox's faults: `FAULTS` has the name, value, default and limits of each.

    Fault("late_close", market="spot", symbols=("BTCUSDT",), value=30)

Rule: only faults in `FAULTS` are accepted. Pure.
"""

import hashlib
from typing import NamedTuple

import msgspec

from lakewriter.errors import UsageError
from lakewriter.interval import parse_interval
from lakewriter.market import parse_market, parse_symbol


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One fault.

    Args:
        name: a name in `FAULTS`.
        market, symbols, interval: the affected series; empty for all series.
        start_ms, stop_ms: its range in simulated time; None for an open range.
        value: the value that `FAULTS` describes; 0 for the default.
        retry_after_s: the Retry-After of a refusal; 0 to send no Retry-After.
        share: the affected part of the archive's files. A file's path decides.
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
        """Return whether the fault affects a series; the interval has its name on disk."""
        return (
            self.market in ("", market)
            and (not self.symbols or symbol in self.symbols)
            and self.interval in ("", interval)
        )

    def holds_at(self, time_ms: int) -> bool:
        """Return whether the fault is active at this time."""
        return (self.start_ms is None or self.start_ms <= time_ms) and (
            self.stop_ms is None or time_ms < self.stop_ms
        )

    def affects_file(self, path: str) -> bool:
        """Return whether the archive file at this path is in the affected share."""
        drawn = hashlib.blake2b(f"{self.name}{path}".encode(), digest_size=8).digest()
        return int.from_bytes(drawn) < self.share * 2**64


class FaultKind(NamedTuple):
    """The description and the limits of one fault.

    Args:
        value: the meaning of `Fault.value`, with its unit; "" for a fault without a value.
        default: the value that replaces 0.
        value_min, value_max: the allowed values, both inclusive.
        choices: the only allowed values; empty to allow all values between the limits.
        takes_series: whether a fault can name symbols and an interval.
        takes_share: whether a fault can name a share of the archive's files.
    """

    description: str
    value: str = ""
    default: float = 0.0
    value_min: float = 0.0
    value_max: float = 0.0
    choices: tuple[int, ...] = ()
    takes_series: bool = True
    takes_share: bool = False


# HTTP statuses of refusals. 418 is a ban, and 451 is a blocked region.
STATUSES = (400, 403, 404, 418, 429, 451, *range(500, 600))

_DAY_S = 86_400.0
_YEARS_S = 10 * 365 * _DAY_S

FAULTS: dict[str, FaultKind] = {
    "ack_then_silence": FaultKind(
        "streams of connections opened meanwhile are acknowledged and never send anything"
    ),
    "silent_stream": FaultKind("frames are lost"),
    "stalled_socket": FaultKind(
        "connections open at its start turn half open: not a frame, not a pong, ever", takes_series=False
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
        "connections end at this age instead of 24 hours", "simulated hours", 24, 1e-6, 24, takes_series=False
    ),
    "server_shutdown": FaultKind(
        "open connections are told serverShutdown at its start, and closed with 1001",
        "real seconds between", 1, 0.001, 3600, takes_series=False,
    ),
    "close_code": FaultKind(
        "open connections end at its start", "close code; 1006 ends without a word", 1001,
        choices=(1001, 1006, 1008), takes_series=False,
    ),
    "fewer_streams": FaultKind(
        "a connection carries fewer streams", "streams", 50, 1, 1024, takes_series=False
    ),
    "fewer_messages": FaultKind(
        "a client may send fewer messages", "messages a second", 2, 1, 10, takes_series=False
    ),
    "refuse_handshake": FaultKind(
        "connections are refused", "HTTP status", 503, choices=STATUSES, takes_series=False
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
        "serverTime is wrong", "simulated seconds ahead", 3600, -_YEARS_S, _YEARS_S, takes_series=False
    ),
    "time_microseconds": FaultKind("serverTime is in microseconds", takes_series=False),
    "archive_status": FaultKind(
        "archive files are refused", "HTTP status", 503, choices=STATUSES, takes_share=True
    ),
    "slow_archive": FaultKind("archive files take so long", "real seconds", 1, 0.001, 3600, takes_share=True),
    "archive_missing_file": FaultKind("archive files do not exist", takes_share=True),
    "archive_missing_checksum": FaultKind("checksums of archive files do not exist", takes_share=True),
    "archive_wrong_checksum": FaultKind("checksums of archive files are of other bytes", takes_share=True),
    "archive_corrupt_zip": FaultKind(
        "bytes of archive files are flipped", "1: their checksums are of the flipped ones", 0, 0, 1, (0, 1),
        takes_share=True,
    ),
    "archive_missing_rows": FaultKind(
        "candles that begin between start and stop are absent from archive files", takes_share=True
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


def normalized(fault: Fault) -> Fault:
    """Return the fault with its default value, upper-case symbols and its interval's name on disk.

    Raises:
        UsageError: if the fault is unknown, or a field is not allowed.
    """
    kind = FAULTS.get(fault.name)
    if kind is None:
        raise UsageError(f"fault: {fault.name!r} is unknown", "lakewriter sandbox --list-faults")
    if fault.market:
        parse_market(fault.market)
    if not kind.takes_series and (fault.symbols or fault.interval):
        raise UsageError(f"fault: {fault.name} is of whole markets: it takes no symbols and no interval")
    if fault.start_ms is not None and fault.stop_ms is not None and fault.start_ms >= fault.stop_ms:
        raise UsageError(f"fault: {fault.name} stops before it starts")
    if not 0 <= fault.retry_after_s <= _DAY_S:
        raise UsageError(f"fault: retry_after_s: {fault.retry_after_s:g} is not between 0 and {_DAY_S:g}")
    if not 0 < fault.share <= 1:
        raise UsageError(f"fault: share: {fault.share:g} is not above 0, and 1 at most")
    if fault.share != 1 and not kind.takes_share:
        raise UsageError(f"fault: {fault.name} is not of archive files: it takes no share")
    interval = parse_interval(fault.interval).name if fault.interval else ""
    return msgspec.structs.replace(
        fault,
        symbols=tuple(map(parse_symbol, fault.symbols)),
        interval=interval,
        value=_checked_value(fault.name, kind, fault.value),
    )


def _checked_value(name: str, kind: FaultKind, value: float) -> float:
    if value == 0:
        return kind.default
    if not kind.value:
        raise UsageError(f"fault: {name} takes no value")
    if kind.choices and value not in kind.choices:
        allowed = (
            "400, 403, 404, 418, 429, 451 or 5xx"
            if kind.choices is STATUSES
            else ", ".join(map(str, kind.choices))
        )
        raise UsageError(f"fault: {name}: {value:g} is no value: {kind.value}, {allowed}")
    if not kind.choices and not kind.value_min <= value <= kind.value_max:
        raise UsageError(
            f"fault: {name}: {value:g} is no value: {kind.value}, {kind.value_min:g} to {kind.value_max:g}"
        )
    return value
