"""A recorder's journal, ledger and subscriptions, without its process."""

import os
from collections.abc import Mapping
from pathlib import Path

from lakewriter.gap import Reason
from lakewriter.lake.gaps.ledger import Ledger
from lakewriter.lake.gaps.ledgers import (
    open_ledger,
)
from lakewriter.lake.journal import Journal, create_journal
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.subscriptions import (
    confirm_subscriptions,
)
from lakewriter.series import Series
from lakewriter.subscribed_period import (
    Confirmation,
    RecorderId,
)
from support.candles import BTC
from support.lakes import BEGIN_MS

MINUTE_MS = 60_000
NOW_MS = 1_000_000_000


class LivingRecorder:
    """The journal and the ledger of a living recorder."""

    def __init__(self, root: Path, name: str = "host") -> None:
        self.journal: Journal = create_journal(root, name)
        self.ledger: Ledger = open_ledger(root, self.journal.directory.name)
        self.alive = True

    def write(self) -> None:
        changes = self.ledger.take_changes()
        if changes is not None:
            self.ledger.write(changes)

    def mark(
        self, series: Series, start: int, stop: int, reason: Reason = "pending", error: str = ""
    ) -> None:
        self.ledger.mark(series, start * MINUTE_MS, stop * MINUTE_MS, reason, NOW_MS, error)

    def die(self) -> None:
        """Release the locks, as the kernel does for a killed process."""
        self.alive = False
        os.close(self.journal._lock_fd)
        os.close(self.ledger._fd)  # type: ignore[arg-type]


CONFIG = "/etc/lakewriter.toml"


def start_recorder(store: LakeStore, *series: Series, now_ms: int = 0, name: str = CONFIG) -> Journal:
    """Create a recorder's journal, and confirm its subscribed series."""
    journal = create_journal(store.root, "test")
    confirm_series(store, journal, *series, now_ms=now_ms, name=name, starting=True)
    return journal


def confirm_series(
    store: LakeStore,
    journal: Journal,
    *series: Series,
    now_ms: int = 0,
    name: str = CONFIG,
    starting: bool = False,
    owed: Mapping[Series, int] | None = None,
) -> list[Series]:
    """Confirm a recorder's series; return the series that it unsubscribed from."""
    recorder = RecorderId(name, journal.directory.name)
    now = {"spot": now_ms, "usdt_futures": now_ms, "coin_futures": now_ms}
    return confirm_subscriptions(
        store, Confirmation(recorder, series, set(series).__contains__, now, owed or {}, starting)
    )


def kill_recorder(journal: Journal) -> None:
    """Release the lock of its journal, as the kernel does for a killed process."""
    os.close(journal._lock_fd)


def mark_gap(
    recorder: LivingRecorder, start: int, stop: int, reason: Reason = "pending", series: Series = BTC
) -> None:
    """Write a gap into the recorder's ledger."""
    recorder.ledger.mark(
        series, BEGIN_MS + start * MINUTE_MS, BEGIN_MS + stop * MINUTE_MS, reason, BEGIN_MS + 99 * MINUTE_MS
    )
    recorder.write()
