"""A server of the same kline frames for every client: `receive_peers.py` measures with it.

It speaks as much of the exchange's protocol as the clients ask for. It does not measure.
"""

import asyncio
import contextlib
import json
import time
import urllib.parse
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

SYMBOLS = [f"S{number:03d}USDT" for number in range(100)]
MINUTE_MS = 60_000
# Each symbol has so many frames in a minute. The last one is closed.
FRAMES_A_MINUTE = 50
CYCLE = FRAMES_A_MINUTE * len(SYMBOLS)
# Frames that are written at once: in a flood, and at a rate.
FLOOD_BURST, RATE_BURST = 50, 4
BUFFER_BYTES_MAX = 1 << 20


def price_of(number: int) -> float:
    return round(100 + number % 977 / 100, 2)


def payload(number: int, first_ms: int, wrapped: bool) -> bytes:
    """Return a kline as the exchange sends it; the last of a minute is closed."""
    symbol = SYMBOLS[number % len(SYMBOLS)]
    minute, turn = divmod(number // len(SYMBOLS), FRAMES_A_MINUTE)
    begin_ms = first_ms + minute * MINUTE_MS
    closed = turn == FRAMES_A_MINUTE - 1
    event_ms = begin_ms + (MINUTE_MS + 4 if closed else turn * (MINUTE_MS // FRAMES_A_MINUTE))
    price = price_of(number)
    kline = (
        f'{{"t":{begin_ms},"T":{begin_ms + MINUTE_MS - 1},"s":"{symbol}","i":"1m","f":{number},'
        f'"L":{number + 77},"o":"{price:.8f}","c":"{price:.8f}","h":"{price:.8f}","l":"{price:.8f}",'
        f'"v":"208601.00000000","n":78,"x":{"true" if closed else "false"},"q":"70846.76968900",'
        f'"V":"156046.30000000","Q":"52984.16932200","B":"0"}}'
    )
    data = f'{{"e":"kline","E":{event_ms},"s":"{symbol}","k":{kline}}}'
    return (f'{{"stream":"{symbol.lower()}@kline_1m","data":{data}}}' if wrapped else data).encode()


def websocket_frame(data: bytes) -> bytes:
    return b"\x81\x7e" + len(data).to_bytes(2, "big") + data


def exchange_info() -> dict[str, Any]:
    """Return what the exchange lists, with the members that the clients read."""
    price = {"filterType": "PRICE_FILTER", "minPrice": "0.01", "maxPrice": "1000000.00", "tickSize": "0.01"}
    size = {"filterType": "LOT_SIZE", "minQty": "0.00001", "maxQty": "9000.0", "stepSize": "0.00001"}
    rest = {
        "status": "TRADING",
        "quoteAsset": "USDT",
        "baseAssetPrecision": 8,
        "quoteAssetPrecision": 8,
        "isSpotTradingAllowed": True,
        "permissions": ["SPOT"],
        "permissionSets": [["SPOT"]],
        "orderTypes": ["LIMIT"],
        "filters": [price, size],
    }
    symbols = [{"symbol": each, "baseAsset": each.removesuffix("USDT"), **rest} for each in SYMBOLS]
    return {"timezone": "UTC", "serverTime": 0, "rateLimits": [], "exchangeFilters": [], "symbols": symbols}


class Exchange:
    """A server that sends the frames to one client, when that has subscribed to all symbols.

    Args:
        rate: frames a second; 0 for as fast as they are read.
        begun: called just before the first frame.
    """

    def __init__(self, frames: int, rate: int, settled_s: float, begun: Callable[[], None]) -> None:
        # The candles end about now, as a recorder expects.
        self.first_ms = (int(time.time() * 1000) // MINUTE_MS - frames // CYCLE) * MINUTE_MS
        self.last_begin_ms = self.first_ms + (frames // CYCLE - 1) * MINUTE_MS
        self._frames, self._rate, self._settled_s, self._begun = frames, rate, settled_s, begun
        self._sending: asyncio.Task[None] | None = None
        self._server: Server | None = None

    async def __aenter__(self) -> "Exchange":
        self._server = await serve(
            self._talk, "127.0.0.1", 0, process_request=self._rest, compression=None, ping_interval=None
        )
        self.address = f"127.0.0.1:{next(iter(self._server.sockets)).getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.gather(self._sending, return_exceptions=True)
        self._server.close()
        await self._server.wait_closed()

    def _rest(self, connection: ServerConnection, request: Request) -> Response | None:
        path = urllib.parse.urlsplit(request.path).path
        answers = {
            "/api/v3/ping": {},
            "/api/v3/time": {"serverTime": int(time.time() * 1000)},
            "/api/v3/exchangeInfo": exchange_info(),
            "/api/v3/klines": [],
        }
        if not path.startswith("/api/"):
            return None
        if path not in answers:
            return connection.respond(HTTPStatus.NOT_FOUND, "")
        response = connection.respond(HTTPStatus.OK, json.dumps(answers[path]))
        response.headers["Content-Type"] = "application/json"
        return response

    async def _talk(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        url = urllib.parse.urlsplit(connection.request.path)
        streams = set(filter(None, urllib.parse.parse_qs(url.query).get("streams", [""])[0].split("/")))
        wrapped = url.path.startswith("/stream")
        self._send_if_all(connection, streams, wrapped)
        with contextlib.suppress(ConnectionClosed):
            async for message in connection:
                asked = json.loads(message)
                await connection.send(json.dumps({"result": None, "id": asked["id"]}))
                if asked["method"] == "SUBSCRIBE":
                    streams.update(asked["params"])
                    self._send_if_all(connection, streams, wrapped)

    def _send_if_all(self, connection: ServerConnection, streams: set[str], wrapped: bool) -> None:
        if len(streams) == len(SYMBOLS) and self._sending is None:
            self._sending = asyncio.create_task(self._send(connection, wrapped))

    async def _send(self, connection: ServerConnection, wrapped: bool) -> None:
        size = RATE_BURST if self._rate else FLOOD_BURST
        frames = [websocket_frame(payload(at, self.first_ms, wrapped)) for at in range(self._frames)]
        bursts = [b"".join(frames[at : at + size]) for at in range(0, len(frames), size)]
        await asyncio.sleep(self._settled_s)
        self._begun()
        started_s = time.perf_counter()
        for number, burst in enumerate(bursts):
            connection.transport.write(burst)
            if self._rate:
                due_s = started_s + (number + 1) * size / self._rate
                await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
            elif connection.transport.get_write_buffer_size() > BUFFER_BYTES_MAX:
                await asyncio.sleep(0.001)
