"""What a client has to do, as `receive_peers.py` says on its command line.

A client imports nothing of lakewriter: it runs in its peer's own environment.
"""

import json
import sys
from typing import NamedTuple


class Task(NamedTuple):
    """Receive the 1m candles of the symbols until the last one has come.

    Args:
        stream_url: the part before `/stream` and `/ws`.
        rest_url: the part before `/api/v3`.
        symbols: as the exchange writes them.
        last_symbol: that of the last frame.
        last_begin_ms: begin of its candle; no closed candle before it has both.
        last_close: the price of that candle; no frame before it has all three.
        words: which of the peer's ways to use.
    """

    stream_url: str
    rest_url: str
    symbols: list[str]
    last_symbol: str
    last_begin_ms: int
    last_close: float
    words: list[str]


def read_task() -> Task:
    return Task(**json.loads(sys.argv[1]))


def end() -> None:
    """Report that the last candle has come, and wait until the CPU time has been read."""
    print("done", flush=True)
    sys.stdin.read()
