"""The buffer loses and duplicates no candle, even if merges fail."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakewriter.candle import Candle
from lakewriter.partition import partition_of
from lakewriter.recording.flushing.buffer import Buffer
from support.candles import candles, settled, stream_candle
from support.lengths import examples


def rows_of(batch) -> list[Candle]:
    return [row for rows in batch.values() for row in rows]


def test_one_candle_per_key():
    """Of duplicates the winner is kept, in any order of arrival."""
    few, many = stream_candle(trade_num=1), stream_candle(trade_num=2)
    for order in ([few, many], [many, few]):
        buffer = Buffer()
        buffer.add(order, 0.0)
        assert len(buffer) == 1
        assert rows_of(buffer.seal()) == [many]


def test_by_partition():
    """A seal groups candles of several days and symbols by partition."""
    buffer = Buffer()
    rows = [stream_candle(0), stream_candle(1440), stream_candle(0, symbol="ETHUSDT"), stream_candle(1)]
    buffer.add(rows, 0.0)
    batch = buffer.seal()
    assert {partition: len(kept) for partition, kept in batch.items()} == {
        partition_of(rows[0]): 2,
        partition_of(rows[1]): 1,
        partition_of(rows[2]): 1,
    }
    assert all(partition_of(row) == partition for partition, kept in batch.items() for row in kept)


def test_discard_after_the_merge():
    """Sealed rows stay until the merge of their partition; later rows are not affected."""
    buffer = Buffer()
    one, other = stream_candle(0), stream_candle(0, symbol="ETHUSDT")
    buffer.add([one, other], 0.0)
    buffer.seal()
    buffer.add([stream_candle(1)], 1.0)
    buffer.discard(partition_of(one))
    assert len(buffer) == 2
    assert rows_of(buffer.seal()) == [other, stream_candle(1)]
    buffer.discard(partition_of(stream_candle(7, symbol="XRPUSDT")))
    assert len(buffer) == 2


def test_what_failed_comes_again():
    """A candle that was not merged is part of the next seal, unless a winning duplicate arrived."""
    buffer = Buffer()
    buffer.add([stream_candle(0, trade_num=5), stream_candle(1, trade_num=5)], 0.0)
    buffer.seal()
    buffer.add([stream_candle(0, trade_num=4), stream_candle(1, trade_num=6)], 1.0)
    assert rows_of(buffer.seal()) == [stream_candle(0, trade_num=5), stream_candle(1, trade_num=6)]


def test_age():
    """The age is that of the oldest candle since the last seal."""
    buffer = Buffer()
    assert buffer.age_s(100.0) == 0.0
    buffer.add([], 50.0)
    assert buffer.age_s(100.0) == 0.0
    buffer.add([stream_candle(0)], 60.0)
    buffer.add([stream_candle(1)], 90.0)
    assert buffer.age_s(100.0) == 40.0
    buffer.seal()
    assert buffer.age_s(200.0) == 0.0
    buffer.add([stream_candle(2)], 210.0)
    assert buffer.age_s(215.0) == pytest.approx(5.0)


def test_empty():
    """An empty buffer seals an empty batch."""
    buffer = Buffer()
    assert (len(buffer), buffer.open_rows, buffer.seal()) == (0, 0, {})


steps = st.lists(st.lists(candles(6), max_size=5) | st.just("flush"), max_size=30)


@examples(25, 200)
@given(steps, st.randoms())
def test_loses_and_repeats_nothing(steps, chance: random.Random):
    """After any additions and flushes, also failed ones, the winners are merged or buffered."""
    buffer = Buffer()
    added: list[Candle] = []
    merged: list[Candle] = []
    for step in steps:
        if step == "flush":
            for partition, rows in buffer.seal().items():
                assert len({row.begin_ms for row in rows}) == len(rows)
                if chance.random() < 0.5:
                    merged += rows
                    buffer.discard(partition)
        else:
            buffer.add(step, 0.0)
            added += step
        assert buffer.open_rows <= len(buffer)
    merged += rows_of(buffer.seal())
    assert settled(merged) == settled(added)
