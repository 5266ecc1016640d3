"""The gap: candles that the grid expects and the lake lacks, and why. Pure."""

from typing import Literal, get_args

import msgspec

from lakewriter.series import Series

Reason = Literal["pending", "exchange_halt", "not_listed", "delisted", "delivered", "unhealable", "forgotten"]

REASONS: tuple[Reason, ...] = get_args(Reason)

# Reasons that no ledger gives, but the subscriptions and their absence: the series was
# not subscribed to then, on purpose; and there is no reason.
LEFT = "left"
UNEXPLAINED = "unexplained"

# Nobody has to ask again for these: the exchange has no such candle.
FINAL: frozenset[Reason] = frozenset(("exchange_halt", "not_listed", "delisted", "delivered"))

# The symbol does not trade any more.
ENDED: frozenset[Reason] = frozenset(("delisted", "delivered"))

# With one of these as its last word a series is over, or has not begun: nothing more is expected of it.
IDLE: frozenset[Reason] = ENDED | {"not_listed"}


class Gap(msgspec.Struct, frozen=True):
    """Candles of one series that begin in a half-open range and are absent.

    Args:
        market, symbol, interval: the series.
        start_ms, stop_ms: the range, by the exchange's clock.
        reason: "pending" while healing is on; "exchange_halt": the exchange has no
            such candle though the symbol trades; "not_listed", "delisted",
            "delivered": it did not trade yet, or no more; "unhealable": see `error`; "forgotten":
            it was there, and was removed on purpose.
        detected_ms: when it was noticed, by the exchange's clock.
        resolved_ms: when its reason was settled; None while pending.
        error: what went wrong; "" if nothing.
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
        """Whose candles they are."""
        return Series(self.market, self.symbol, self.interval)
