"""python-binance: a multiplex socket of BinanceSocketManager.

Its queue holds a hundred messages; a full one breaks the socket. It is larger here, so that the
flood passes.
"""

import asyncio

from binance.async_client import AsyncClient
from binance.ws.streams import BinanceSocketManager
from task import Task, end, read_task


async def receive(task: Task) -> None:
    BinanceSocketManager.STREAM_URL = f"{task.stream_url}/"
    manager = BinanceSocketManager(AsyncClient(), max_queue_size=1_000_000)
    streams = [f"{symbol.lower()}@kline_1m" for symbol in task.symbols]
    async with manager.multiplex_socket(streams) as socket:
        while True:
            kline = (await socket.recv())["data"]["k"]
            if kline["x"] and (kline["s"], kline["t"]) == (task.last_symbol, task.last_begin_ms):
                break
        end()


asyncio.run(receive(read_task()))
