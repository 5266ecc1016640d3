"""A process that requests from one market's REST as fast as allowed: `python -m support.ask_rest LAKE URL …`.

It creates its clients as `lakewriter record` does. It prints "begun" at the first
answer. When its standard input is closed, it prints its counts as JSON.
"""

import argparse
import asyncio
import json
import sys
import time
from functools import partial
from pathlib import Path

import aiohttp

from lakewriter.binance.market_clients import MarketClients
from lakewriter.binance.rest import RestError
from lakewriter.clock import Clock
from lakewriter.lake.exchange_limits import WeightFile
from lakewriter.market import MARKETS, served_at
from lakewriter.series import Series


async def ask(said: argparse.Namespace) -> dict[str, object]:
    clock = Clock()
    refused: list[str] = []
    waits_s: list[float] = []
    async with aiohttp.ClientSession() as session:
        clients = MarketClients(
            lambda name: served_at(MARKETS[name], said.url),
            session,
            clock,
            shared_files=partial(WeightFile, said.lake),
            max_weight=said.max_weight,
        )
        rest = clients[said.market].rest
        series = Series(said.market, "BTCUSDT", "1m")

        async def one() -> None:
            while True:
                asked_s = time.monotonic()
                try:
                    await rest.klines(series, 0, said.candles * 60_000, background=said.background)
                    waits_s.append(round(time.monotonic() - asked_s, 3))
                    if len(waits_s) == 1:
                        print("begun", flush=True)
                except RestError as error:
                    refused.append(error.what)

        tasks = [asyncio.create_task(one()) for _ in range(said.at_once)]
        await asyncio.to_thread(sys.stdin.read)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return {"waits_s": waits_s, "refused": refused}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("lake", type=Path)
    parser.add_argument("url")
    parser.add_argument("--market", default="usdt_futures")
    parser.add_argument("--candles", type=int, default=1500)
    parser.add_argument("--at-once", type=int, default=8)
    parser.add_argument("--background", action="store_true")
    parser.add_argument("--max-weight", type=int)
    print(json.dumps(asyncio.run(ask(parser.parse_args()))))


if __name__ == "__main__":
    main()
