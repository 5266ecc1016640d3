"""The exchange's protocol: kline frames, rows, and answers to control messages.

It shares no code with the client's decoder, so each can prove the other. `DIALECTS` has the
differences between the markets. Pure.
"""

import json
from typing import Any, NamedTuple

from lakewriter.interval import BY_WIRE_NAME, Interval
from lakewriter.market import MARKETS, is_symbol
from lakewriter.sandbox.truth.symbols import SymbolListing


class MarketDialect(NamedTuple):
    """The protocol of one market.

    Args:
        k_separator: the text between the members of the JSON object `k`.
        close_delays_ms: the minimum and the maximum time from a close to its frame.
        ping_every_s: the time between pings, in real seconds.
        pong_within_s: the time limit for a pong, in real seconds.
        streams_max: the maximum number of streams of a connection.
        names_max: the maximum number of names in a SUBSCRIBE; a request with more gets no frames.
        flat_errors: whether errors are `{"code":…}` instead of `{"error":{"code":…}}`.
    """

    k_separator: str
    close_delays_ms: tuple[int, int]
    ping_every_s: float
    pong_within_s: float
    streams_max: int
    names_max: int
    flat_errors: bool


# Sources: E - T of captured frames; spot and futures documents on pings;
# 1024 streams measured on USDⓈ-M, 200 documented on COIN-M; 437 names in one message failed
# silently on spot, and 436 worked, as reported in 2020.
DIALECTS = {
    "spot": MarketDialect(",", (2, 6), 20.0, 60.0, 1024, 436, flat_errors=True),
    "usdt_futures": MarketDialect(", ", (200, 2000), 180.0, 600.0, 1024, 1024, flat_errors=False),
    "coin_futures": MarketDialect(",", (4, 4), 180.0, 600.0, 200, 1024, flat_errors=False),
}

# The maximum bytes of a control message. A larger one is acknowledged, but has no effect.
CONTROL_BYTES_MAX = 8192

# The exchange's error codes for control messages.
UNKNOWN_PROPERTY, NOT_BOOLEAN, INVALID_REQUEST, INVALID_JSON, TOO_MANY_SUBSCRIPTIONS = 0, 1, 2, 3, 4

_METHODS = ("SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS", "SET_PROPERTY", "GET_PROPERTY")


class StreamName(NamedTuple):
    """The symbol and interval of a kline stream."""

    symbol: str
    interval: Interval


class Request(NamedTuple):
    """A valid control message."""

    method: str
    params: list[Any]
    id: int | str | None


class Refusal(NamedTuple):
    """The error of an invalid control message."""

    code: int
    text: str
    id: int | str | None


def close_delay_ms(market: str, fraction: float) -> int:
    """Return the delay of a closing frame after its close time.

    Args:
        fraction: the position in the market's usual range, in [0, 1).
    """
    low, high = DIALECTS[market].close_delays_ms
    return low + int((high - low + 1) * fraction)


def kline_frame(
    spec: SymbolListing, grid: Interval, row: tuple[int, ...], event_ms: int, closed: bool
) -> str:
    """Return one raw kline payload.

    Args:
        row: the candle in integers, in the order of `IntegerCandles`.
    """
    begin_ms, first, high, low, last, volume, quote, trades, taker, taker_quote, first_id, _ = row
    price, symbol = spec.price_text, spec.symbol
    k = (
        f'"t":{begin_ms}',
        f'"T":{grid.end(begin_ms) - 1}',
        f'"s":"{symbol}"',
        f'"i":"{grid.wire_name}"',
        f'"f":{first_id if trades else -1}',
        f'"L":{first_id + trades - 1 if trades else -1}',
        f'"o":"{price(first)}"',
        f'"c":"{price(last)}"',
        f'"h":"{price(high)}"',
        f'"l":"{price(low)}"',
        f'"v":"{spec.volume_text(volume)}"',
        f'"n":{trades}',
        '"x":true' if closed else '"x":false',
        f'"q":"{spec.quote_text(quote)}"',
        f'"V":"{spec.volume_text(taker)}"',
        f'"Q":"{spec.quote_text(taker_quote)}"',
        '"B":"0"',
    )
    members = DIALECTS[spec.market].k_separator.join(k)
    return f'{{"e":"kline","E":{event_ms},"s":"{symbol}","k":{{{members}}}}}'


def with_stream_name(stream: str, payload: str) -> str:
    """Return a payload with its stream's name, as in combined connections."""
    return f'{{"stream":"{stream}","data":{payload}}}'


def parse_stream(name: str, market: str) -> StreamName | None:
    """Return the kline stream of this name; None if the exchange sends no frames for the name.

    The exchange accepts any name. It sends no frames for upper-case symbols, other kinds of
    streams, and intervals that the market lacks.
    """
    wire, at, rest = name.partition("@kline_")
    grid = BY_WIRE_NAME.get(rest)
    if not at or grid is None or grid.name not in MARKETS[market].intervals:
        return None
    symbol = "".join(char.upper() if char.isascii() else char for char in wire)
    if wire == "".join(char.lower() if char.isascii() else char for char in wire) and is_symbol(symbol):
        return StreamName(symbol, grid)
    return None


def parse_request(text: str, market: str) -> Request | Refusal:
    """Parse a control message; return a `Refusal` for an invalid message."""
    try:
        message = json.loads(text)
    except ValueError:
        return Refusal(INVALID_JSON, "Invalid JSON: expected value at line 1 column 1", None)
    if not isinstance(message, dict):
        return Refusal(INVALID_REQUEST, "Invalid request: request must be an object", None)
    request_id = message.get("id")
    if not _is_id(request_id, market):
        return Refusal(INVALID_REQUEST, "Invalid request: request ID must be an unsigned integer", None)
    method, params = message.get("method"), message.get("params", [])
    if method not in _METHODS:
        text = "missing field `method`" if method is None else f"unknown variant `{method}`"
        return Refusal(INVALID_REQUEST, f"Invalid request: {text}", request_id)
    if not isinstance(params, list):
        return Refusal(INVALID_REQUEST, "Invalid request: params must be an array", request_id)
    if method in ("SUBSCRIBE", "UNSUBSCRIBE") and not all(isinstance(name, str) for name in params):
        return Refusal(INVALID_REQUEST, "Invalid request: params must be strings", request_id)
    return Request(method, params, request_id)


def _is_id(request_id: object, market: str) -> bool:
    if isinstance(request_id, bool):
        return False
    if isinstance(request_id, int):
        return -(2**63) <= request_id < 2**63 if market == "spot" else 0 <= request_id < 2**63
    if isinstance(request_id, str):
        return market == "spot" and len(request_id) <= 36
    return request_id is None


def result_text(request_id: int | str | None, value: object = None) -> str:
    """Return the answer to a valid request."""
    return json.dumps({"result": value, "id": request_id}, separators=(",", ":"), ensure_ascii=False)


def refusal_text(market: str, reason: Refusal) -> str:
    """Return the answer to an invalid request, in the market's form."""
    error: dict[str, Any] = {"code": reason.code, "msg": reason.text}
    body = {**error, "id": reason.id} if DIALECTS[market].flat_errors else {"error": error, "id": reason.id}
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False)


def answer_property(market: str, request: Request, *, combined: bool) -> tuple[str, bool]:
    """Return the answer to SET_PROPERTY or GET_PROPERTY.

    Returns:
        The answer, and whether later payloads are combined.
    """
    setting = request.method == "SET_PROPERTY"
    reason = None
    if len(request.params) != 1 + setting:
        reason = Refusal(INVALID_REQUEST, "Invalid request: wrong number of params", request.id)
    elif request.params[0] != "combined":
        reason = Refusal(UNKNOWN_PROPERTY, "Unknown property", request.id)
    elif setting and not isinstance(request.params[1], bool):
        reason = Refusal(NOT_BOOLEAN, "Invalid value type: expected Boolean", request.id)
    if reason is not None:
        return refusal_text(market, reason), combined
    return (
        (result_text(request.id), request.params[1])
        if setting
        else (result_text(request.id, combined), combined)
    )


def shutdown_notice(now_ms: int, *, wrapped: bool) -> str:
    """Return the notice of a server's shutdown, raw or combined.

    Source: binance-spot-api-docs, web-socket-streams.md.
    """
    notice = f'{{"e":"serverShutdown","E":{now_ms}}}'
    return with_stream_name("!serverShutdown", notice) if wrapped else notice


def kline_row(spec: SymbolListing, grid: Interval, row: tuple[int, ...]) -> list[int | str]:
    """Return one REST row of 12 values."""
    begin_ms, first, high, low, last, volume, quote, trades, taker, taker_quote, _, _ = row
    price = spec.price_text
    return [
        begin_ms,
        price(first),
        price(high),
        price(low),
        price(last),
        spec.volume_text(volume),
        grid.end(begin_ms) - 1,
        spec.quote_text(quote),
        trades,
        spec.volume_text(taker),
        spec.quote_text(taker_quote),
        "0",
    ]
