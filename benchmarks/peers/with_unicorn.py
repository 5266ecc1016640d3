"""unicorn-binance-websocket-api: its asyncio queue, as its README shows.

Words: the output (`raw_data`, `dict` or `UnicornFy`) and the WebSocket library (`websockets` or
`picows`). Of raw frames, only those that contain `"x":true` are decoded.
"""

import asyncio
from typing import Any

import orjson
from task import Task, end, read_task
from unicorn_binance_websocket_api import BinanceWebSocketApiManager


async def receive(task: Task) -> None:
    output, library = task.words
    manager = BinanceWebSocketApiManager(
        exchange="binance.com",
        websocket_base_uri=f"{task.stream_url}/",
        restful_base_uri=f"{task.rest_url}/",
        output_default=output,
        websocket_library=library,
        warn_on_update=False,
    )
    over = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def work(stream_id: str | None = None) -> None:
        while not manager.is_stop_request(stream_id):
            data = await manager.get_stream_data_from_asyncio_queue(stream_id)
            candle = closed_candle(data, output)
            if candle == (task.last_symbol, task.last_begin_ms):
                end()
                loop.call_soon_threadsafe(over.set)
            manager.asyncio_queue_task_done(stream_id)

    manager.create_stream(
        channels=["kline_1m"],
        markets=[symbol.lower() for symbol in task.symbols],
        process_asyncio_queue=work,
    )
    await over.wait()
    manager.stop_manager()


def closed_candle(data: Any, output: str) -> tuple[str, int] | None:
    """Return symbol and begin of a closed candle."""
    if output == "raw_data":
        if '"x":true' not in data:
            return None
        data = orjson.loads(data)
    if output == "UnicornFy":
        kline = data.get("kline")
        return (kline["symbol"], kline["kline_start_time"]) if kline and kline["is_closed"] else None
    kline = data["data"]["k"] if "data" in data else {"x": False}
    return (kline["s"], kline["t"]) if kline["x"] else None


asyncio.run(receive(read_task()))
