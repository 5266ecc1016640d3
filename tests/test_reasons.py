"""Why a candle is absent: a reason on evidence, or none."""

import pytest

from lakewriter.gap import Reason
from lakewriter.gap_reasons import Standing, reason_for
from lakewriter.instrument import Instrument

BEGIN, END = 1_000, 2_000
TRADING = Instrument("A", "TRADING")


@pytest.mark.parametrize(
    ("standing", "reason"),
    [
        # What trades has no such candle once later ones came; until then it may come.
        (Standing(TRADING, 5_000, 0, 3_000), "exchange_halt"),
        (Standing(TRADING, 5_000, 0, 500), None),
        (Standing(TRADING, 5_000, None, None), None),
        (Standing(None, None, None, 3_000), "exchange_halt"),
        # Before the first candle there was nothing to trade.
        (Standing(TRADING, 5_000, 1_500, 3_000), "not_listed"),
        (Standing(Instrument("A", "TRADING", onboard_ms=1_500), 5_000, None, 3_000), "not_listed"),
        (Standing(Instrument("A", "PENDING_TRADING"), 5_000, None, None), "not_listed"),
        (Standing(None, 5_000, None, None), "not_listed"),
        (Standing(None, 5_000, 500, None), "delisted"),
        # What is not listed any more, or does not trade, has ended.
        (Standing(None, 5_000, 0, 500), "delisted"),
        (Standing(Instrument("A", "BREAK"), 5_000, 0, 500), "delisted"),
        (Standing(Instrument("A", "SETTLING"), 5_000, 0, 500), "delisted"),
        (Standing(Instrument("A", "HALT"), 5_000, 0, 500), "exchange_halt"),
        # Candles that only a stream brought: it traded, but REST may be behind.
        (Standing(TRADING, 5_000, 0, None, 500, 500), None),
        (Standing(None, 5_000, None, None, 500, 500), "delisted"),
        # A list from before the candle's end proves nothing.
        (Standing(None, 1_500, 0, 500), None),
        (Standing(Instrument("A", "BREAK"), 1_999, 0, 500), None),
        (Standing(None, None, 0, 500), None),
        # Delivery is told by its date.
        (Standing(Instrument("A", "TRADING", delivery_ms=1_000), 500, 0, 500), "delivered"),
        (Standing(Instrument("A", "SETTLING", delivery_ms=4_000), 5_000, 0, 500), "delivered"),
        (Standing(Instrument("A", "SETTLING", delivery_ms=9_000), 5_000, 0, 500), "delisted"),
        # Dates that candles refute are none: it was listed before, and lives on.
        (
            Standing(Instrument("A", "TRADING", onboard_ms=10**14), 5_000, None, 3_000, 500, 3_000),
            "exchange_halt",
        ),
        (Standing(Instrument("A", "TRADING", onboard_ms=10**14), 5_000, None, 500, 500, 500), None),
        (Standing(TRADING, 5_000, 1_500, 3_000, 500, 3_000), "exchange_halt"),
        (Standing(Instrument("A", "TRADING", delivery_ms=400), 5_000, 0, 500, 500, 500), None),
        (Standing(Instrument("A", "TRADING", delivery_ms=400), 5_000, 0, 3_000, 500, 3_000), "exchange_halt"),
        (Standing(Instrument("A", "BREAK", delivery_ms=400), 5_000, 0, 500, 500, 500), "delisted"),
    ],
)
def test_reason(standing: Standing, reason: Reason | None) -> None:
    """Each standing gives its reason for a candle from 1,000 to 2,000."""
    assert reason_for(BEGIN, END, standing) == reason
