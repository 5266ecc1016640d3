"""nautilus_trader: the data client of its Binance adapter, on its socket in Rust.

Bars go over the message bus to a function here. A live node has its data engine, cache and
strategies in that place; they are left out, and so is the loading of instruments.
"""

import asyncio
from typing import Any

from nautilus_trader.adapters.binance.common.enums import BinanceAccountType
from nautilus_trader.adapters.binance.config import BinanceDataClientConfig
from nautilus_trader.adapters.binance.factories import get_cached_binance_http_client
from nautilus_trader.adapters.binance.spot.data import BinanceSpotDataClient
from nautilus_trader.adapters.binance.spot.providers import BinanceSpotInstrumentProvider
from nautilus_trader.cache.cache import Cache
from nautilus_trader.common.component import LiveClock, MessageBus
from nautilus_trader.model.identifiers import TraderId
from task import Task, end, read_task


async def receive(task: Task) -> None:
    clock = LiveClock()
    bus = MessageBus(TraderId("BENCHMARK-001"), clock)
    over = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_bar(bar: Any) -> None:
        if bar.ts_event // 1_000_000 > task.last_begin_ms and task.last_symbol in str(bar.bar_type):
            end()
            over.set()

    bus.register(endpoint="DataEngine.process", handler=on_bar)
    kind = BinanceAccountType.SPOT
    http = get_cached_binance_http_client(
        clock=clock, account_type=kind, api_key="key", api_secret="secret", base_url=task.rest_url
    )
    client = BinanceSpotDataClient(
        loop=loop,
        client=http,
        msgbus=bus,
        cache=Cache(),
        clock=clock,
        instrument_provider=BinanceSpotInstrumentProvider(http, clock, kind),
        base_url_ws=task.stream_url,
        config=BinanceDataClientConfig(),
    )
    for symbol in task.symbols:
        await client._ws_client.subscribe_bars(symbol, "1m")
    await over.wait()


asyncio.run(receive(read_task()))
