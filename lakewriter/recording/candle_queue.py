"""The bounded queue between the sockets and the journal. It numbers its candles in order."""

import asyncio

from lakewriter.candle import Candle

QUEUE_CANDLES_MAX = 10_000

# Pause between checks. An event instead would have to be set for each candle.
_CHECK_S = 0.01


class CandleQueue(asyncio.Queue[Candle]):
    """A bounded queue of candles that knows which of them are durable.

    The consumer calls `task_done` for each durable candle, in the queue's order.

    Attributes:
        last_put: the number of the candle put last; the first candle has number 1.
        last_durable: the number of the newest durable candle.
    """

    def __init__(self, candles_max: int = QUEUE_CANDLES_MAX) -> None:
        self.last_put = 0
        self.last_durable = 0
        super().__init__(candles_max)

    def _put(self, item: Candle) -> None:
        super()._put(item)
        self.last_put += 1

    def task_done(self) -> None:
        """Count the next candle as durable."""
        super().task_done()
        self.last_durable += 1

    async def wait_durable(self) -> None:
        """Wait until all candles put so far are durable."""
        number = self.last_put
        while self.last_durable < number:  # noqa: ASYNC110
            await asyncio.sleep(_CHECK_S)
