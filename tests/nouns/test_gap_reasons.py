"""The reason for an absent candle: derived from evidence, or None without evidence."""

import pytest

from lakewriter.gap import Reason
from lakewriter.gap_reasons import SymbolFacts, reason_for
from lakewriter.instrument import Instrument

BEGIN, END = 1_000, 2_000
TRADING = Instrument("A", "TRADING")


@pytest.mark.parametrize(
    ("standing", "reason"),
    [
        # What trades has no such candle once later ones came; until then it may come.
        (SymbolFacts(TRADING, 5_000, 0, 3_000), "exchange_halt"),
        (SymbolFacts(TRADING, 5_000, 0, 500), None),
        (SymbolFacts(TRADING, 5_000, None, None), None),
        (SymbolFacts(None, None, None, 3_000), "exchange_halt"),
        # Before the first candle there was nothing to trade.
        (SymbolFacts(TRADING, 5_000, 1_500, 3_000), "not_listed"),
        (SymbolFacts(Instrument("A", "TRADING", onboard_ms=1_500), 5_000, None, 3_000), "not_listed"),
        (SymbolFacts(Instrument("A", "PENDING_TRADING"), 5_000, None, None), "not_listed"),
        (SymbolFacts(None, 5_000, None, None), "not_listed"),
        (SymbolFacts(None, 5_000, 500, None), "delisted"),
        # What is not listed any more, or does not trade, has ended.
        (SymbolFacts(None, 5_000, 0, 500), "delisted"),
        (SymbolFacts(Instrument("A", "BREAK"), 5_000, 0, 500), "delisted"),
        (SymbolFacts(Instrument("A", "SETTLING"), 5_000, 0, 500), "delisted"),
        (SymbolFacts(Instrument("A", "HALT"), 5_000, 0, 500), "exchange_halt"),
        # Candles that only a stream brought: it traded, but REST may be behind.
        (SymbolFacts(TRADING, 5_000, 0, None, 500, 500), None),
        (SymbolFacts(None, 5_000, None, None, 500, 500), "delisted"),
        # A list from before the candle's end proves nothing.
        (SymbolFacts(None, 1_500, 0, 500), None),
        (SymbolFacts(Instrument("A", "BREAK"), 1_999, 0, 500), None),
        (SymbolFacts(None, None, 0, 500), None),
        # Delivery is told by its date.
        (SymbolFacts(Instrument("A", "TRADING", delivery_ms=1_000), 500, 0, 500), "delivered"),
        (SymbolFacts(Instrument("A", "SETTLING", delivery_ms=4_000), 5_000, 0, 500), "delivered"),
        (SymbolFacts(Instrument("A", "SETTLING", delivery_ms=9_000), 5_000, 0, 500), "delisted"),
        # Dates that candles refute are none: it was listed before, and lives on.
        (
            SymbolFacts(Instrument("A", "TRADING", onboard_ms=10**14), 5_000, None, 3_000, 500, 3_000),
            "exchange_halt",
        ),
        (SymbolFacts(Instrument("A", "TRADING", onboard_ms=10**14), 5_000, None, 500, 500, 500), None),
        (SymbolFacts(TRADING, 5_000, 1_500, 3_000, 500, 3_000), "exchange_halt"),
        (SymbolFacts(Instrument("A", "TRADING", delivery_ms=400), 5_000, 0, 500, 500, 500), None),
        (
            SymbolFacts(Instrument("A", "TRADING", delivery_ms=400), 5_000, 0, 3_000, 500, 3_000),
            "exchange_halt",
        ),
        (SymbolFacts(Instrument("A", "BREAK", delivery_ms=400), 5_000, 0, 500, 500, 500), "delisted"),
    ],
)
def test_reason(standing: SymbolFacts, reason: Reason | None) -> None:
    """The facts on a symbol give the reason for a missing candle from 1,000 to 2,000 ms."""
    assert reason_for(BEGIN, END, standing) == reason
