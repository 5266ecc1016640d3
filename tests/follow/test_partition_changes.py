"""Partition changes: the versions that are kept are limited."""

from datetime import date, timedelta
from pathlib import Path

import pytest

from lakewriter.follow import partition_changes as module
from lakewriter.follow.partition_changes import PartitionChanges
from lakewriter.follow.wanted_series import WantedSeries
from lakewriter.partition import Partition
from lakewriter.subscription import parse_subscription
from support.lakes import make_lake


def test_a_long_history_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The versions of the newest partitions stay; noting one of them again forgets none."""
    monkeypatch.setattr(module, "TRACKED_MAX", 3)
    wanted = WantedSeries([parse_subscription("spot:*:1m")])
    changes = PartitionChanges(make_lake(tmp_path / "lake"), wanted, lambda *_: False, lambda _: 0)
    days = [Partition("spot", "BTCUSDT", "1m", date(2024, 1, 1) + timedelta(day)) for day in range(10)]
    for day in [*days, days[-1]]:
        changes.note(day, "1-2-3")
    assert list(changes._versions) == days[-3:]
