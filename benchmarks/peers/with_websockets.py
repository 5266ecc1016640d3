"""The limit: a loop that only calls websockets' recv().

It imports what a recorder imports, and uses none of it. asyncio allocates 256 kB for each read of
a socket. In a small process, glibc maps and unmaps that memory each time; in one whose imports
have freed large blocks, it keeps the memory.
"""

import asyncio
import importlib

from task import Task, end, read_task
from websockets.asyncio.client import connect


async def receive(task: Task) -> None:
    streams = "/".join(f"{symbol.lower()}@kline_1m" for symbol in task.symbols)
    last = f'"t":{task.last_begin_ms},'
    async with connect(f"{task.stream_url}/stream?streams={streams}", compression=None) as connection:
        for _ in range(int(task.words[0]) - 1):
            await connection.recv()
        frame = await connection.recv()
        assert isinstance(frame, str)
        assert last in frame and task.last_symbol in frame
        end()


for name in ("lakewriter.cli.runs.record", "lakewriter.recording.recorder"):
    importlib.import_module(name)
asyncio.run(receive(read_task()))
