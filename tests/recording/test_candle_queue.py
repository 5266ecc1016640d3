"""The numbered queue: it knows which of its candles are durable."""

import asyncio

from lakewriter.recording.candle_queue import CandleQueue
from support.candles import stream_candle


def test_a_wait_ends_when_all_candles_put_before_it_are_durable() -> None:
    """A wait does not include candles that are put after it began."""

    async def main() -> None:
        queue = CandleQueue(10)
        await queue.wait_durable()
        for minute in range(3):
            await queue.put(stream_candle(minute))
        waiting = asyncio.create_task(queue.wait_durable())
        await asyncio.sleep(0)
        await queue.put(stream_candle(3))
        for _ in range(3):
            assert not waiting.done()
            queue.get_nowait()
            queue.task_done()
        await waiting
        assert (queue.last_put, queue.last_durable) == (4, 3)

    asyncio.run(main())


def test_a_candle_counts_when_it_is_on_the_queue() -> None:
    """A candle that waits for room in the queue has no number yet."""

    async def main() -> None:
        queue = CandleQueue(1)
        await queue.put(stream_candle(0))
        putting = asyncio.create_task(queue.put(stream_candle(1)))
        await asyncio.sleep(0.01)
        assert queue.last_put == 1
        queue.get_nowait()
        await putting
        assert queue.last_put == 2

    asyncio.run(main())
