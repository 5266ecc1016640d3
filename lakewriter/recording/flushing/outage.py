"""The outage of an object store: when to ask the store again, and one log line for its begin and its end."""

import logging
import random

from lakewriter.lake.storage import StoreAwayError

log = logging.getLogger(__name__)

# Pauses between two attempts. Each is twice the one before; a random part is left out, so
# that recorders of many hosts do not ask at once.
PAUSE_S_MIN = 2.0
PAUSE_S_MAX = 60.0
JITTER = 0.5


class Outage:
    """The present outage of one lake's store, if there is one. Monotonic times are passed in."""

    def __init__(self) -> None:
        self._since_s: float | None = None
        self._next_s = 0.0
        self._pause_s = PAUSE_S_MIN

    @property
    def lasts(self) -> bool:
        """Whether the store was away at the last attempt."""
        return self._since_s is not None

    @property
    def since_s(self) -> float | None:
        """The time of the first failed attempt; None without an outage."""
        return self._since_s

    def is_due(self, now_s: float) -> bool:
        """Return whether the store should be asked again."""
        return self.lasts and now_s >= self._next_s

    def failed(self, error: StoreAwayError, now_s: float, waiting: str) -> None:
        """Note an attempt that found the store away; log the first one.

        Args:
            waiting: a text on the candles that wait, and on their limit.
        """
        if self._since_s is None:
            self._since_s = now_s
            self._pause_s = PAUSE_S_MIN
            log.error("%s; %s; lakewriter asks again until the store is back", error.reason, waiting)
        self._next_s = now_s + self._pause_s * random.uniform(1 - JITTER, 1)  # noqa: S311 - jitter
        self._pause_s = min(2 * self._pause_s, PAUSE_S_MAX)

    def ended(self, now_s: float, waiting: int) -> None:
        """Note an attempt that the store served; log the end of an outage.

        Args:
            waiting: the number of candles that waited.
        """
        if self._since_s is None:
            return
        log.warning(
            "the store is back after %(seconds).0f s; %(candles)d candles waited in the journal",
            {"seconds": now_s - self._since_s, "candles": waiting},
        )
        self._since_s = None
