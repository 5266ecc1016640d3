"""The list of instruments of one market. It is requested regularly, and kept in the lake."""

import asyncio
import logging
import random
from typing import NamedTuple

from lakewriter.binance.market_clients import MarketClient
from lakewriter.binance.rest import RestError
from lakewriter.errors import LakewriterError
from lakewriter.instrument import Instrument
from lakewriter.lake.instruments import record_instruments
from lakewriter.lake.lake import LakeStore
from lakewriter.recording.healing.explanation import Explainer
from lakewriter.recording.subscribed_series import SubscribedSeries

log = logging.getLogger(__name__)

_CHECK_S = 0.1
_NAP_S_MAX = 1.0

# A list is not kept if the exchange's time is still unknown this long after the answer.
_TIME_PATIENCE_S = 10.0

# Minimum pause before an early request.
_EARLY_S_MIN = 30.0


class Refreshed(NamedTuple):
    """An answer with a market's list.

    Args:
        instruments: the list; empty if the list is not trusted yet.
        previous_ms: request time of the previous list; None if that is unknown.
        is_first: whether no list was known before.
    """

    instruments: list[Instrument]
    previous_ms: int | None
    is_first: bool


class InstrumentList:
    """The list of one market, which regular requests keep current.

    Args:
        market: the market's name.
        store: the lake.
        subscribed: stores the list.
        client: sends the requests.
        explainer: may need a fresh list early.
        every_s: maximum pause between requests.
    """

    def __init__(
        self,
        market: str,
        store: LakeStore,
        subscribed: SubscribedSeries,
        client: MarketClient,
        explainer: Explainer,
        *,
        every_s: float,
    ) -> None:
        self._market = market
        self._store = store
        self._subscribed = subscribed
        self._client = client
        self._explainer = explainer
        self._every_s = every_s

    async def refresh(self) -> Refreshed | None:
        """Fetch the list; return None if the request fails."""
        market = self._market
        previous_ms = self._subscribed.as_of_ms.get(market)
        is_first = market not in self._subscribed.listed
        try:
            instruments = await self._subscribed.refresh(market)
        except RestError as error:
            log.warning("the instruments of %s cannot be fetched: %s", market, error)
            return None
        self._explainer.list_refreshed(market)
        self._subscribed.warn_of_unlisted(market)
        return Refreshed(instruments, previous_ms, is_first)

    async def keep(self, instruments: list[Instrument]) -> None:
        """Write the list to the lake, with the exchange's time of the request."""
        time = self._client.time
        patience_s = _TIME_PATIENCE_S
        # The first list often arrives before the exchange's time is known.
        while not time.known and patience_s > 0:
            await asyncio.sleep(_CHECK_S)
            patience_s -= _CHECK_S
        now_ms = self._subscribed.as_of_ms.get(self._market, time.now_ms())
        if instruments and time.known:
            try:
                await asyncio.to_thread(record_instruments, self._store, self._market, instruments, now_ms)
            except (LakewriterError, OSError) as error:
                log.error("instruments: %s", error)

    async def wait(self) -> None:
        """Wait until the next request is due.

        It is due early if an absent candle needs a fresh list, and while no symbol
        of the market trades.
        """
        waited_s, wait_s = 0.0, self._every_s * random.uniform(0.9, 1.0)  # noqa: S311 - jitter
        early_s = min(_EARLY_S_MIN, self._every_s / 2)
        while waited_s < wait_s:
            nap_s = min(_NAP_S_MAX, self._every_s / 4)
            await asyncio.sleep(nap_s)
            waited_s += nap_s
            is_urgent = self._explainer.needs_list(self._market) or self._subscribed.is_halted(self._market)
            if is_urgent and waited_s >= early_s:
                break
