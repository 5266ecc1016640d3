"""Random lives of recorders and random faults of the exchange, from a seed."""

import random
from collections.abc import Iterator
from typing import NamedTuple

# Frames that no exchange should send; none is a candle of a series that is listened to.
GARBAGE = (
    "", "null", "[]", "{", "0", '""', "\x00", "🕯" * 50, "[" * 5000, '{"e":"kline"}', '{"e":"kline","k":[]}',
    '{"e":"kline","E":1,"s":"BTCUSDT","k":{"x":true}}', '{"stream":"btcusdt@kline_1m"}', '{"stream":1,"data":2}',
    '{"stream":"btcusdt@kline_1m","data":{"e":"kline","E":1719791999999,"s":"BTCUSDT","k":{"t":17197',
    '{"result":null,"id":987654321}', '{"id":-1,"error":{"code":2,"msg":"no"}}', '{"e":"serverShutdown","E":1}',
    '{"e":"24hrTicker","E":1,"s":"BTCUSDT"}', "x" * 300_000,
)  # fmt: skip


class Life(NamedTuple):
    """The life and end of one recorder.

    Args:
        flush_every: its option.
        end: "SIGKILL" after its first recorded line; "SIGKILL while starting";
            "SIGTERM", with exit 0; "SIGTERM, then SIGKILL" during its last flush.
        after_s: seconds from its first recorded line, or from its start, to the end.
        grace_s: seconds between SIGTERM and SIGKILL.
    """

    flush_every: str
    end: str
    after_s: float
    grace_s: float


class Fault(NamedTuple):
    """The next fault of the exchange, with the pause before it and its duration."""

    pause_s: float
    kind: str
    length_s: float
    garbage: tuple[str, ...]


def lives(chance: random.Random, after_s: tuple[float, float]) -> Iterator[Life]:
    """Yield random lives without an end."""
    ends = {"SIGKILL": 60, "SIGKILL while starting": 12, "SIGTERM": 12, "SIGTERM, then SIGKILL": 16}
    while True:
        [end] = chance.choices(list(ends), list(ends.values()))
        least_s, most_s = (0, 2.5) if end == "SIGKILL while starting" else after_s
        after = least_s + (most_s - least_s) * chance.random() ** 2  # rather soon
        flush_every = chance.choice(("200ms", "500ms", "1s", "3s"))
        yield Life(flush_every, end, after, grace_s=chance.uniform(0, 0.6))


def faults(chance: random.Random) -> Iterator[Fault]:
    """Yield random faults of the exchange."""
    kinds = ("drop", "close", "stall", "refuse", "garbage", "garbage")
    while True:
        yield Fault(
            chance.uniform(1, 6),
            chance.choice(kinds),
            chance.uniform(0.3, 2.5),
            tuple(chance.choices(GARBAGE, k=chance.randint(1, 8))),
        )
