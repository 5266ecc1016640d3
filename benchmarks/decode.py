"""The cost of one closed candle's frame, from its bytes to the candle, and of the check that skips open ones.

    python benchmarks/decode.py [--rounds 21] [--quick]

Each way decodes the same frames in turn. The CPU time is the thread's.

    msgspec    only the JSON, into the same fields; nothing is checked or converted
    plain      three decodes, and each number checked by itself (tests/support/plain_wire)
    decode     wire.decode
    two `in`   whether a frame has `"x":false` and no `true`
    is_open    wire.is_open_candle, with the same result
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from lakewriter.binance import wire

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from support.plain_wire import KlineEvent, decode_plainly

BEGIN_MS = 1_719_705_660_000
RECV_US = 1_719_705_720_050_000
SYMBOLS = 300


class Combined(msgspec.Struct):
    stream: str
    data: KlineEvent


def frame(number: int, closed: str) -> bytes:
    symbol, price = f"S{number:03d}USDT", 100 + number % 977 / 100
    return (
        f'{{"stream":"{symbol.lower()}@kline_1m","data":{{"e":"kline","E":{BEGIN_MS + 60_005},"s":"{symbol}",'
        f'"k":{{"t":{BEGIN_MS},"T":{BEGIN_MS + 59_999},"s":"{symbol}","i":"1m","f":3000000001,"L":3000000078,'
        f'"o":"{price:.8f}","c":"{price:.8f}","h":"{price:.8f}","l":"{price:.8f}","v":"208601.00000000",'
        f'"n":78,"x":{closed},"q":"70846.76968900","V":"156046.30000000","Q":"52984.16932200","B":"0"}}}}}}'
    ).encode()


def two_searches(frame: bytes) -> bool:
    return b'"x":false' in frame and b"true" not in frame


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--quick", action="store_true", help="2 rounds, to see that it works")
    options = parser.parse_args()
    rounds = 2 if options.quick else options.rounds
    closed = [frame(number, "true") for number in range(SYMBOLS)]
    opened = [frame(number, "false") for number in range(SYMBOLS)]
    bare = msgspec.json.Decoder(Combined).decode
    ways: dict[str, tuple[Callable[[bytes], object], list[bytes]]] = {
        "msgspec": (bare, closed),
        "plain": (lambda frame: decode_plainly(frame, "spot", RECV_US), closed),
        "decode": (lambda frame: wire.decode(frame, "spot", RECV_US), closed),
        "two `in`": (two_searches, opened),
        "is_open": (wire.is_open_candle, opened),
    }
    assert all(ways["plain"][0](each) == ways["decode"][0](each) for each in closed + opened)
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, (way, frames) in ways.items():
            began_s = time.thread_time()
            for _ in range(10):
                for each in frames:
                    way(each)
            spent[name].append((time.thread_time() - began_s) / len(frames) / 10 * 1e6)
    middle = {name: statistics.median(values) for name, values in spent.items()}
    for name, values in spent.items():
        print(f"{name:10}{middle[name]:6.2f} µs ({min(values):.2f} to {max(values):.2f})")
    print(
        f"decode is {middle['decode'] / middle['plain']:.2f} of plain, {middle['decode'] / middle['msgspec']:.2f} of msgspec"
    )
    print(f"is_open is {middle['is_open'] / middle['two `in`']:.2f} of two `in`")


if __name__ == "__main__":
    main()
