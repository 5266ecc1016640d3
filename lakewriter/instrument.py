"""The instrument: a symbol as the exchange lists it. Pure."""

from typing import NamedTuple


class Instrument(NamedTuple):
    """A symbol that a market lists.

    Args:
        symbol: its name.
        status: the exchange's word ("TRADING", "BREAK", "SETTLING").
        contract_type: the exchange's word ("PERPETUAL", "CURRENT_QUARTER"); "" on spot.
        onboard_ms: when it began to trade; None if unknown.
        delivery_ms: when it is delivered; None if unknown.
    """

    symbol: str
    status: str
    contract_type: str = ""
    onboard_ms: int | None = None
    delivery_ms: int | None = None

    @property
    def trades(self) -> bool:
        """Whether it trades now."""
        return self.status == "TRADING"
