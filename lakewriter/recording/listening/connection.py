"""One connection of a shard, from the attempt to its end.

Contract: a connection subscribes to its shard's streams and puts every closed
candle into the sink. It ends by an error. After `leave` it ends when all frames
in flight are read. After `cancel` it ends when the frames that have arrived are
read. The connection only sets `changed`; its shard decides the next step.
"""

import asyncio
import contextlib
import random
from collections.abc import Iterable, Set
from typing import NamedTuple

from lakewriter.binance import wire
from lakewriter.binance.connect_limiter import ConnectGate
from lakewriter.binance.socket import CONNECTION_ERRORS, StreamSocket, Timeouts, open_socket
from lakewriter.candle import Candle
from lakewriter.clock import Clock, ExchangeTime
from lakewriter.errors import FrameError
from lakewriter.market import Market
from lakewriter.recording.listening.candle_sink import CandleSink

# Candles after which other tasks have their turn. One read may have the frames of thousands.
TURN_CANDLES_MAX = 50

# Connections that were opened together must not be replaced together.
_AGE_SHARE_MIN = 0.8


class ConnectionSettings(NamedTuple):
    """The settings of all connections of a listener.

    Args:
        market: the market, with its endpoints and limits.
        timeouts: the timeouts of a connection.
        clock: measures waits, and stamps `recv_us`.
        time: the exchange's time, which measures ages.
        gate: limits connection attempts.
        backoff_max_s: the maximum delay before a reconnect.
        rotate_after_ms: the maximum age of a connection, by the exchange's clock.
    """

    market: Market
    timeouts: Timeouts
    clock: Clock
    time: ExchangeTime
    gate: ConnectGate
    backoff_max_s: float
    rotate_after_ms: float


class ShardConnection:
    """A connection, and the task that reads it.

    Args:
        names: names of the streams to subscribe to.
        settings: the settings of the listener.
        sink: receives the closed candles.
        changed: event that is set when the state of the connection changed.
        must_prove: whether each stream has to send a frame before this connection takes over.

    Attributes:
        socket: the open socket; None before it is opened and after it is closed.
        opened_s: monotonic time at which the socket was opened; None before.
        delivered: whether any required frame has arrived.
        shutdown: whether the server announced its shutdown.
        leave_by_s: deadline of `leave`, in monotonic time.
        age_ms_max: age at which the connection is replaced, by the exchange's clock.
    """

    def __init__(
        self,
        names: Iterable[str],
        settings: ConnectionSettings,
        sink: CandleSink,
        changed: asyncio.Event,
        *,
        must_prove: bool,
    ) -> None:
        self.socket: StreamSocket | None = None
        self.opened_s: float | None = None
        self.delivered = False
        self.shutdown = False
        self.leave_by_s = 0.0
        self.age_ms_max = settings.rotate_after_ms * random.uniform(_AGE_SHARE_MIN, 1.0)  # noqa: S311 - jitter
        self._names = set(names)
        self._unproven = set(self._names) if must_prove else set()
        self._settings = settings
        self._sink = sink
        self._changed = changed
        self._leaving = False
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(lambda _: changed.set())

    @property
    def proved(self) -> bool:
        """Whether the connection is open, and no stream has to send a frame any more."""
        return self.opened_s is not None and not self._unproven

    @property
    def ended(self) -> bool:
        """Whether the connection has ended."""
        return self._task.done()

    @property
    def paused(self) -> bool:
        """Whether reading is paused, because the queue is full."""
        return self.socket is not None and self.socket.paused

    @property
    def acknowledged(self) -> Set[str]:
        """Names of the streams that the exchange acknowledged."""
        return self.socket.acknowledged if self.socket is not None else frozenset()

    @property
    def frames(self) -> int:
        """The number of frames received on the open connection; 0 if it is closed."""
        return self.socket.frames if self.socket is not None else 0

    def error(self) -> BaseException | None:
        """Return the error that ended the connection, if any."""
        return None if self._task.cancelled() else self._task.exception()

    def due_s(self) -> float:
        """Return the monotonic time at which the connection has to be replaced."""
        # The age uses the clock's rate. The time itself jumps when it becomes known.
        return (self.opened_s or 0.0) + self._settings.time.real_s(self.age_ms_max)

    def follow(self, names: Iterable[str]) -> None:
        """Replace the subscribed streams. If frames are still required, each new stream has to send one too."""
        names = set(names)
        if self._unproven:
            self._unproven = (self._unproven & names) | (names - self._names)
        self._names = names
        if self.socket is not None:
            self.socket.set_streams(names)

    def accept(self) -> None:
        """Stop requiring frames of streams that have not sent one."""
        self._unproven.clear()

    def leave(self, by_s: float) -> None:
        """Start to unsubscribe; the connection ends when all frames in flight are read.

        Args:
            by_s: the deadline, in monotonic time. The shard then cancels the connection.
        """
        self._leaving = True
        self.leave_by_s = by_s
        self.follow(())

    def cancel(self) -> None:
        """Close the connection, without a wait for more frames."""
        self._task.cancel()

    async def over(self) -> BaseException | None:
        """Wait until the connection has ended; return the error that ended it, if any."""
        await asyncio.wait({self._task})
        return self.error()

    async def _run(self) -> None:
        settings = self._settings
        await settings.gate.acquire()
        async with open_socket(settings.market, settings.timeouts, settings.clock) as socket:
            socket.set_streams(self._names)
            self.socket = socket
            self.opened_s = settings.clock.monotonic_s()
            self._changed.set()
            try:
                await self._read(socket)
            finally:
                self._sink.stats.frames_closed += socket.frames
                self.socket = None

    async def _read(self, socket: StreamSocket) -> None:
        try:
            await self._read_frames(socket)
        except asyncio.CancelledError:
            await self._take_arrived(socket)
            raise

    async def _take_arrived(self, socket: StreamSocket) -> None:
        """Take the frames that have arrived, without a wait for more."""
        with contextlib.suppress(TimeoutError, *CONNECTION_ERRORS):
            async with asyncio.timeout(0):
                while not await self._take(await socket.receive(), socket):
                    pass

    async def _read_frames(self, socket: StreamSocket) -> None:
        while self._unproven:
            frame = await socket.receive()
            self._prove(frame)
            if not wire.is_open_candle(frame) and await self._take(frame, socket):
                return
        # Nearly all frames are open candles. That they wake no task determines the cost of a frame.
        socket.skip(wire.is_open_candle)
        while not await self._take(await socket.receive(), socket):
            pass

    def _prove(self, frame: bytes) -> None:
        name = wire.stream_of(frame)
        if name is None or name not in self._names:
            return
        self.delivered = True
        self._unproven.discard(name)
        if not self._unproven:
            self._changed.set()

    async def _take(self, frame: bytes, socket: StreamSocket) -> bool:
        """Handle a frame; return whether it was the last frame before a clean end."""
        frames = self._sink.stats.frames
        try:
            message = wire.decode(frame, self._settings.market.name, self._settings.clock.wall_us())
        except FrameError as error:
            frames["unreadable"] += 1
            self._sink.count_bad(error.kind, str(error))
            return False
        if isinstance(message, Candle):
            frames["closed_candle"] += 1
            await self._sink.put(message, socket)
            if frames["closed_candle"] % TURN_CANDLES_MAX == 0 and not self._task.cancelling():
                await asyncio.sleep(0)
        elif isinstance(message, wire.Reply):
            frames["reply"] += 1
            socket.take_reply(message)
            return self._leaving and not socket.acknowledged
        elif isinstance(message, wire.Shutdown):
            frames["shutdown"] += 1
            self.shutdown = True
            self._changed.set()
        elif message is not wire.OPEN_CANDLE:
            frames["other"] += 1
        return False
