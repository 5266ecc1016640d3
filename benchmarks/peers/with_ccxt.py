"""ccxt.pro: a loop of `watch_ohlcv_for_symbols`, as its manual advises for many symbols.

It returns open candles too, and keeps the last thousand of each symbol. If several frames come
between two turns of the loop, the loop sees only one of them. So the end is when the last candle
is among the kept ones, looked up every 10 ms.
"""

import asyncio
import contextlib

import ccxt.pro
from task import Task, end, read_task


async def receive(task: Task) -> None:
    exchange = ccxt.pro.binance({"options": {"fetchMarkets": {"types": ["spot"]}, "fetchCurrencies": False}})
    exchange.urls["api"]["ws"]["spot"] = f"{task.stream_url}/ws"
    exchange.urls["api"]["public"] = f"{task.rest_url}/api/v3"
    wanted = [[f"{symbol.removesuffix('USDT')}/USDT", "1m"] for symbol in task.symbols]
    last = f"{task.last_symbol.removesuffix('USDT')}/USDT"

    async def watch() -> None:
        while True:
            await exchange.watch_ohlcv_for_symbols(wanted)

    def has_last() -> bool:
        kept = exchange.ohlcvs.get(last, {}).get("1m")
        return bool(kept) and kept[-1][0] == task.last_begin_ms and kept[-1][4] == task.last_close

    watching = asyncio.create_task(watch())
    while not has_last():
        assert not watching.done()
        await asyncio.sleep(0.01)
    end()
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watching
    await exchange.close()


asyncio.run(receive(read_task()))
