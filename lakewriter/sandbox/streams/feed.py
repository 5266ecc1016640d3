"""The frames of each stream. They are made once, and all connections share them.

A feed has the due time of each closing frame. It makes the frames of open and closed
candles. It computes candles in blocks of a few dozen.
"""

from collections import OrderedDict
from typing import NamedTuple

from lakewriter.interval import Interval
from lakewriter.sandbox.streams.protocol import close_delay_ms, kline_frame, parse_stream, with_stream_name
from lakewriter.sandbox.truth.candles import Truth, stream_key
from lakewriter.sandbox.truth.catalogue import SymbolCatalogue
from lakewriter.sandbox.truth.integer_candles import rows
from lakewriter.sandbox.truth.noise import uniform_at
from lakewriter.sandbox.truth.symbols import LISTED_MS, SymbolListing

# The number of candles in a block. Candles of a block share numpy's overhead. Each stream
# adds its own number, so the streams do not compute in the same second.
_BLOCK_CANDLES = 48
_BLOCK_SPREAD = 32

# The maximum length of a block of several candles.
_BLOCK_MS_MAX = 86_400_000

# The maximum cached frames of one stream, for connections that lag.
_FRAMES_MAX = 8


class Step(NamedTuple):
    """One frame to send.

    Args:
        begin_ms: the begin time of its candle.
        event_ms: its due time.
        closed: whether the frame closes the candle.
    """

    begin_ms: int
    event_ms: int
    closed: bool


class Frame(NamedTuple):
    """One payload in its raw and its combined form."""

    raw: bytes
    combined: bytes


class Feed:
    """One stream: the frames of a symbol's candles of one interval.

    Args:
        name: the stream's name in subscriptions.
    """

    def __init__(self, name: str, spec: SymbolListing, grid: Interval, truth: Truth) -> None:
        self.name = name
        self.spec = spec
        self.grid = grid
        self._truth = truth
        self._key = stream_key(truth.seed, spec.market, name)
        self._rows: dict[int, tuple[int, ...]] = {}
        self._block_candles = _BLOCK_CANDLES + self._key % _BLOCK_SPREAD
        self._frames: OrderedDict[Step, Frame] = OrderedDict()

    @property
    def phase(self) -> float:
        """The position in each push period, in [0, 1), at which frames of the open candle are due."""
        return self._key % 997 / 997

    def due_ms(self, begin_ms: int) -> int:
        """Return the due time of a candle's closing frame, which is its event time."""
        fraction = uniform_at(self._key, 20, begin_ms)
        return self.grid.end(begin_ms) - 1 + close_delay_ms(self.spec.market, fraction)

    def first_begin_ms(self, now_ms: int) -> int:
        """Return the begin time of the first candle whose closing frame is not due yet."""
        begin_ms = self.grid.floor(max(now_ms, LISTED_MS))
        before_ms = self.grid.floor(begin_ms - 1)
        return before_ms if before_ms >= LISTED_MS and self.due_ms(before_ms) > now_ms else begin_ms

    def trade_num(self, begin_ms: int) -> int:
        """Return the number of trades of a closed candle."""
        return self._row(begin_ms)[7]

    def frame(self, step: Step) -> Frame:
        """Return the frame of a step."""
        cached = self._frames.get(step)
        if cached is None:
            begin_ms, event_ms, closed = step
            row = self._row(begin_ms)
            if not closed:
                row = partial_row(row, (event_ms - begin_ms) / (self.grid.end(begin_ms) - begin_ms))
            text = kline_frame(self.spec, self.grid, row, event_ms, closed)
            cached = Frame(text.encode(), with_stream_name(self.name, text).encode())
            self._frames[step] = cached
            if len(self._frames) > _FRAMES_MAX:
                self._frames.popitem(last=False)
        return cached

    def _row(self, begin_ms: int) -> tuple[int, ...]:
        if begin_ms not in self._rows:
            length_ms = self.grid.end(begin_ms) - begin_ms
            stop_ms = begin_ms + min(length_ms * self._block_candles, max(length_ms, _BLOCK_MS_MAX))
            spec = self.spec
            candles = self._truth.integer_candles(spec.market, spec.symbol, self.grid.name, begin_ms, stop_ms)
            self._rows = {row[0]: row for row in rows(candles)}
        return self._rows[begin_ms]


class Feeds:
    """The feeds of one market, by stream name. Only symbols that trade at any time have feeds."""

    def __init__(self, catalogue: SymbolCatalogue, truth: Truth) -> None:
        self._catalogue = catalogue
        self._truth = truth
        self._feeds: dict[str, Feed] = {}

    def find(self, name: str) -> Feed | None:
        """Return the feed of this name; None if the exchange sends no frames for the name."""
        feed = self._feeds.get(name)
        if feed is None:
            stream = parse_stream(name, self._catalogue.market)
            spec = None if stream is None else self._catalogue.find(stream.symbol)
            if stream is None or spec is None or spec.status != "TRADING":
                return None
            feed = Feed(name, spec, stream.interval, self._truth)
            self._feeds[name] = feed
        return feed


def partial_row(row: tuple[int, ...], fraction: float) -> tuple[int, ...]:
    """Return a possible state of an open candle after `fraction` of its time; volumes only grow."""
    begin_ms, first, high, low, last, volume, quote, trades, taker, taker_quote, first_id, previous = row

    def so_far(total: int) -> int:
        return int(total * fraction)

    done = so_far(trades)
    if not done:
        return (begin_ms, previous, previous, previous, previous, 0, 0, 0, 0, 0, first_id, previous)
    now = first + so_far(last - first)
    top = max(first, now) + so_far(high - max(first, last))
    bottom = min(first, now) - so_far(min(first, last) - low)
    return (
        begin_ms, first, max(top, now), min(bottom, now), now, so_far(volume), so_far(quote),
        done, so_far(taker), so_far(taker_quote), first_id, previous,
    )  # fmt: skip
