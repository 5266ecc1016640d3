"""The merger: each candle of a batch is in its partition, or returned as unmerged."""

import asyncio
from datetime import date
from pathlib import Path

import pytest

from lakewriter.lake.lake import BATCH_PARTITIONS_MAX, LakeStore
from lakewriter.partition import Partition, partition_of
from lakewriter.recording.flushing.buffer import Batch, Buffer
from lakewriter.recording.flushing.merger import FlushResult, Merger, groups
from support.candles import stream_candle
from support.refusing_lake import begins

SYMBOLS = [f"S{number}USDT" for number in range(2 * BATCH_PARTITIONS_MAX + 3)]


def batch_of(symbols: list[str], minutes: range, trade_num: int = 10) -> Batch:
    buffer = Buffer()
    buffer.add(
        (stream_candle(minute, symbol, trade_num=trade_num) for symbol in symbols for minute in minutes), 0.0
    )
    return buffer.seal()


def merge(store: LakeStore, *batches: Batch) -> list[FlushResult]:
    """Merge batches one after the other."""

    async def main() -> list[FlushResult]:
        merger = Merger(store)
        try:
            return [await merger.merge(batch) for batch in batches]
        finally:
            merger.close()

    return asyncio.run(main())


@pytest.fixture
def store(tmp_path: Path) -> LakeStore:
    return LakeStore.create(str(tmp_path / "lake"), "test")


def test_more_partitions_than_are_merged_together(store: LakeStore) -> None:
    """All of several groups are merged, in new and existing files; a second merge changes nothing."""
    first, second = batch_of(SYMBOLS, range(2)), batch_of(SYMBOLS, range(1, 3))
    outcomes = merge(store, first, second, second, {})
    assert outcomes == [FlushResult({}, count, 0) for count in [2 * len(SYMBOLS)] * 3 + [0]]
    assert {len(begins(store, symbol)) for symbol in SYMBOLS} == {3}


def test_groups_are_bounded_by_what_their_files_hold() -> None:
    """A group has dozens of days of minutes or of long candles, and few days of seconds."""
    batch: Batch = {
        Partition("spot", f"S{number}USDT", interval, date(2024, 6, 30)): [stream_candle(0)]
        for interval in ("1mo", "1m", "1s")
        for number in range(100)
    }
    found = list(groups(batch))
    assert {partition: rows for group in found for partition, rows in group.items()} == batch
    assert [len(group) for group in found] == [64, 36 + 28, 64, 8] + [1] * 100
    assert list(groups({})) == []


def test_corrections_are_counted_and_named(store: LakeStore, caplog: pytest.LogCaptureFixture) -> None:
    """A candle with more trades than the existing one counts as a correction of its partition."""
    [_, corrected] = merge(store, batch_of(SYMBOLS[:3], range(1)), batch_of(SYMBOLS[1:2], range(1), 11))
    assert corrected == FlushResult({}, 1, 1)
    assert "spot S1USDT 1m 2024-06-30: 1 candles corrected" in caplog.text


def test_a_partition_that_refuses_holds_up_none_of_its_group(
    store: LakeStore, caplog: pytest.LogCaptureFixture
) -> None:
    """An unreadable file keeps its candles in the journal; the other partitions of its group are merged."""
    bad = partition_of(stream_candle(0, SYMBOLS[5]))
    path = store.root / bad.file
    path.parent.mkdir(parents=True)
    path.write_bytes(b"PAR1, but no more of it")
    batch = batch_of(SYMBOLS, range(2))
    [outcome] = merge(store, batch)
    assert outcome == FlushResult({bad: batch[bad]}, 2 * (len(SYMBOLS) - 1), 0, refused=1)
    assert {len(begins(store, symbol)) for symbol in SYMBOLS if symbol != SYMBOLS[5]} == {2}
    assert f"{bad}: 2 candles stay in the journal: {path}: not a readable Parquet file" in caplog.text
    assert path.read_bytes() == b"PAR1, but no more of it"
