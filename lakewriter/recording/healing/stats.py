"""Counts of a healer."""

import msgspec


class HealerStats(msgspec.Struct):
    """Counts since a healer was created.

    Args:
        asked: pages requested.
        healed: candles that REST delivered and the stream did not.
        corrected: candles whose second request returned more trades.
        explained: candles that the exchange does not have, with a reason.
        unhealable: candles that were given up after an error.
        errors: requests that failed.
    """

    asked: int = 0
    healed: int = 0
    corrected: int = 0
    explained: int = 0
    unhealable: int = 0
    errors: int = 0
