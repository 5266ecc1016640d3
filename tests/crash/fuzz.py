"""Coverage-guided fuzzing of the parsers of foreign bytes: frames, and the journal's lines.

    pip install atheris
    PYTHONPATH=tests python -m crash.fuzz wire -max_total_time=3600
    PYTHONPATH=tests python -m crash.fuzz journal -max_total_time=3600

A result other than a message, a FrameError, a candle or None is a failure. So is a frame
that `wire` and the slow and plain decoder decode differently.
"""

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["lakewriter"]):
    from lakewriter.binance import wire
    from lakewriter.candle import Candle, to_table
    from lakewriter.errors import FrameError
    from lakewriter.lake.segments import OtherVersionError, decode_line, encode_line
    from lakewriter.partition import checked_partition, partition_of
    from support.plain_wire import decode_plainly

KLINE = {
    "t": 1_719_705_600_000, "T": 1_719_705_659_999, "s": "BTCUSDT", "i": "1m", "f": 1, "L": 9, "o": "1.0",
    "c": "1.5", "h": "2.0", "l": "0.5", "v": "3", "n": 9, "x": True, "q": "4", "V": "1", "Q": "2", "B": "0",
}  # fmt: skip
EVENT = {"e": "kline", "E": 1_719_705_660_004, "s": "BTCUSDT", "k": KLINE}
FRAMES = [
    json.dumps(EVENT).encode(),
    json.dumps({"stream": "btcusdt@kline_1m", "data": EVENT}, separators=(",", ":")).encode(),
    b'{"result":null,"id":1}',
    b'{"error":{"code":4,"msg":"Too many subscriptions"}}',
    b'{"code":2,"msg":"Invalid request","id":"a"}',
    b'{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1719705660004}}',
]


def outcome(decoder: Callable[[bytes, str, int], wire.Message], data: bytes) -> object:
    """Return the message of a frame, or the kind and the text of its FrameError."""
    try:
        return decoder(data, "spot", 1)
    except FrameError as error:
        return error.kind, str(error)


def wire_frame(data: bytes) -> None:
    """Check that a frame gives what the plain decoder gives, and that no closed candle is skipped."""
    message = outcome(wire.decode, data)
    assert message == outcome(decode_plainly, data)
    if isinstance(message, Candle):
        assert not wire.is_open_candle(data)
        assert decode_line(encode_line(message)[:-1]) == message
        checked_partition(partition_of(message))
        assert to_table([message]).num_rows == 1


def journal_line(data: bytes) -> None:
    """Check that a line gives a candle, None, or OtherVersionError."""
    try:
        candle = decode_line(data)
    except OtherVersionError:
        return
    if candle is not None:
        assert decode_line(encode_line(candle)[:-1]) == candle


def main() -> None:
    what = sys.argv.pop(1)
    message = wire.decode(FRAMES[0], "spot", 1)
    assert isinstance(message, Candle)
    seeds = FRAMES if what == "wire" else [encode_line(message)[:-1]]
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(seeds):
            (Path(corpus) / str(number)).write_bytes(seed)
        atheris.Setup([*sys.argv, corpus], wire_frame if what == "wire" else journal_line)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
