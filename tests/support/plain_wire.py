"""A slow and plain decoder of frames. `wire.decode` must give the same messages and the same errors.

It decodes a frame in three steps: the outer object, the event's name, the kline. Each
number is checked by itself.
"""

import re
from typing import Any

import msgspec

from lakewriter.binance.wire import (
    BEGIN_MS_MAX,
    BEGIN_MS_MIN,
    CLOSED_EARLY_MS_MAX,
    FRAME_BYTES_MAX,
    OPEN_CANDLE,
    Message,
    Other,
    Reply,
    Shutdown,
    quoted,
)
from lakewriter.candle import Candle
from lakewriter.candle_checks import TRADES_MAX
from lakewriter.errors import FrameError
from lakewriter.interval import BY_WIRE_NAME, DAY_MS
from lakewriter.market import is_symbol


class Kline(msgspec.Struct):
    t: int
    T: int
    s: str
    i: str
    o: str
    c: str
    h: str
    l: str  # noqa: E741 - the exchange's name
    v: str
    n: int
    x: bool
    q: str
    V: str
    Q: str


class KlineEvent(msgspec.Struct):
    E: int
    s: str
    k: Kline


class ReplyError(msgspec.Struct):
    code: int = 0
    msg: str = ""


class Envelope(msgspec.Struct):
    stream: str = ""
    data: msgspec.Raw = msgspec.Raw()
    e: str = ""
    E: msgspec.Raw = msgspec.Raw()
    id: int | str | None = None
    result: msgspec.Raw = msgspec.Raw()
    error: ReplyError | None = None
    code: int | None = None
    msg: str = ""


class Head(msgspec.Struct):
    e: str = ""


class ShutdownEvent(msgspec.Struct):
    E: int = 0


DECODERS: dict[type[Any], Any] = {
    shape: msgspec.json.Decoder(shape) for shape in (Envelope, Head, KlineEvent, ShutdownEvent)
}


def decode_plainly(frame: bytes, market: str, recv_us: int) -> Message:
    """Parse the message in a frame; see `wire.decode`."""
    if len(frame) > FRAME_BYTES_MAX:
        raise FrameError("size", f"frame of {len(frame)} bytes")
    if frame.lstrip()[:1] == b"[":
        return Other("array")
    envelope = _read(Envelope, frame)
    payload = bytes(envelope.data) or frame
    event = envelope.e
    if envelope.data:
        event = "array" if payload.lstrip()[:1] == b"[" else _read(Head, payload).e
    elif envelope.result or envelope.error is not None or envelope.code is not None:
        return _reply(envelope)
    if event == "kline":
        return _candle(_read(KlineEvent, payload), market, recv_us)
    if event == "serverShutdown":
        return Shutdown(_read(ShutdownEvent, payload).E)
    return Other(event)


def _read(shape: type[Any], data: bytes) -> Any:
    try:
        return DECODERS[shape].decode(data)
    except msgspec.ValidationError as error:
        raise FrameError("shape", f"{error}: {repr(data[:120])[1:]}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FrameError("json", f"{error}: {repr(data[:120])[1:]}") from None


def _reply(envelope: Envelope) -> Reply:
    reply_id = envelope.id if isinstance(envelope.id, int) else None
    if envelope.error is not None:
        return Reply(reply_id, quoted(envelope.error.msg), envelope.error.code)
    if envelope.code is not None:
        return Reply(reply_id, quoted(envelope.msg), envelope.code)
    return Reply(reply_id, "", 0)


def _candle(event: KlineEvent, market: str, recv_us: int) -> Candle | Other:
    kline = event.k
    if not kline.x:
        return OPEN_CANDLE
    if kline.s != event.s or not is_symbol(kline.s):
        raise FrameError("symbol", f"kline of symbol {kline.s[:64]!r} in an event of {event.s[:64]!r}")
    interval = BY_WIRE_NAME.get(kline.i)
    if interval is None:
        raise FrameError("interval", f"kline of interval {kline.i[:64]!r}")
    if not BEGIN_MS_MIN <= kline.t < BEGIN_MS_MAX:
        raise FrameError("time", f"kline that begins at {kline.t}")
    on_grid = kline.t % DAY_MS == 0 if interval.name == "3d" else interval.on_grid(kline.t)
    if not on_grid:
        raise FrameError("time", f"{interval.name} kline that begins off its grid, at {kline.t}")
    if not BEGIN_MS_MIN <= event.E < BEGIN_MS_MAX:
        raise FrameError("time", f"kline event of time {event.E}")
    if interval.end(kline.t) > event.E + CLOSED_EARLY_MS_MAX:
        raise FrameError("time", f"kline that begins at {kline.t} and is closed at {event.E} already")
    if not 0 <= kline.n <= TRADES_MAX:
        raise FrameError("number", f"kline of {kline.n} trades")
    return Candle(
        market=market,
        symbol=kline.s,
        interval=interval.name,
        begin_ms=kline.t,
        end_ms=interval.end(kline.t),
        open=_number(kline.o),
        high=_number(kline.h),
        low=_number(kline.l),
        close=_number(kline.c),
        volume=_number(kline.v),
        quote_volume=_number(kline.q),
        trade_num=kline.n,
        taker_buy_base_asset_volume=_number(kline.V),
        taker_buy_quote_asset_volume=_number(kline.Q),
        event_ms=event.E,
        recv_us=recv_us,
        source="stream",
    )


def _number(text: str) -> float:
    if len(text) > 64 or re.fullmatch(r"[0-9]+(?:\.[0-9]+)?", text) is None:
        raise FrameError("number", f"{text[:64]!r} is not a number")
    return float(text)
