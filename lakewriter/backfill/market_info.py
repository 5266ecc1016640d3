"""Facts about a market during a backfill: its time, its symbols, and the bounds of its series.

Requests are retried with growing pauses. A final refusal is raised without a retry.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from lakewriter.backfill.plan import Bounds
from lakewriter.binance.archive import ArchiveError
from lakewriter.binance.market_clients import MarketClient
from lakewriter.binance.rest import INVALID_SYMBOL, RestError
from lakewriter.clock import Clock
from lakewriter.instrument import Instrument
from lakewriter.series import Series

log = logging.getLogger(__name__)

T = TypeVar("T")

TRIES_MAX = 8

# The maximum tries of a file, and of a file with a wrong checksum. The archive may be
# replacing the file. More tries do not help.
FILE_TRIES_MAX = 5
CHECKSUM_TRIES_MAX = 3
_PAUSE_FIRST_S = 0.5
_PAUSE_MAX_S = 20.0

# The first try whose error is logged. The request has then taken seconds.
_WARN_AT_TRY = 3

# The maximum Retry-After in seconds. A longer one is an error.
_RETRY_AFTER_S_MAX = 600.0

# The maximum age of the exchange's time in seconds. An older one is fetched again.
_TIME_AGE_S_MAX = 5.0

# The maximum fetches of a time that disagrees with the host's clock, and the pause between
# them in seconds.
_TIME_TRIES_MAX = 5
_TIME_PAUSE_S = 0.1


class MarketInfo:
    """The time and the instruments of one market.

    Args:
        client: the market's client.
        clock: the clock for the age of the exchange's time.

    Attributes:
        instruments: the instruments at `as_of_ms`, by symbol.
        as_of_ms: the time of their listing; None before `load`.
    """

    def __init__(self, client: MarketClient, clock: Clock) -> None:
        self.client = client
        self.instruments: dict[str, Instrument] = {}
        self.as_of_ms: int | None = None
        self._clock = clock
        self._synced_at_s: float | None = None

    async def load(self) -> None:
        """Fetch the market's time and its instruments.

        Raises:
            RestError: if the exchange does not answer.
        """
        await self.sync_time()
        self.as_of_ms = self.client.time.now_ms()
        instruments = await ask_with_retry(self.client.rest.instruments)
        self.instruments = {each.symbol: each for each in instruments}

    async def sync_time(self, *, fresh: bool = False) -> None:
        """Fetch the exchange's time, if it is stale or `fresh` is set."""
        now_s = self._clock.monotonic_s()
        if fresh or self._synced_at_s is None or now_s - self._synced_at_s > _TIME_AGE_S_MAX:
            await self._ask_time()
            self._synced_at_s = now_s

    async def _ask_time(self) -> None:
        """Fetch the time several times, until the answers agree. If they never do, use the host's clock."""
        for _ in range(_TIME_TRIES_MAX):
            moment = await ask_with_retry(self.client.rest.server_time)
            if self.client.time.observe_server_time(moment):
                return
            await asyncio.sleep(_TIME_PAUSE_S)
        log.warning(
            "%s: serverTime %d agrees with no other clock and is ignored",
            self.client.market.name,
            moment.server_ms,
        )

    async def bounds(self, series: Series, archived_ms: int | None) -> Bounds | None:
        """Return the bounds of a series; None if neither exchange nor archive knows its symbol.

        Args:
            archived_ms: begin of its oldest archive file; None for a series without files.

        Raises:
            RestError: if the exchange does not answer.
        """
        assert self.as_of_ms is not None
        instrument = self.instruments.get(series.symbol)
        first_ms: int | None = None
        if not self.client.rest.market.counts_back_from_end:
            first_ms = await self._begin_of(lambda: self.client.rest.first_begin(series))
        rest_first_ms = first_ms
        if first_ms is None and instrument is not None:
            first_ms = instrument.onboard_ms
        known_ms = [each for each in (first_ms, archived_ms) if each is not None]
        if instrument is None and not known_ms:
            return None
        if instrument is not None and instrument.trades:
            return Bounds(min(known_ms, default=None), rest_first_ms=rest_first_ms)
        rest_stop_ms = None
        if self.client.rest.market.counts_back_from_end:  # empty pages would cover years
            last_ms = await self._begin_of(lambda: self.client.rest.last_begin(series))
            rest_stop_ms = 0 if last_ms is None else series.grid.end(last_ms)
        return Bounds(
            min(known_ms, default=None),
            rest_stop_ms,
            series.grid.floor(self.as_of_ms),
            unlisted=instrument is None,
            rest_first_ms=rest_first_ms,
        )

    async def _begin_of(self, ask: Callable[[], Awaitable[int | None]]) -> int | None:
        try:
            return await ask_with_retry(ask)
        except RestError as error:
            if error.code != INVALID_SYMBOL:
                raise
            return None  # the market no longer lists it


async def ask_with_retry(
    ask: Callable[[], Awaitable[T]],
    on_retry: Callable[[], None] = lambda: None,
    *,
    tries_max: int = TRIES_MAX,
) -> T:
    """Return the answer of `ask`; retry until it answers or its error is final.

    Args:
        on_retry: called before each retry.
        tries_max: the maximum number of tries.

    Raises:
        RestError, ArchiveError: the last error.
    """
    for tries in range(1, tries_max + 1):
        try:
            return await ask()
        except RestError as error:
            if error.is_final or tries == tries_max:
                raise
            if tries == _WARN_AT_TRY:
                log.warning("%s; asked up to %d times more", error, tries_max - tries)
            retry_after_s = 0.0
        except ArchiveError as error:
            retry_after_s = error.retry_after_s or 0.0
            checksum_tries_max = (
                min(tries_max, CHECKSUM_TRIES_MAX) if error.fault == "checksum" else tries_max
            )
            if not error.is_retryable or tries >= checksum_tries_max or retry_after_s > _RETRY_AFTER_S_MAX:
                raise
        pause_s = min(_PAUSE_MAX_S, _PAUSE_FIRST_S * 2.0 ** (tries - 1))
        on_retry()
        await asyncio.sleep(retry_after_s + pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
    raise AssertionError
