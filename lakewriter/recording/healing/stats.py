"""Counts of a healer."""

import msgspec


class HealerStats(msgspec.Struct):
    """Counts since a healer was made.

    Args:
        asked: pages requested.
        healed: candles that REST had and the stream had not delivered.
        corrected: candles whose second request returned more trades.
        explained: candles that the exchange does not have, with a reason.
        unhealable: candles given up, with the error.
        errors: requests without an answer.
    """

    asked: int = 0
    healed: int = 0
    corrected: int = 0
    explained: int = 0
    unhealable: int = 0
    errors: int = 0
