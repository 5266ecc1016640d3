"""The replay of dead recorders' journals during a recording."""

import asyncio
import contextlib
import logging
from concurrent.futures import ThreadPoolExecutor

from lakewriter.errors import LakeError
from lakewriter.lake.journal_replay import Replayed, replay_dead
from lakewriter.lake.lake import LakeStore
from lakewriter.recording.flushing.outage import PAUSE_S_MAX

log = logging.getLogger(__name__)


class DeadJournals:
    """The journals that dead recorders left in a lake.

    Args:
        store: the lake.

    Attributes:
        unflushed: candles that could not be merged; they stay in their journals.
    """

    def __init__(self, store: LakeStore) -> None:
        self.unflushed = 0
        self._store = store
        self._was_away = False
        self._stopping = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "replay")

    async def replay(self) -> None:
        """Merge the candles of all dead journals; retry until `stop` while an object store is away."""
        while await self._is_away():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), PAUSE_S_MAX)
            if self._stopping.is_set():
                return

    def stop(self) -> None:
        """Let the present attempt be the last."""
        self._stopping.set()

    async def _is_away(self) -> bool:
        """Merge one segment at a time; return whether the object store is away."""
        loop = asyncio.get_running_loop()
        segments = replay_dead(self._store)
        self.unflushed = 0
        is_away = False
        try:
            while replayed := await loop.run_in_executor(self._thread, next, segments, None):
                self.unflushed += replayed.waiting
                if not replayed.is_away:
                    log_replayed(replayed)
                elif not self._was_away:
                    log.error("%s stays, until the store is back: %s", replayed.name, replayed.error)
                self._was_away |= replayed.is_away
                is_away = replayed.is_away
        except (LakeError, OSError) as error:
            log.error("journals of dead recorders cannot be read: %s", error)
            self.unflushed += 1
        return is_away

    def close(self) -> None:
        """Stop the thread that merges dead journals."""
        self._thread.shutdown()


def log_replayed(replayed: Replayed) -> None:
    """Log the result of replaying one segment."""
    name = replayed.name
    log.info("replayed %d candles of a recorder that no longer lives (%s)", replayed.candles, name)
    if replayed.torn:
        log.warning("%s: dropped its incomplete last line, which was never committed", name)
    if replayed.damaged:
        log.error("%s: %d damaged lines, kept in %s.bad", name, replayed.damaged, name)
    if replayed.error:
        log.error("%s stays: %s", name, replayed.error)
