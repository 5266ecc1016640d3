"""A shard: the streams that share one connection.

Contract: while `run` runs and the shard has streams, a connection is open or is
being opened. A connection is replaced if it is too old, its server announces a
shutdown, or streams are silent on it. The successor takes over when each stream
has sent a frame; then the old connection is read to its end.

Each step acts on the present state of the connections only. The order of their
events has no effect.
"""

import asyncio
import contextlib
import logging
from enum import Enum

from lakewriter.binance import wire
from lakewriter.binance.handshake_errors import HandshakeRefusedError, TooManyStreamsError, broke_rule
from lakewriter.binance.socket import CONNECTION_ERRORS
from lakewriter.recording.listening import reopening
from lakewriter.recording.listening.backoff import Backoff
from lakewriter.recording.listening.candle_sink import CandleSink
from lakewriter.recording.listening.connection import ConnectionSettings, ShardConnection
from lakewriter.recording.listening.stream import StreamHealth

log = logging.getLogger(__name__)

# After a connection that lived this long, the backoff starts over.
GOOD_AFTER_S = 30.0

# Maximum pause between steps, because the rate of the clock may become known late.
LOOK_EVERY_S = 5.0


class ReplaceReason(Enum):
    """The reason why a connection is replaced, in a sentence."""

    AGE = "it is old"
    SHUTDOWN = "its server announced its shutdown"
    SILENCE = "streams are silent on it"


_WORDS = {
    ReplaceReason.AGE: reopening.AGE,
    ReplaceReason.SHUTDOWN: reopening.SHUTDOWN,
    ReplaceReason.SILENCE: reopening.SILENT_STREAMS,
}


class Shard:
    """Some streams of a listener, and their connection.

    Args:
        number: the number of the shard in log lines.
        settings: the settings of the listener.
        sink: receives the closed candles.
        listener_changed: event that is set when the exchange refused some of the streams.

    Attributes:
        refused_above: the number of streams that the exchange accepts; None if it refused no stream.
    """

    def __init__(
        self, number: int, settings: ConnectionSettings, sink: CandleSink, listener_changed: asyncio.Event
    ) -> None:
        self.streams: dict[str, StreamHealth] = {}
        self.refused_above: int | None = None
        self._label = f"{settings.market.name} #{number}"
        self._settings = settings
        self._sink = sink
        self._listener_changed = listener_changed
        self._changed = asyncio.Event()
        self._backoff = Backoff(settings.backoff_max_s)
        self._is_stale = False
        self._present: ShardConnection | None = None
        self._is_announced = False
        self._successor: ShardConnection | None = None
        self._reason = ReplaceReason.AGE
        self._leaving: list[ShardConnection] = []
        self._silent: StreamHealth | None = None
        self._retry_s = 0.0

    @property
    def connections(self) -> list[ShardConnection]:
        """The open connections: at most one, or more while a connection is being replaced."""
        return [
            connection
            for connection in (self._present, self._successor, *self._leaving)
            if connection is not None
        ]

    @property
    def acknowledged(self) -> int:
        """The number of streams that the exchange acknowledged."""
        connections = (self._present, self._successor)
        return max(
            (len(connection.acknowledged) for connection in connections if connection is not None), default=0
        )

    def add(self, stream: StreamHealth) -> None:
        """Add a stream."""
        self.streams[stream.name] = stream
        self._streams_changed()

    def remove(self, stream: StreamHealth) -> None:
        """Remove a stream; a shard without streams ends."""
        del self.streams[stream.name]
        self._streams_changed()

    def surplus(self, streams_max: int) -> list[StreamHealth]:
        """Return the streams that exceed a limit. Acknowledged streams are never among them."""
        granted = self._present.acknowledged if self._present is not None else frozenset()
        ordered = sorted(self.streams.values(), key=lambda stream: stream.name not in granted)
        return ordered[max(streams_max, len(granted & self.streams.keys())) :]

    def missed(self, stream: StreamHealth) -> None:
        """Count a candle that the stream did not deliver; repeated misses replace the connection."""
        is_suspect = stream.count_miss()
        if (
            is_suspect
            and self._silent is None
            and self._present is not None
            and self._present.opened_s is not None
        ):
            self._silent = stream
            self._changed.set()

    async def run(self) -> None:
        """Keep the streams connected until cancelled, or until no stream is left."""
        try:
            while self.streams:
                self._changed.clear()
                wait_s = self._step(self._settings.clock.monotonic_s())
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await self._changed.wait()
        finally:
            for connection in self.connections:
                connection.cancel()
            for connection in self.connections:
                await connection.over()
            self._present = self._successor = None
            self._leaving.clear()

    def _streams_changed(self) -> None:
        self._is_stale = True
        self._changed.set()

    def _step(self, now_s: float) -> float:
        """Update the connections by their present state; return the maximum pause in seconds."""
        self._reap_ended(now_s)
        self._promote_successor(now_s)
        self._sync_subscriptions()
        present = self._present
        if present is None:
            if now_s >= self._retry_s:
                self._present = self._open(must_prove=False)
                self._is_announced = False
            return self._wait_s(now_s, self._retry_s)
        if present.opened_s is None:
            return LOOK_EVERY_S
        if not self._is_announced:
            self._on_connected()
        if self._successor is not None:
            return self._wait_s(now_s, self._proof_deadline_s())
        reason = self._replace_reason(present, now_s)
        if reason is not None and now_s >= self._retry_s:
            self._reason = reason
            self._successor = self._open(must_prove=True)
            self._log_replacing(reason)
        return self._wait_s(now_s, present.due_s() if reason is None else self._retry_s)

    def _wait_s(self, now_s: float, until_s: float) -> float:
        alarms_s = [until_s, *(connection.leave_by_s for connection in self._leaving)]
        return min([LOOK_EVERY_S, *(at_s - now_s for at_s in alarms_s if at_s > now_s)])

    def _open(self, *, must_prove: bool) -> ShardConnection:
        return ShardConnection(self.streams, self._settings, self._sink, self._changed, must_prove=must_prove)

    def _on_connected(self) -> None:
        self._is_announced = True
        self._silent = None
        for stream in self.streams.values():
            stream.reconnected()
        log.info(
            "%(connection)s: connected, %(streams)d streams",
            {"connection": self._label, "streams": len(self.streams)},
        )

    def _sync_subscriptions(self) -> None:
        if self._is_stale:
            self._is_stale = False
            for connection in (self._present, self._successor):
                if connection is not None:
                    connection.follow(self.streams)

    def _replace_reason(self, present: ShardConnection, now_s: float) -> ReplaceReason | None:
        if self._silent is not None and not self._silent.missed_count:
            self._silent = None  # the stream delivers again
        if self._silent is not None:
            return ReplaceReason.SILENCE
        if present.shutdown:
            return ReplaceReason.SHUTDOWN
        return ReplaceReason.AGE if now_s >= present.due_s() else None

    def _proof_deadline_s(self) -> float:
        opened_s = self._successor.opened_s if self._successor is not None else None
        return float("inf") if opened_s is None else opened_s + self._settings.timeouts.prove_s

    def _promote_successor(self, now_s: float) -> None:
        """Replace the connection once its successor is proved, or at the deadline.

        At the deadline, a successor that delivered nothing is rejected.
        """
        successor, old = self._successor, self._present
        if successor is None or old is None or successor.opened_s is None:
            return
        if not successor.proved:
            # While the queue is full, no frame is read and no stream can be proved.
            if now_s < self._proof_deadline_s() or successor.paused:
                return
            if not successor.delivered:
                self._reject(successor, now_s)
                return
        successor.accept()
        old.leave(now_s + 2 * self._settings.timeouts.reply_s)
        self._leaving.append(old)
        self._present, self._successor, self._is_announced = successor, None, False
        self._backoff.reset()
        stats = self._sink.stats
        stats.reopened[_WORDS[self._reason]] += 1
        if self._reason is ReplaceReason.SILENCE:
            stats.replaced += 1
        else:
            stats.rotations += 1

    def _reject(self, successor: ShardConnection, now_s: float) -> None:
        successor.cancel()
        self._leaving.append(successor)
        self._successor = None
        delay_s = self._backoff.next_s()
        self._retry_s = now_s + delay_s
        log.warning("%s: its successor delivered nothing; next try in %.1f s", self._label, delay_s)

    def _reap_ended(self, now_s: float) -> None:
        """Remove ended connections, and cancel those whose time to leave is over."""
        for connection in self._leaving:
            if now_s >= connection.leave_by_s and not connection.paused:
                connection.cancel()
        for connection in [connection for connection in self._leaving if connection.ended]:
            self._leaving.remove(connection)
            self._raise_bug(connection.error())
        if self._successor is not None and self._successor.ended:
            failed, self._successor = self._successor, None
            self._fail(failed.error(), now_s, "its successor")
        if self._present is not None and self._present.ended:
            ended, self._present = self._present, None
            self._silent = None
            self._sink.stats.reconnects += 1
            self._sink.stats.reopened[reopening.reason_of(ended.error())] += 1
            if ended.opened_s is not None and now_s - ended.opened_s > GOOD_AFTER_S:
                self._backoff.reset()
            if self._successor is None:
                self._fail(ended.error(), now_s, "connection")
            else:
                self._raise_bug(ended.error())
                log.warning(
                    "%s: connection ended: %s; its successor takes over",
                    self._label,
                    _error_text(ended.error()),
                )
                self._successor.accept()
                self._present, self._successor, self._is_announced = self._successor, None, False

    def _fail(self, error: BaseException | None, now_s: float, what: str) -> None:
        self._raise_bug(error)
        delay_s = self._backoff.next_s(error)
        self._retry_s = now_s + delay_s
        if isinstance(error, TooManyStreamsError):
            # The number of acknowledged streams, or half of the requested ones if none was acknowledged.
            self.refused_above = error.acknowledged or max(1, len(self.streams) // 2)
            self._listener_changed.set()
        text = f"{self._label}: {what} ended: {_error_text(error)}"
        if error is not None and broke_rule(error):
            text += ", a rule of the exchange was broken"
        if isinstance(error, HandshakeRefusedError) and error.whole_host:
            self._settings.gate.block(delay_s, text)
        else:
            log.warning("%s; next try in %.1f s", text, delay_s)

    def _raise_bug(self, error: BaseException | None) -> None:
        if error is not None and not isinstance(error, CONNECTION_ERRORS):
            raise error  # a bug

    def _log_replacing(self, reason: ReplaceReason) -> None:
        if reason is ReplaceReason.SILENCE and self._silent is not None:
            log.warning(
                "%s: %s missed %d candles; another connection is tried",
                self._label,
                self._silent.series,
                self._silent.missed_count,
            )
        else:
            log.info("%s: %s; another connection is made", self._label, reason.value)


def _error_text(error: BaseException | None) -> str:
    return wire.quoted(str(error) or type(error).__name__)
