"""The streams that share one connection, and the care for that connection.

Contract: while `run` runs and there are streams, there is a connection, or one
is being made. One that is too old, that its server is about to end, or on which
streams are silent is replaced, make before break: its successor takes over when
it has shown that each stream flows, and then the old one is read to its end.

Every turn looks at how things stand and does what follows from it; nothing here
depends on the order in which connections report.
"""

import asyncio
import contextlib
import logging
from enum import Enum

from lakewriter.binance import wire
from lakewriter.binance.handshake_errors import HandshakeRefusedError, TooManyStreamsError, broke_rule
from lakewriter.binance.socket import CONNECTION_ERRORS
from lakewriter.recording.listening.backoff import Backoff
from lakewriter.recording.listening.candle_sink import CandleSink
from lakewriter.recording.listening.connection import ConnectionSettings, ShardConnection
from lakewriter.recording.listening.stream import StreamHealth

log = logging.getLogger(__name__)

# A connection that lived this long was a good one: start over gently.
GOOD_AFTER_S = 30.0

# At least this often a shard looks at the clock, whose rate may be learned late.
LOOK_EVERY_S = 5.0


class ReplaceReason(Enum):
    """Why a connection is replaced."""

    AGE = "it is old"
    SHUTDOWN = "its server announced its shutdown"
    SILENCE = "streams are silent on it"


class Shard:
    """Some streams of a listener, and their connection.

    Args:
        number: for people.
        terms: of the listener.
        outlet: what takes the closed candles.
        listener_changed: set when the listener should look here.
    """

    def __init__(
        self, number: int, terms: ConnectionSettings, outlet: CandleSink, listener_changed: asyncio.Event
    ) -> None:
        self.streams: dict[str, StreamHealth] = {}
        self.refused_above: int | None = None
        self._label = f"{terms.market.name} #{number}"
        self._terms = terms
        self._outlet = outlet
        self._listener_changed = listener_changed
        self._changed = asyncio.Event()
        self._backoff = Backoff(terms.backoff_max_s)
        self._stale = False
        self._present: ShardConnection | None = None
        self._welcomed = False
        self._successor: ShardConnection | None = None
        self._why = ReplaceReason.AGE
        self._leaving: list[ShardConnection] = []
        self._accused: StreamHealth | None = None
        self._retry_s = 0.0

    @property
    def links(self) -> list[ShardConnection]:
        """Its connections: none, one, or more while one is replaced."""
        return [link for link in (self._present, self._successor, *self._leaving) if link is not None]

    @property
    def acknowledged(self) -> int:
        """How many of its streams the exchange says it sends."""
        links = (self._present, self._successor)
        return max((len(link.acknowledged) for link in links if link is not None), default=0)

    def add(self, stream: StreamHealth) -> None:
        """Carry a stream too."""
        self.streams[stream.name] = stream
        self._tell()

    def remove(self, stream: StreamHealth) -> None:
        """Carry it no longer; without any stream the shard ends."""
        del self.streams[stream.name]
        self._tell()

    def surplus(self, streams_max: int) -> list[StreamHealth]:
        """Return what it carries beyond so many streams; what flows already is not among them."""
        granted = self._present.acknowledged if self._present is not None else frozenset()
        ordered = sorted(self.streams.values(), key=lambda stream: stream.name not in granted)
        return ordered[max(streams_max, len(granted & self.streams.keys())) :]

    def missed(self, stream: StreamHealth) -> None:
        """Hold it against the connection that a candle of the stream did not come."""
        suspect = stream.missed()
        if (
            suspect
            and self._accused is None
            and self._present is not None
            and self._present.opened_s is not None
        ):
            self._accused = stream
            self._changed.set()

    async def run(self) -> None:
        """Keep the streams connected, until cancelled or none is left."""
        try:
            while self.streams:
                self._changed.clear()
                wait_s = self._turn(self._terms.clock.monotonic_s())
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await self._changed.wait()
        finally:
            for link in self.links:
                link.cancel()
            for link in self.links:
                await link.over()
            self._present = self._successor = None
            self._leaving.clear()

    def _tell(self) -> None:
        self._stale = True
        self._changed.set()

    def _turn(self, now_s: float) -> float:
        """Do what follows from how things stand; return until when, at most, to wait."""
        self._bury(now_s)
        self._promote(now_s)
        self._follow()
        present = self._present
        if present is None:
            if now_s >= self._retry_s:
                self._present = self._open(proving=False)
                self._welcomed = False
            return self._wait_s(now_s, self._retry_s)
        if present.opened_s is None:
            return LOOK_EVERY_S
        if not self._welcomed:
            self._welcome()
        if self._successor is not None:
            return self._wait_s(now_s, self._proof_over_s())
        why = self._why_replace(present, now_s)
        if why is not None and now_s >= self._retry_s:
            self._why = why
            self._successor = self._open(proving=True)
            self._say_replacing(why)
        return self._wait_s(now_s, present.due_s() if why is None else self._retry_s)

    def _wait_s(self, now_s: float, until_s: float) -> float:
        alarms_s = [until_s, *(link.leave_by_s for link in self._leaving)]
        return min([LOOK_EVERY_S, *(at_s - now_s for at_s in alarms_s if at_s > now_s)])

    def _open(self, *, proving: bool) -> ShardConnection:
        return ShardConnection(self.streams, self._terms, self._outlet, self._changed, proving=proving)

    def _welcome(self) -> None:
        self._welcomed = True
        self._accused = None
        for stream in self.streams.values():
            stream.reconnected()
        log.info("%s: connected, %d streams", self._label, len(self.streams))

    def _follow(self) -> None:
        if self._stale:
            self._stale = False
            for link in (self._present, self._successor):
                if link is not None:
                    link.follow(self.streams)

    def _why_replace(self, present: ShardConnection, now_s: float) -> ReplaceReason | None:
        if self._accused is not None and not self._accused.strikes:
            self._accused = None  # it flows again
        if self._accused is not None:
            return ReplaceReason.SILENCE
        if present.shutdown:
            return ReplaceReason.SHUTDOWN
        return ReplaceReason.AGE if now_s >= present.due_s() else None

    def _proof_over_s(self) -> float:
        opened_s = self._successor.opened_s if self._successor is not None else None
        return float("inf") if opened_s is None else opened_s + self._terms.patience.prove_s

    def _promote(self, now_s: float) -> None:
        """Let the successor take over, if it has shown what it must."""
        successor, old = self._successor, self._present
        if successor is None or old is None or successor.opened_s is None:
            return
        if not successor.proved:
            # While the queue is full nothing is read, and nothing can be shown.
            if now_s < self._proof_over_s() or successor.paused:
                return
            if not successor.delivered:
                self._reject(successor, now_s)
                return
        successor.accept()
        old.leave(now_s + 2 * self._terms.patience.reply_s)
        self._leaving.append(old)
        self._present, self._successor, self._welcomed = successor, None, False
        self._backoff.reset()
        if self._why is ReplaceReason.SILENCE:
            self._outlet.stats.replaced += 1
        else:
            self._outlet.stats.rotations += 1

    def _reject(self, successor: ShardConnection, now_s: float) -> None:
        successor.cancel()
        self._leaving.append(successor)
        self._successor = None
        delay_s = self._backoff.next_s()
        self._retry_s = now_s + delay_s
        log.warning("%s: its successor delivered nothing; next try in %.1f s", self._label, delay_s)

    def _bury(self, now_s: float) -> None:
        """Take leave of connections that have ended."""
        for link in self._leaving:
            if now_s >= link.leave_by_s and not link.paused:
                link.cancel()
        for link in [link for link in self._leaving if link.ended]:
            self._leaving.remove(link)
            self._check(link.error())
        if self._successor is not None and self._successor.ended:
            failed, self._successor = self._successor, None
            self._fail(failed.error(), now_s, "its successor")
        if self._present is not None and self._present.ended:
            ended, self._present = self._present, None
            self._accused = None
            self._outlet.stats.reconnects += 1
            if ended.opened_s is not None and now_s - ended.opened_s > GOOD_AFTER_S:
                self._backoff.reset()
            if self._successor is None:
                self._fail(ended.error(), now_s, "connection")
            else:
                self._check(ended.error())
                log.warning(
                    "%s: connection ended: %s; its successor takes over", self._label, _words(ended.error())
                )
                self._successor.accept()
                self._present, self._successor, self._welcomed = self._successor, None, False

    def _fail(self, error: BaseException | None, now_s: float, what: str) -> None:
        self._check(error)
        delay_s = self._backoff.next_s(error)
        self._retry_s = now_s + delay_s
        if isinstance(error, TooManyStreamsError):
            # What it was granted, or half of what it asked for if that was nothing.
            self.refused_above = error.acknowledged or max(1, len(self.streams) // 2)
            self._listener_changed.set()
        said = f"{self._label}: {what} ended: {_words(error)}"
        if error is not None and broke_rule(error):
            said += ", a rule of the exchange was broken"
        if isinstance(error, HandshakeRefusedError) and error.whole_host:
            self._terms.gate.hold(delay_s, said)
        else:
            log.warning("%s; next try in %.1f s", said, delay_s)

    def _check(self, error: BaseException | None) -> None:
        if error is not None and not isinstance(error, CONNECTION_ERRORS):
            raise error  # a bug: let it be seen

    def _say_replacing(self, why: ReplaceReason) -> None:
        if why is ReplaceReason.SILENCE and self._accused is not None:
            log.warning(
                "%s: %s missed %d candles; another connection is tried",
                self._label,
                self._accused.series,
                self._accused.strikes,
            )
        else:
            log.info("%s: %s; another connection is made", self._label, why.value)


def _words(error: BaseException | None) -> str:
    return wire.quoted(str(error) or type(error).__name__)
