"""A lake that counts its listings, and one of 36 partitions."""

import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

from lakewriter.interval import DAY_MS
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.listing import PartitionFiles
from lakewriter.lake.partition_filter import ALL, PartitionSelection
from lakewriter.partition import Partition
from support.lakes import BEGIN_MS, make_lake, rest_candle


class WatchedLake(LakeStore):
    """A lake that counts its listings and keeps the listed partitions."""

    listed: list[Partition]
    listings = 0

    def files(self, wanted: PartitionSelection = ALL) -> Iterator[PartitionFiles]:
        self.listings += 1
        for found in super().files(wanted):
            self.listed.append(found.partition)
            yield found

    def newest(self, wanted: PartitionSelection = ALL) -> Iterator[PartitionFiles]:
        self.listings += 1
        for found in super().newest(wanted):
            self.listed.append(found.partition)
            yield found

    def ends(self, wanted: PartitionSelection, *, of_days: bool) -> Iterator[PartitionFiles]:
        self.listings += 1
        for found in super().ends(wanted, of_days=of_days):
            self.listed.append(found.partition)
            yield found


@functools.cache
def _lake_of_36(directory: Path) -> Path:
    """Create two markets, three symbols, two intervals and three days: 36 partitions."""
    root = directory / "watched"
    make_lake(
        root,
        [
            rest_candle(0, market=market, symbol=symbol, interval=interval,
                   begin_ms=BEGIN_MS + day * DAY_MS, end_ms=BEGIN_MS + day * DAY_MS + 3_600_000)
            for market in ("spot", "usdt_futures")
            for symbol in ("AUSDT", "BUSDT", "币USDT")
            for interval in ("1m", "5m")
            for day in range(3)
        ],
    )  # fmt: skip
    return root


@pytest.fixture
def watched(tmp_path_factory: pytest.TempPathFactory) -> WatchedLake:
    """Return the lake of 36 partitions, which all tests read and none changes."""
    store = WatchedLake.local(_lake_of_36(tmp_path_factory.getbasetemp()))
    store.listed = []
    return store
