"""cryptofeed: a callback for closed candles.

cryptofeed takes addresses of `wss` alone. So its call of `connect` is redirected to `ws`; its
socket and all that follows are its own.
"""

import asyncio
from typing import Any

import cryptofeed.connection
from cryptofeed import FeedHandler
from cryptofeed.connection import RestEndpoint, Routes, WebsocketEndpoint
from cryptofeed.defines import CANDLES
from cryptofeed.exchanges import Binance
from task import end, read_task

task = read_task()
last = f"{task.last_symbol.removesuffix('USDT')}-USDT"
secure_connect = cryptofeed.connection.connect


def connect(address: str, **options: object) -> object:
    return secure_connect(address.replace("wss://", "ws://"), **options)


async def receive(candle: Any, receipt_timestamp: float) -> None:  # noqa: ARG001
    if candle.symbol == last and candle.start * 1000 == task.last_begin_ms:
        end()


cryptofeed.connection.connect = connect
Binance.websocket_endpoints = [WebsocketEndpoint(task.stream_url.replace("ws://", "wss://"))]
Binance.rest_endpoints = [RestEndpoint(task.rest_url, routes=Routes("/api/v3/exchangeInfo"))]
handler = FeedHandler()
# Of uvloop, which it installs and uses by default.
asyncio.set_event_loop(asyncio.new_event_loop())
handler.add_feed(
    Binance(
        symbols=[f"{symbol.removesuffix('USDT')}-USDT" for symbol in task.symbols],
        channels=[CANDLES],
        candle_closed_only=True,
        callbacks={CANDLES: receive},
    )
)
handler.run()
