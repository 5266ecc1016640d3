"""What is known of a market while its history is fetched: its time, its symbols, where series begin.

Asks until it is answered, with growing pauses; only a refusal that would be the
same again is passed on.
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

# A file whose bytes are not right may be replaced just now; more tries would not mend it.
FILE_TRIES_MAX = 5
CHECKSUM_TRIES_MAX = 3
_PAUSE_FIRST_S = 0.5
_PAUSE_MAX_S = 20.0

# A question that was refused so often has taken seconds: that is said.
_SAID_AT = 3

# Who is told to wait longer than this gives up, and says so.
_PATIENCE_S = 600.0

# The exchange's time is asked for again when it is older than this.
_TIME_AGE_S_MAX = 5.0

# A time that the host's clock does not bear out is asked for so often, so far apart.
_MOMENTS_MAX = 5
_APART_S = 0.1


class MarketInfo:
    """One market.

    Args:
        door: the way to it.
        clock: for waiting.
    """

    def __init__(self, door: MarketClient, clock: Clock) -> None:
        self.door = door
        self.instruments: dict[str, Instrument] = {}
        self.as_of_ms: int | None = None
        self._clock = clock
        self._timed_s: float | None = None

    async def look(self) -> None:
        """Learn the market's time and what it lists.

        Raises:
            RestError: if it does not say.
        """
        await self.sync()
        self.as_of_ms = self.door.time.now_ms()
        listed = await asking(self.door.rest.instruments)
        self.instruments = {each.symbol: each for each in listed}

    async def sync(self, *, fresh: bool = False) -> None:
        """Learn the exchange's time anew; unless `fresh`, not if that was a moment ago."""
        now_s = self._clock.monotonic_s()
        if fresh or self._timed_s is None or now_s - self._timed_s > _TIME_AGE_S_MAX:
            await self._learn_time()
            self._timed_s = now_s

    async def _learn_time(self) -> None:
        """Ask for the time until the answers agree; without that the host's clock has to do."""
        for _ in range(_MOMENTS_MAX):
            moment = await asking(self.door.rest.server_time)
            if self.door.time.observe_server_time(moment):
                return
            await asyncio.sleep(_APART_S)
        log.warning(
            "%s: serverTime %d agrees with nothing else and is not believed",
            self.door.market.name,
            moment.server_ms,
        )

    async def bounds(self, series: Series, archived_ms: int | None) -> Bounds | None:
        """Return where a series begins and ends; None if nobody has heard of its symbol.

        Args:
            archived_ms: where its oldest file of the archive begins; None if it has none.

        Raises:
            RestError: if the exchange does not say.
        """
        assert self.as_of_ms is not None
        listed = self.instruments.get(series.symbol)
        first_ms: int | None = None
        if not self.door.rest.market.counts_back_from_end:
            first_ms = await self._begin(lambda: self.door.rest.first_begin(series))
        if first_ms is None and listed is not None:
            first_ms = listed.onboard_ms
        firsts = [each for each in (first_ms, archived_ms) if each is not None]
        if listed is None and not firsts:
            return None
        if listed is not None and listed.trades:
            return Bounds(min(firsts, default=None))
        rest_stop_ms = None
        if self.door.rest.market.counts_back_from_end:  # its pages would lead through years of nothing
            last_ms = await self._begin(lambda: self.door.rest.last_begin(series))
            rest_stop_ms = 0 if last_ms is None else series.grid.end(last_ms)
        return Bounds(
            min(firsts, default=None), rest_stop_ms, series.grid.floor(self.as_of_ms), gone=listed is None
        )

    async def _begin(self, ask: Callable[[], Awaitable[int | None]]) -> int | None:
        try:
            return await asking(ask)
        except RestError as error:
            if error.code != INVALID_SYMBOL:
                raise
            return None  # the market does not list it any more


async def asking(
    ask: Callable[[], Awaitable[T]],
    retried: Callable[[], None] = lambda: None,
    *,
    tries_max: int = TRIES_MAX,
) -> T:
    """Ask again until there is an answer, or one that will not change.

    Args:
        retried: told of each time that it is asked again.
        tries_max: how often to ask in all.

    Raises:
        RestError, ArchiveError: if it stays without an answer.
    """
    for tried in range(1, tries_max + 1):
        try:
            return await ask()
        except RestError as error:
            if error.final or tried == tries_max:
                raise
            if tried == _SAID_AT:
                log.warning("%s; asked up to %d times more", error, tries_max - tried)
            asked_s = 0.0
        except ArchiveError as error:
            asked_s = error.retry_after_s or 0.0
            most = min(tries_max, CHECKSUM_TRIES_MAX) if error.fault == "checksum" else tries_max
            if not error.retryable or tried >= most or asked_s > _PATIENCE_S:
                raise
        pause_s = min(_PAUSE_MAX_S, _PAUSE_FIRST_S * 2.0 ** (tried - 1))
        retried()
        await asyncio.sleep(asked_s + pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
    raise AssertionError
