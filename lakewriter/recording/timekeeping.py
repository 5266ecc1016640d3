"""The requests for one market's time.

They are frequent at the start and while the time is in doubt, then twice a minute.
`Agreement` interprets the answers. `ExpectedSeries` applies the time to the series.
"""

import asyncio
import logging
import random

from lakewriter.binance.market_clients import MarketClient
from lakewriter.binance.rest import RestError

log = logging.getLogger(__name__)

# The longer the interval between answers, the more exact the rate. Three answers settle
# the time if the host's clock is wrong.
_AFTER_S = (0.05, 0.05, 0.3, 0.5, 2.0, 7.0, 20.0)
_EVERY_S = 30.0

# Pauses while the time is in doubt. After these pauses, all last `_DOUBT_EVERY_S`.
_DOUBT_AFTER_S = (0.05, 0.05, 0.3, 1.0, 5.0)
_DOUBT_EVERY_S = 10.0
_CHECK_S = 0.5

# The first rejected answer is logged, and then one of this many.
_DOUBT_LOG_EVERY = 100


class Timekeeper:
    """The task that keeps the time of one market current.

    Args:
        client: the client of the market.

    Attributes:
        doubted: number of answers that agreed with no other source, and were not used.
    """

    def __init__(self, client: MarketClient) -> None:
        self.doubted = 0
        self._client = client
        self._waits_s = iter(_AFTER_S)
        self._doubts_s = iter(_DOUBT_AFTER_S)

    async def ask(self) -> bool:
        """Fetch the time; retry until REST answers. Return whether the first request succeeded."""
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
                "%s: serverTime %d agrees with no other clock and is ignored (%d so far)",
                self._client.market.name,
                server_ms,
                self.doubted,
            )
