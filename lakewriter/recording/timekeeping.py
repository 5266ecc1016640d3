"""The requests for one market's time: dense at first and while in doubt, then twice a minute.

`Agreement` decides what an answer means; `ExpectedSeries` what follows for the series.
"""

import asyncio
import logging
import random

from lakewriter.binance.market_clients import MarketClient
from lakewriter.binance.rest import RestError

log = logging.getLogger(__name__)

# A longer base gives a surer rate; three answers settle it if the host's clock is wrong.
_AFTER_S = (0.05, 0.05, 0.3, 0.5, 2.0, 7.0, 20.0)
_EVERY_S = 30.0

# In doubt the pauses are shorter, but never shorter than this in the long run.
_DOUBT_AFTER_S = (0.05, 0.05, 0.3, 1.0, 5.0)
_DOUBT_EVERY_S = 10.0
_CHECK_S = 0.5

# The first answer that is not believed is logged, then one of this many.
_DOUBT_LOG_EVERY = 100


class Timekeeper:
    """Keeps the time of one market current.

    Args:
        client: the market.

    Attributes:
        doubted: answers that agreed with nothing else, and were not used.
    """

    def __init__(self, client: MarketClient) -> None:
        self.doubted = 0
        self._client = client
        self._waits_s = iter(_AFTER_S)
        self._doubts_s = iter(_DOUBT_AFTER_S)

    async def ask(self) -> bool:
        """Request the time until REST answers; return whether it did so at once."""
        failing = False
        while True:
            try:
                moment = await self._client.rest.server_time()
            except RestError as error:
                if not failing:
                    log.warning("%s: the exchange's time is not known: %s", self._client.market.name, error)
                failing = True
                await asyncio.sleep(random.uniform(1, 5))  # noqa: S311 - jitter
                continue
            known = self._client.time.known
            if self._client.time.observe_server_time(moment):
                self._doubts_s = iter(_DOUBT_AFTER_S)
            elif known or not moment.sane:
                self._log_doubted(moment.server_ms)
            return not failing

    async def wait(self) -> None:
        """Wait until the next request is due."""
        if self._client.time.needs_server_time:
            await asyncio.sleep(next(self._doubts_s, _DOUBT_EVERY_S))
            return
        left_s = next(self._waits_s, _EVERY_S)
        while left_s > 0 and not self._client.time.needs_server_time:
            nap_s = min(left_s, _CHECK_S)
            await asyncio.sleep(nap_s)
            left_s -= nap_s

    def _log_doubted(self, server_ms: int) -> None:
        self.doubted += 1
        if self.doubted == 1 or self.doubted % _DOUBT_LOG_EVERY == 0:
            log.warning(
                "%s: serverTime %d agrees with nothing else and is not believed (%d so far)",
                self._client.market.name,
                server_ms,
                self.doubted,
            )
