"""The saver of a recorder's state: the gap ledger, and the rate limits that the exchange imposes.

Of a lake on an object store the saver also publishes the ledgers, and which recorders live,
for readers on other hosts.
"""

import asyncio
import logging

from lakewriter.binance.market_clients import MarketClients
from lakewriter.errors import LakeError
from lakewriter.lake.exchange_limits import RATE_LIMITS_FILE, write_rate_limits
from lakewriter.lake.gaps.ledger import Ledger, save
from lakewriter.lake.host_reports import publish_recorders
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.published import PUBLISH_EVERY_S, publish
from lakewriter.lake.storage import StoreAwayError
from lakewriter.rate_limit_state import RateLimitState

log = logging.getLogger(__name__)

_SAVE_EVERY_S = 0.25
_CHECK_S = 0.1


class StateSaver:
    """The task that writes changes of the state while a recorder runs.

    Args:
        store: the lake.
        ledger: the gaps.
        clients: have the rate limits.
    """

    def __init__(self, store: LakeStore, ledger: Ledger, clients: MarketClients) -> None:
        self._store = store
        self._ledger = ledger
        self._clients = clients
        self._saving = asyncio.Lock()
        self._save_failed = False
        self._publishing = asyncio.Lock()
        self._publish_failed = False

    async def run(self) -> None:
        """Write changes until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._save_often())
            tasks.create_task(self._keep_rate_limits())
            if self._store.is_remote:
                tasks.create_task(self._publish_often())

    async def publish(self, *, leaving: str = "") -> None:
        """Publish the ledgers and the living recorders to the lake's object store.

        An error is logged once until it succeeds.

        Args:
            leaving: the journal of this recorder, if it stops now.
        """
        async with self._publishing:
            publishing = asyncio.create_task(
                asyncio.to_thread(self._publish, self._clients.exchange_ms(), leaving)
            )
            try:
                await asyncio.shield(publishing)
            except asyncio.CancelledError:
                # A thread cannot be stopped, and the next publication must not overtake it.
                await asyncio.gather(publishing, return_exceptions=True)
                raise
            except (LakeError, OSError) as error:
                # The flusher logs that the store is away. The ledgers are published once it is back.
                if not self._publish_failed and not isinstance(error, StoreAwayError):
                    log.error("ledgers: %s; they are published when the store takes them", error)
                self._publish_failed = True
            else:
                self._publish_failed = False

    def _publish(self, exchange_ms: int | None, leaving: str) -> None:
        publish(self._store)
        publish_recorders(self._store, exchange_ms, leaving=leaving)

    async def _publish_often(self) -> None:
        while True:
            await self.publish()
            await asyncio.sleep(PUBLISH_EVERY_S)

    async def save_ledger(self) -> None:
        """Write the unsaved changes of the ledger."""
        async with self._saving:
            try:
                await save(self._ledger)
            except (LakeError, OSError) as error:
                if not self._save_failed:
                    log.error("gaps: %s; the write is retried until it succeeds", error)
                self._save_failed = True
            else:
                self._save_failed = False

    async def _save_often(self) -> None:
        while True:
            await asyncio.sleep(_SAVE_EVERY_S)
            await self.save_ledger()

    async def _keep_rate_limits(self) -> None:
        """Write the rate limits as soon as they change, for the next process."""
        written = RateLimitState()
        while True:
            await asyncio.sleep(_CHECK_S)
            state = self._clients.rate_limit_state()
            if not _is_same(state, written):
                try:
                    await asyncio.to_thread(write_rate_limits, self._store.state_dir, state)
                except OSError as error:
                    log.error("%s cannot be written: %s", RATE_LIMITS_FILE, error.strerror)
                written = state


def _is_same(one: RateLimitState, other: RateLimitState) -> bool:
    """Return whether no limit or attempt was added; expired attempts do not count."""
    newest = [
        {host: attempts_s[-1:] for host, attempts_s in state.attempts_s.items()} for state in (one, other)
    ]
    return one.held_until_s.keys() == other.held_until_s.keys() and newest[0] == newest[1]
