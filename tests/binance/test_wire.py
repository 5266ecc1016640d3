"""The exchange's messages: each is decoded to its type, or refused with a kind."""

import json
import math
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lakewriter.binance.wire import (
    BEGIN_MS_MAX,
    BEGIN_MS_MIN,
    FRAME_BYTES_MAX,
    OPEN_CANDLE,
    Other,
    Reply,
    Shutdown,
    decode,
    encode_request,
    is_open_candle,
    number,
    stream_name,
    stream_of,
)
from lakewriter.candle import Candle
from lakewriter.errors import FrameError
from lakewriter.interval import BY_WIRE_NAME, DAY_MS, INTERVALS
from lakewriter.market import MARKETS
from support.lengths import examples

RECV_US = 1_719_705_720_050_000
BEGIN_MS = 1_719_705_660_000  # 2024-06-30 00:01

# Made up, in the shapes and decimals of each market.
SPOT = {
    "t": BEGIN_MS,
    "T": BEGIN_MS + 59_999,
    "s": "BTCUSDT",
    "i": "1m",
    "f": 3_000_000_001,
    "L": 3_000_000_078,
    "o": "60000.10000000",
    "c": "60010.20000000",
    "h": "60020.30000000",
    "l": "59990.40000000",
    "v": "12.50000000",
    "n": 78,
    "x": True,
    "q": "750125.62500000",
    "V": "6.25000000",
    "Q": "375062.81250000",
    "B": "0",
}
COIN = {**SPOT, "s": "BTCUSD_PERP", "v": "180", "q": "0.21498328", "V": "90", "Q": "0.10749164"}


def event(kline: dict[str, Any] = SPOT, /, **changes: Any) -> dict[str, Any]:
    """Return a kline event whose `k` has these changes."""
    kline = {**kline, **changes}
    return {"e": "kline", "E": BEGIN_MS + 60_004, "s": kline["s"], "k": kline}


def combined(payload: dict[str, Any]) -> dict[str, Any]:
    return {"stream": f"{payload['s'].lower()}@kline_{payload['k']['i']}", "data": payload}


def frame_of(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def usdm_frame(payload: dict[str, Any]) -> bytes:
    """Return a frame in the USDⓈ-M market's spacing: `, ` between the members of `k` only."""
    kline = ", ".join(f'"{name}":{json.dumps(value)}' for name, value in payload["k"].items())
    outside = json.dumps({**payload, "k": 0}, separators=(",", ":"))
    return outside.replace('"k":0', f'"k":{{{kline}}}').encode()


def expected(kline: dict[str, Any], market: str) -> Candle:
    return Candle(
        market,
        kline["s"],
        "1m",
        kline["t"],
        kline["t"] + 60_000,
        float(kline["o"]),
        float(kline["h"]),
        float(kline["l"]),
        float(kline["c"]),
        float(kline["v"]),
        float(kline["q"]),
        kline["n"],
        float(kline["V"]),
        float(kline["Q"]),
        BEGIN_MS + 60_004,
        RECV_US,
        "stream",
    )


def refused(frame: bytes) -> str:
    """Return the kind of the frame's FrameError."""
    with pytest.raises(FrameError) as caught:
        decode(frame, "spot", RECV_US)
    assert "\n" not in str(caught.value)
    return caught.value.kind


@pytest.mark.parametrize("wrapped", [False, True], ids=["raw", "combined"])
@pytest.mark.parametrize(
    ("market", "kline"), [("spot", SPOT), ("usdt_futures", SPOT), ("coin_futures", COIN)]
)
def test_closed_candle(market, kline, wrapped):
    """A closed kline of any market becomes a candle with the same values."""
    payload = event(kline)
    frame = frame_of(combined(payload) if wrapped else payload)
    assert not is_open_candle(frame)
    assert decode(frame, market, RECV_US) == expected(kline, market)


@pytest.mark.parametrize("closed", [False, True])
def test_usdm_spacing(closed):
    """The USDⓈ-M market's spaces inside a kline make no difference."""
    payload = event(x=closed)
    for frame in (usdm_frame(payload), b'{"stream":"btcusdt@kline_1m","data":' + usdm_frame(payload) + b"}"):
        assert b', "x":' in frame
        assert is_open_candle(frame) is not closed
        assert decode(frame, "usdt_futures", RECV_US) == (
            expected(SPOT, "usdt_futures") if closed else OPEN_CANDLE
        )


def test_open_candle():
    """An open candle is recognized without parsing, and skipped if it is parsed."""
    for value in (event(x=False), combined(event(x=False))):
        assert is_open_candle(frame_of(value))
        assert decode(frame_of(value), "spot", RECV_US) == OPEN_CANDLE
    spaced = json.dumps(event(x=False)).encode()
    assert not is_open_candle(spaced)
    assert decode(spaced, "spot", RECV_US) == OPEN_CANDLE


blanks = st.text(" \t\n\r", max_size=3)


@st.composite
def spaced(draw: st.DrawFn, value: Any) -> str:
    """Render JSON with any whitespace, and with members in any order."""
    if isinstance(value, dict):
        members = draw(st.permutations(list(value.items())))
        inside = ",".join(
            f"{draw(blanks)}{json.dumps(name)}{draw(blanks)}:{draw(spaced(member))}"
            for name, member in members
        )
        return f"{draw(blanks)}{{{inside}}}{draw(blanks)}"
    return f"{draw(blanks)}{json.dumps(value)}{draw(blanks)}"


@examples(30, 300)
@given(st.data(), st.booleans(), st.booleans())
def test_no_closed_candle_is_passed_over(data, wrapped, closed):
    """In any spacing and order, a closed candle never counts as open."""
    payload = event(x=closed)
    frame = data.draw(spaced(combined(payload) if wrapped else payload)).encode()
    if closed:
        assert not is_open_candle(frame)
    assert decode(frame, "spot", RECV_US) == (expected(SPOT, "spot") if closed else OPEN_CANDLE)


@given(st.binary(max_size=200) | st.text('"x:falsetru{}, ', max_size=60).map(str.encode))
@example(b'{"x":false}')
@example(b'{"x":false,"y":true}')
def test_positive_evidence(frame):
    """A frame counts as an open candle only if it contains `"x":false` and no `true`."""
    assert is_open_candle(frame) == (b'"x":false' in frame and b"true" not in frame)


def test_zero_trades():
    """A candle without trades is valid: flat, with zero volumes."""
    kline = {**SPOT, "f": -1, "L": -1, "n": 0, "v": "0.00000000", "q": "0.00000000", "V": "0", "Q": "0"}
    assert decode(frame_of(event(kline)), "spot", RECV_US) == expected(kline, "spot")


def test_odd_close_time():
    """A candle shortened by a halt has an odd close time, and is accepted."""
    for close_ms in (BEGIN_MS, BEGIN_MS + 41_646, BEGIN_MS + 10**9):
        assert decode(frame_of(event(T=close_ms)), "spot", RECV_US) == expected(SPOT, "spot")


def test_unknown_fields():
    """Unknown fields are ignored at any place."""
    payload = {**event(z={"deep": [1, None]}), "ps": "BTCUSD", "st": 1}
    wrapped = {**combined(payload), "extra": True}
    assert decode(frame_of(payload), "spot", RECV_US) == expected(SPOT, "spot")
    assert decode(frame_of(wrapped), "spot", RECV_US) == expected(SPOT, "spot")


@pytest.mark.parametrize("wire_name", BY_WIRE_NAME)
def test_every_interval(wire_name):
    """Each interval's candle ends where the next begins; months follow the calendar."""
    interval = BY_WIRE_NAME[wire_name]
    begin_ms = 1_704_067_200_000  # 2024-01-01, a Monday
    candle = decode(frame_of(event(i=wire_name, t=begin_ms)), "spot", RECV_US)
    assert isinstance(candle, Candle)
    assert candle.interval == interval.name
    assert candle.end_ms == interval.end(begin_ms)


@pytest.mark.parametrize("begin_ms", [1_704_067_200_000 + day * DAY_MS for day in range(3)])
def test_three_days_from_any_midnight(begin_ms):
    """A `3d` candle may begin at any midnight, because its anchor is not documented."""
    candle = decode(frame_of(event(i="3d", t=begin_ms)), "spot", RECV_US)
    assert isinstance(candle, Candle)
    assert candle.end_ms - candle.begin_ms == 3 * DAY_MS
    assert refused(frame_of(event(i="3d", t=begin_ms + 3_600_000))) == "time"


@pytest.mark.parametrize(
    ("frame", "reply"),
    [
        (b'{"result":null,"id":1}', Reply(1, "", 0)),
        (b'{"id":7,"result":null}', Reply(7, "", 0)),
        (b'{"result":["btcusdt@kline_1m"],"id":3}', Reply(3, "", 0)),
        (b'{"result":true,"id":3}', Reply(3, "", 0)),
        (b'{"result":null,"id":"abc"}', Reply(None, "", 0)),
        (b'{"result":null}', Reply(None, "", 0)),
        (b'{"code":2,"msg":"Invalid request","id":5}', Reply(5, "Invalid request", 2)),
        (b'{"code":0,"msg":"Unknown property","id":5}', Reply(5, "Unknown property", 0)),
        (b'{"code":3,"msg":"","id":null}', Reply(None, "unknown error", 3)),
        (b'{"error":{"code":2,"msg":"unknown variant"},"id":4}', Reply(4, "unknown variant", 2)),
        (b'{"error":{"code":4,"msg":"Too many subscriptions"}}', Reply(None, "Too many subscriptions", 4)),
        (b'{"error":{},"id":4}', Reply(4, "unknown error", 0)),
        (b' {"error" : {"msg" : "m", "code" : -1}, "id" : 4} ', Reply(4, "m", -1)),
    ],
)
def test_replies(frame, reply):
    """Answers are parsed in spot's flat form and in the futures' nested form."""
    assert decode(frame, "spot", RECV_US) == reply


@pytest.mark.parametrize(
    "frame",
    [
        b'{"e":"serverShutdown","E":1770123456789}',
        b'{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1770123456789}}',
        b'{ "data" : { "E" : 1770123456789, "e" : "serverShutdown" }, "stream" : "!serverShutdown" }',
    ],
)
def test_shutdown(frame):
    """The notice of a shutdown is parsed raw and combined."""
    assert decode(frame, "spot", RECV_US) == Shutdown(1_770_123_456_789)


@pytest.mark.parametrize(
    ("frame", "event_name"),
    [
        (b'{"e":"trade","E":1,"s":"BTCUSDT","t":5,"p":"0.001"}', "trade"),
        (b'{"stream":"btcusdt@aggTrade","data":{"e":"aggTrade","E":1}}', "aggTrade"),
        (b'{"stream":"btcusdt@depth5","data":{"lastUpdateId":1,"bids":[],"asks":[]}}', ""),
        (b'{"stream":"!ticker@arr","data":[{"e":"24hrTicker"}]}', "array"),
        (b'{"stream":"!ticker@arr","data": [{"e":"24hrTicker"}]}', "array"),
        (b'[{"e":"24hrTicker"}]', "array"),
        (b" [ ]", "array"),
        (b'{"e":"continuous_kline","k":{"x":true}}', "continuous_kline"),
        (b'{"u":1,"s":"BTCUSDT","b":"1","B":"2","a":"1","A":"2"}', ""),
        (b"{}", ""),
    ],
)
def test_other_events(frame, event_name):
    """Other events are returned with their name, and not parsed."""
    assert decode(frame, "spot", RECV_US) == Other(event_name)


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b" ",
        b"\0",
        b"nonsense",
        b'{"e":"kline"',
        b'{"e":"kline",}',
        b"{'e':'kline'}",
        b'{"id":1} {"id":2}',
        b'\xef\xbb\xbf{"e":"trade"}',
        b'{"e":"\xff"}',
        b'{"e":"\\ud800"}',
        b'{"stream":"a","data":{"e":"kl',
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"stream":"a","data":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001,
        frame_of(event())[:-1],
        frame_of(event()).replace(b"78", b"078"),
    ],
    ids=range(16),
)
def test_not_json(frame):
    """Bytes that are not JSON raise FrameError of kind json, at any depth."""
    assert refused(frame) == "json"


@pytest.mark.parametrize(
    "frame",
    [
        b"null",
        b"1",
        b'"kline"',
        b'{"stream":"a","data":null}',
        b'{"stream":"a","data":1}',
        b'{"stream":1,"data":{}}',
        b'{"e":"kline"}',
        b'{"e":"kline","E":1,"s":"A","k":null}',
        b'{"e":"kline","E":1,"s":"A","k":[]}',
        b'{"stream":"a","data":{"e":"kline"}}',
        b'{"error":"x","id":1}',
        b'{"error":{"code":"x"},"id":1}',
        b'{"e":"serverShutdown","E":"soon"}',
    ],
)
def test_other_shapes(frame):
    """JSON of another shape raises FrameError of kind shape."""
    assert refused(frame) == "shape"


@pytest.mark.parametrize("name", [name for name in SPOT if name not in "fLB"])
def test_missing_or_mistyped_field(name):
    """A kline without a needed field, or with one of another type, is refused."""
    kline = dict(SPOT)
    del kline[name]
    payload = {**event(), "k": kline}
    assert refused(frame_of(payload)) == "shape"
    wrong: list[Any] = [None, [], {}, 1.5]
    wrong += ["1"] if isinstance(SPOT[name], int) else [1, True]
    for value in wrong:
        assert refused(frame_of({**event(), "k": {**SPOT, name: value}})) == "shape"


@pytest.mark.parametrize("name", ["E", "s"])
def test_missing_field_of_the_event(name):
    """A kline event must have its time and its symbol."""
    payload = event()
    del payload[name]
    assert refused(frame_of(payload)) == "shape"


NO_NUMBERS = [
    "",
    " ",
    "nan",
    "NaN",
    "inf",
    "Infinity",
    "-1",
    "-0",
    "+1",
    "1_0",
    " 1",
    "1 ",
    "1\n",
    "1e3",
    "1E3",
    "0x10",
    "1,5",
    "1.",
    ".5",
    "1.2.3",
    "١٢",
    "１",
    "1\0",
    "null",
    "9" * 65,
    "0." + "1" * 100,
    "9" * 100_000,
]


@pytest.mark.parametrize("text", NO_NUMBERS, ids=range(len(NO_NUMBERS)))
@pytest.mark.parametrize("name", ["o", "h", "l", "c", "v", "q", "V", "Q"])
def test_no_numbers(name, text):
    """A text that is no plain decimal number of limited length is refused, in any field."""
    assert refused(frame_of(event(**{name: text}))) == "number"


@given(st.decimals(0, 10**30, places=8, allow_nan=False, allow_infinity=False))
def test_numbers(value):
    """A decimal string becomes the nearest double."""
    text = f"{value:f}"
    assert number(text) == float(text)


@given(st.text(max_size=70) | st.text("0123456789.", max_size=70))
def test_any_number(text):
    """Any text is a finite number of at least 0, or refused."""
    try:
        value = number(text)
    except FrameError as error:
        assert error.kind == "number"
    else:
        assert math.isfinite(value)
        assert value >= 0
        assert set(text) <= set("0123456789.")


@pytest.mark.parametrize("trades", [-1, 2**53 + 1, 2**63, 10**30])
def test_no_trade_counts(trades):
    """A number of trades is at least 0, and at most 2^53."""
    assert refused(frame_of(event(n=trades))) == "number"


@pytest.mark.parametrize(
    "begin_ms",
    [
        BEGIN_MS + 1,
        BEGIN_MS - 1,
        BEGIN_MS + 30_000,
        -60_000,
        0,
        BEGIN_MS_MIN - 60_000,
        BEGIN_MS_MAX,
        BEGIN_MS * 1000,
        10**17,
        2**63,
        10**30,
    ],
)
def test_no_begin_times(begin_ms):
    """A begin time off its grid, or of another century, is refused."""
    assert refused(frame_of(event(t=begin_ms))) == "time"


@pytest.mark.parametrize("event_ms", [-1, 0, BEGIN_MS_MIN - 1, BEGIN_MS_MAX, BEGIN_MS * 1000, 10**30])
def test_no_event_times(event_ms):
    """An event time of another century is refused."""
    assert refused(frame_of({**event(), "E": event_ms})) == "time"


@given(st.sampled_from(list(INTERVALS.values())), st.integers(BEGIN_MS_MIN, BEGIN_MS_MAX - 33 * DAY_MS))
def test_off_grid(interval, begin_ms):
    """Only times on the interval's grid begin a candle."""
    frame = frame_of({**event(i=interval.wire_name, t=begin_ms), "E": begin_ms + 32 * DAY_MS})
    on_grid = begin_ms % DAY_MS == 0 if interval.name == "3d" else interval.on_grid(begin_ms)
    if on_grid:
        assert isinstance(decode(frame, "spot", RECV_US), Candle)
    else:
        assert refused(frame) == "time"


@pytest.mark.parametrize(("early_ms", "taken"), [(0, True), (1000, True), (1001, False), (3_600_000, False)])
def test_closed_before_its_end(early_ms, taken):
    """A candle that is closed well before its end is refused."""
    frame = frame_of({**event(), "E": BEGIN_MS + 60_000 - early_ms})
    if taken:
        assert isinstance(decode(frame, "spot", RECV_US), Candle)
    else:
        assert refused(frame) == "time"


def test_the_exchanges_words_stay_on_one_line():
    """The exchange's error text cannot break, colour or fill a log line."""
    frame = b'{"id":1,"error":{"code":1,"msg":"boo\\nrecorded \\u001b[31m' + b"x" * 500 + b'"}}'
    said = decode(frame, "spot", RECV_US).error
    assert said.startswith("boo recorded  [31mxxx")
    assert len(said) <= 200


@pytest.mark.parametrize("wire_name", ["", "1mo", "7m", "1", "1H", "../1m", "1m\0", "x" * 300])
def test_no_intervals(wire_name):
    """An unknown interval is refused."""
    assert refused(frame_of(event(i=wire_name))) == "interval"


@pytest.mark.parametrize(
    "symbol",
    ["", "..", "../../etc", "BTC/USDT", "BTC\0USDT", "A" * 300, "btcusdt", "BTC USDT", "BTC%2F", "\u202e"],
)
def test_no_symbols(symbol):
    """A name that cannot be a directory of the lake is refused."""
    assert refused(frame_of(event(s=symbol))) == "symbol"


def test_two_symbols():
    """An event whose kline has another symbol is refused."""
    assert refused(frame_of({**event(), "s": "ETHUSDT"})) == "symbol"


def test_too_large():
    """A frame larger than the limit is refused without parsing."""
    frame = frame_of(event())
    assert decode(frame.ljust(FRAME_BYTES_MAX), "spot", RECV_US) == expected(SPOT, "spot")
    assert refused(frame.ljust(FRAME_BYTES_MAX + 1)) == "size"


KINDS = {"json", "shape", "number", "symbol", "time", "interval", "size"}


def message_or_refused(frame: bytes) -> None:
    try:
        message = decode(frame, "spot", RECV_US)
    except FrameError as error:
        assert error.kind in KINDS
        assert len(str(error)) < 5000
        return
    assert isinstance(message, Candle | Reply | Shutdown | Other)
    if isinstance(message, Candle):
        assert not is_open_candle(frame)


@given(st.binary(max_size=300))
def test_any_bytes(frame):
    """Any bytes give a message or a FrameError."""
    message_or_refused(frame)


names = st.sampled_from(
    ["e", "E", "s", "k", "stream", "data", "id", "result", "error", "code", "msg", *SPOT]
) | st.text(max_size=3)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["kline", "serverShutdown", BEGIN_MS, "1m"])
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=5)
)


@given(values)
def test_any_json(value):
    """Any JSON gives a message or a FrameError."""
    message_or_refused(json.dumps(value).encode())


@examples(30, 300)
@given(
    st.dictionaries(st.sampled_from([*SPOT]), scalars),
    st.dictionaries(names, values, max_size=2),
    st.booleans(),
)
def test_changed_fields(kline, outside, wrapped):
    """A kline with any replaced field gives a candle or a FrameError."""
    payload = {**event(), "k": {**SPOT, **kline}, **outside}
    message_or_refused(frame_of({"stream": "x", "data": payload} if wrapped else payload))


@given(
    st.sampled_from(
        [frame_of(event()), frame_of(combined(event(COIN))), usdm_frame(event()), frame_of(event(x=False))]
    ),
    st.lists(
        st.tuples(st.integers(0, 500), st.binary(max_size=3), st.integers(0, 3)), min_size=1, max_size=4
    ),
)
def test_changed_bytes(frame, edits):
    """A frame with inserted, removed or replaced bytes gives a message or a FrameError."""
    for place, inserted, removed in edits:
        place %= len(frame) + 1
        frame = frame[:place] + inserted + frame[place + removed :]
    message_or_refused(frame)


@pytest.mark.parametrize(
    ("symbol", "interval", "name"),
    [
        ("BTCUSDT", "1m", "btcusdt@kline_1m"),
        ("BTCUSD_PERP", "1mo", "btcusd_perp@kline_1M"),
        ("币安人生USDT", "1h", "币安人生usdt@kline_1h"),
    ],
)
def test_stream_name(symbol, interval, name):
    """A stream's name is in lower case, with the exchange's name of the interval."""
    assert stream_name(symbol, INTERVALS[interval]) == name


def test_encode_request():
    """A control message has its method, streams and id."""
    text = encode_request("SUBSCRIBE", ["btcusdt@kline_1m", "币安人生usdt@kline_1M"], 7)
    assert json.loads(text) == {
        "method": "SUBSCRIBE",
        "params": ["btcusdt@kline_1m", "币安人生usdt@kline_1M"],
        "id": 7,
    }


def test_every_market_is_taken_as_it_is_named():
    """The market of a candle is that of its connection, because frames do not have it."""
    for market in MARKETS:
        candle = decode(frame_of(event()), market, RECV_US)
        assert isinstance(candle, Candle)
        assert candle.market == market


@pytest.mark.parametrize(
    ("frame", "name"),
    [
        (b'{"stream":"btcusdt@kline_1m","data":{"e":"kline"}}', "btcusdt@kline_1m"),
        (b'{ "data": {"stream":"other"}, "stream" : "btcusdt@kline_1m" }', "btcusdt@kline_1m"),
        ('{"stream":"币安人生usdt@kline_1m","data":{}}'.encode(), "币安人生usdt@kline_1m"),
        (b'{"stream":"\\u5e01usdt@kline_1m","data":{}}', "币usdt@kline_1m"),
        (b'{"e":"kline","s":"BTCUSDT"}', None),
        (b'{"result":null,"id":1}', None),
        (b'{"stream":1}', None),
        (b'{"stream":"\xff"}', None),
        (b'{"stream":"btc', None),
        (b"[1,2]", None),
        (b"", None),
    ],
)
def test_a_frame_names_its_stream(frame: bytes, name: str | None) -> None:
    """The stream's name is found in any form of a combined frame, and in no other frame."""
    assert stream_of(frame) == name
