"""The instrument: a symbol as the exchange lists it. Pure."""

from typing import NamedTuple


class Instrument(NamedTuple):
    """A symbol that a market lists.

    Args:
        symbol: the symbol's name.
        status: the status as the exchange names it ("TRADING", "BREAK", "SETTLING").
        contract_type: the type as the exchange names it ("PERPETUAL", "CURRENT_QUARTER"); "" on spot.
        onboard_ms: time at which trading began; None if unknown.
        delivery_ms: time at which the contract is delivered; None if unknown.
    """

    symbol: str
    status: str
    contract_type: str = ""
    onboard_ms: int | None = None
    delivery_ms: int | None = None

    @property
    def trades(self) -> bool:
        """Whether the instrument trades now."""
        return self.status == "TRADING"
