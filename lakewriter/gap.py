"""The gap: a range of candles that the lake lacks, and the reason. Pure."""

from typing import Literal, get_args

import msgspec

from lakewriter.series import Series

Reason = Literal["pending", "exchange_halt", "not_listed", "delisted", "delivered", "unhealable", "forgotten"]

REASONS: tuple[Reason, ...] = get_args(Reason)

# Reasons that occur in answers, but in no ledger. LEFT: the series was unsubscribed on purpose.
# UNEXPLAINED: no reason is known.
LEFT = "left"
UNEXPLAINED = "unexplained"

# Final reasons: the exchange has no such candle, so it is never requested again.
FINAL: frozenset[Reason] = frozenset(("exchange_halt", "not_listed", "delisted", "delivered"))

# Reasons that mean that the symbol no longer trades.
ENDED: frozenset[Reason] = frozenset(("delisted", "delivered"))

# A series whose last gap has one of these reasons expects no candles now.
IDLE: frozenset[Reason] = ENDED | {"not_listed"}


class Gap(msgspec.Struct, frozen=True):
    """Missing candles of one series, as a half-open range of begin times.

    Args:
        market, symbol, interval: the series.
        start_ms, stop_ms: the range, by the exchange's clock.
        reason: "pending": the candles are being healed; "exchange_halt": the symbol trades,
            but the exchange has no such candle; "not_listed": the symbol did not trade yet;
            "delisted", "delivered": the symbol no longer trades; "unhealable": healing
            failed, see `error`; "forgotten": the candles were removed on purpose.
        detected_ms: time at which the gap was detected, by the exchange's clock.
        resolved_ms: time at which the reason became final; None while pending.
        error: the error of the last heal; "" without an error.
    """

    market: str
    symbol: str
    interval: str
    start_ms: int
    stop_ms: int
    reason: Reason
    detected_ms: int
    resolved_ms: int | None = None
    error: str = ""

    @property
    def series(self) -> Series:
        """The series of the missing candles."""
        return Series(self.market, self.symbol, self.interval)
