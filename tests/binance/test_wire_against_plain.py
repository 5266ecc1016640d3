"""The decoder gives what the slow and plain one gives, message or error, on correct and on mutated frames."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakewriter.binance.wire import decode, is_open_candle
from lakewriter.candle import Candle
from lakewriter.errors import FrameError
from support.lengths import examples
from support.plain_wire import decode_plainly

RECV_US = 1_719_705_720_050_000
BEGIN_MS = 1_719_705_660_000  # 2024-06-30 00:01

Members = list[tuple[str, Any]]

# The members are lists, because a frame can have a member twice.
KLINE: Members = [
    ("t", BEGIN_MS),
    ("T", BEGIN_MS + 59_999),
    ("s", "BTCUSDT"),
    ("i", "1m"),
    ("f", 3_000_000_001),
    ("L", 3_000_000_078),
    ("o", "60000.10000000"),
    ("c", "60010.20000000"),
    ("h", "60020.30000000"),
    ("l", "59990.40000000"),
    ("v", "12.50000000"),
    ("n", 78),
    ("x", True),
    ("q", "750125.62500000"),
    ("V", "6.25000000"),
    ("Q", "375062.81250000"),
    ("B", "0"),
]
NUMBERS = "ochlvqVQ"
NEEDED = "tTsiochlvnxqVQ"

# Values that a number, a count, a time, a name or a flag must not have, and some that it may have.
ODD: list[Any] = [
    "", " ", "1", "1.5", " 1", "1 ", "1\n", "nan", "NaN", "inf", "Infinity", "-1", "-0", "+1", "1_0", "1e3",
    "1E3", "0x10", "0b1", "1,5", "1,", ",1", "1,2,3,4,5,6,7,8", "1.", ".5", ".", "1.2.3", "1..2", "١٢", "１",
    "1\0", "null", "true", "9" * 64, "9" * 65, "9" * 40 + ".5", "0." + "1" * 62, "0." + "1" * 63,
    "0." + "1" * 40, "9" * 31 + "." + "1" * 32, "9" * 32 + "." + "1" * 31, "9" * 32 + "." + "1" * 32,
    "1m", "1M", "1mo", "3d", "kline", "trade", "serverShutdown", "ETHUSDT", "BTC/USDT", "a\ud800b",
    0, 1, -1, 1.0, 1.5, 1e3, 2**53, 2**53 + 1, 2**63, 10**30, BEGIN_MS, BEGIN_MS + 1, BEGIN_MS * 1000,
    True, False, None, [], {}, [1], {"x": True}, {"x": False}, {"code": 1}, {"code": "1"},
]  # fmt: skip


def text_of(members: Any, spacing: str = "") -> str:
    """Render members as JSON, in their order."""
    if not isinstance(members, list) or not all(isinstance(each, tuple) for each in members) or not members:
        return json.dumps(members)
    inside = ("," + spacing).join(f"{json.dumps(name)}:{text_of(value, spacing)}" for name, value in members)
    return f"{{{inside}}}"


def event(kline: Members) -> Members:
    return [("e", "kline"), ("E", BEGIN_MS + 60_004), ("s", "BTCUSDT"), ("k", kline)]


def combined(payload: Members) -> Members:
    return [("stream", "btcusdt@kline_1m"), ("data", payload)]


def frame_of(members: Members, spacing: str = "") -> bytes:
    return text_of(members, spacing).encode()


CLOSED = frame_of(combined(event(KLINE)))


def outcome(decoder: Any, frame: bytes) -> Any:
    """Return the message, or the kind and the text of the error."""
    try:
        return decoder(frame, "spot", RECV_US)
    except FrameError as error:
        return error.kind, str(error)


def check_same(frame: bytes) -> Any:
    """Check that both decoders agree; return the outcome."""
    plain = outcome(decode_plainly, frame)
    assert outcome(decode, frame) == plain
    assert is_open_candle(frame) == (b'"x":false' in frame and b"true" not in frame)
    if isinstance(plain, Candle):
        assert not is_open_candle(frame)
    return plain


def levels(kline: Members, data: Members) -> Iterator[tuple[str, Members, Any]]:
    """Yield each level of a combined frame: its name, its members, and a function that makes the frame."""
    yield "kline", kline, lambda changed: combined(event(changed))
    yield "event", data, combined
    yield "frame", combined(data), lambda changed: changed
    yield "raw", data, lambda changed: changed


LEVELS = list(levels(KLINE, event(KLINE)))


def test_the_frame_is_a_closed_candle():
    """The frame that these tests mutate is a closed candle."""
    for members in (combined(event(KLINE)), event(KLINE)):
        for spacing in ("", " ", "\n\t"):
            assert isinstance(check_same(frame_of(members, spacing)), Candle)


@pytest.mark.parametrize(("level", "members", "made"), LEVELS, ids=[level for level, *_ in LEVELS])
def test_each_member_absent_changed_or_twice(level, members, made):
    """Each member is left out, replaced by odd values, or repeated with them, before and after."""
    refused = 0
    for place, (name, value) in enumerate(members):
        without = members[:place] + members[place + 1 :]
        check_same(frame_of(made(without)))
        for odd in ODD:
            for changed in (
                [*members[:place], (name, odd), *members[place + 1 :]],
                [(name, odd), *members],
                [*members, (name, odd)],
                [*without, (name, odd), (name, value)],
            ):
                refused += not isinstance(check_same(frame_of(made(changed))), Candle)
    assert refused


@pytest.mark.parametrize(("level", "members", "made"), LEVELS, ids=[level for level, *_ in LEVELS])
def test_members_of_other_levels(level, members, made):
    """A member of another level is added, with a correct or an odd value."""
    names = ["stream", "data", "e", "E", "s", "k", "id", "result", "error", "code", "msg", *dict(KLINE)]
    for name in names:
        for odd in [*ODD, "kline", BEGIN_MS, event(KLINE), KLINE]:
            check_same(frame_of(made([(name, odd), *members])))
            check_same(frame_of(made([*members, (name, odd)])))


@pytest.mark.parametrize("name", NUMBERS)
def test_each_number_of_any_length(name):
    """A number of any length, with a point at any place, is decoded or refused alike."""
    place = [key for key, _ in KLINE].index(name)
    for digits in (*range(1, 8), *range(28, 36), *range(60, 70)):
        for point in (None, 0, 1, digits // 2, 30, 31, 32, 33, digits - 1, digits):
            text = "7" * digits
            if point is not None:
                text = f"{text[:point]}.{text[point:]}"
            members = [*KLINE[:place], (name, text), *KLINE[place + 1 :]]
            is_number = point is None or 0 < point < digits
            outcome = check_same(frame_of(combined(event(members))))
            assert isinstance(outcome, Candle) == (is_number and len(text) <= 64)


def test_every_changed_byte():
    """Each byte of a frame is removed, doubled or replaced; each frame is cut at each place."""
    for place in range(len(CLOSED)):
        before, after = CLOSED[:place], CLOSED[place + 1 :]
        check_same(before)
        check_same(before + after)
        check_same(before + CLOSED[place : place + 1] + CLOSED[place:])
        for byte in b'"\\,:.{}[]09eExtfn-+_ \n\0\x80\xff':
            check_same(before + bytes([byte]) + after)
            check_same(before + bytes([byte]) + CLOSED[place:])


@pytest.mark.parametrize("depth", [1, 10, 300, 3_000, 100_000])
def test_deep_unknown_values(depth):
    """An unknown value of any depth is skipped, or refused, alike."""
    deep = b"[" * depth + b"]" * depth
    for member in (b'"E":', b'"k":', b'"stream":'):
        check_same(CLOSED.replace(member, b'"deep":' + deep + b"," + member))


@pytest.mark.parametrize("name", [*NEEDED, "data", "e", "E", "k"])
def test_escaped_names(name):
    """A member's name may be written with an escape."""
    escaped = "".join(f"\\u{ord(char):04x}" for char in name)
    assert isinstance(check_same(CLOSED.replace(f'"{name}":'.encode(), f'"{escaped}":'.encode())), Candle)
    twice = CLOSED.replace(b'"B":"0"', b'"x":false').replace(b'"t":', b'"t":0,"t":')
    check_same(twice.replace(f'"{name}":'.encode(), f'"{escaped}":'.encode()))


numbers = st.from_regex(r"[0-9]{1,40}(\.[0-9]{1,40})?", fullmatch=True) | st.text(
    "0123456789.,+-_eEx ", max_size=12
)
values = st.recursive(
    st.sampled_from(ODD) | st.integers() | st.floats() | st.text(max_size=6) | numbers,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=6,
)


@examples(200, 5_000)
@given(st.data())
def test_any_members(data):
    """Members are left out, repeated, exchanged and changed at each level, in any spacing."""

    def changed(members: Members) -> Members:
        kept = data.draw(st.lists(st.sampled_from(range(len(members))), max_size=3))
        extra = [(members[place][0], data.draw(values)) for place in kept]
        left = [
            each for place, each in enumerate(members) if place not in kept[:1] or data.draw(st.booleans())
        ]
        return data.draw(st.permutations(left + extra)) if data.draw(st.booleans()) else left + extra

    payload = changed(event(changed(KLINE)))
    members = changed(combined(payload)) if data.draw(st.booleans()) else payload
    check_same(frame_of(members, data.draw(st.text(" \t\n\r", max_size=2))))


@examples(200, 5_000)
@given(st.fixed_dictionaries(dict.fromkeys(NUMBERS, numbers)))
def test_any_numbers(texts):
    """Any eight texts become the same eight numbers, or are refused for the same one."""
    check_same(frame_of(combined(event([(name, texts.get(name, value)) for name, value in KLINE]))))


@examples(300, 10_000)
@given(
    st.sampled_from([CLOSED, frame_of(event(KLINE)), CLOSED.replace(b"true", b"false")]),
    st.lists(
        st.tuples(st.integers(0, 500), st.binary(max_size=4), st.integers(0, 4)), min_size=1, max_size=5
    ),
)
def test_any_bytes(frame, edits):
    """Bytes are inserted, removed and replaced at any places."""
    for place, inserted, removed in edits:
        place %= len(frame) + 1
        frame = frame[:place] + inserted + frame[place + removed :]
    check_same(frame)
