"""The position: each key once, late or not, and the same after it was stored."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakewriter.errors import UsageError
from lakewriter.follow.position import RANGES_MAX, Position, parse_position
from lakewriter.interval import DAY_MS, MINUTE_MS
from lakewriter.series import Series
from support.lengths import examples

BTC = Series("spot", "BTCUSDT", "1m")


@examples(60, 1_000)
@given(st.integers(0, 20), st.permutations(range(30)), st.integers(0, 30))
def test_any_order_of_candles(from_minute: int, minutes: list[int], stored_at: int) -> None:
    """The position knows just what was added, and which candles came after a later one."""
    position = Position(from_minute * MINUTE_MS)
    added: set[int] = set()
    for count, minute in enumerate(minutes):
        if count == stored_at:
            position = parse_position(position.encode(), "test")
        begin_ms = minute * MINUTE_MS
        assert position.has(BTC, begin_ms) == (minute < from_minute)
        if minute >= from_minute:
            assert position.add(BTC, begin_ms) == (minute < max(added, default=-1))
            added.add(minute)
    for minute in range(40):
        assert position.has(BTC, minute * MINUTE_MS) == (minute < from_minute or minute in added)
    missing = [minute for minute in range(40) if minute >= from_minute and minute not in added]
    assert position.first_missing_ms(BTC) == missing[0] * MINUTE_MS
    assert position.covers(BTC, 0, missing[0] * MINUTE_MS) or missing[0] == 0
    assert not position.covers(BTC, 0, missing[0] * MINUTE_MS + 1)


def test_months_join() -> None:
    """Candles of a month have different lengths, and form one range all the same."""
    series = Series("spot", "BTCUSDT", "1mo")
    position = Position()
    position.begin(series, 1_704_067_200_000)  # 2024-01-01
    for days in (0, 31, 31 + 29):
        assert not position.add(series, 1_704_067_200_000 + days * DAY_MS)
    assert position.encode().count("[[") == 1
    assert position.first_missing_ms(series) == 1_704_067_200_000 + (31 + 29 + 31) * DAY_MS


def test_the_oldest_gaps_are_given_up() -> None:
    """The number of ranges has a limit. Beyond it, the oldest gap counts as handed out."""
    position = Position()
    for number in range(RANGES_MAX + 5):
        position.add(BTC, (2 * number + 1) * MINUTE_MS)
    assert position.has(BTC, 0)
    assert not position.has(BTC, 2 * (RANGES_MAX + 3) * MINUTE_MS)
    assert len(parse_position(position.encode(), "test").encode()) < 40 * RANGES_MAX


@pytest.mark.parametrize(
    "text",
    [
        "", "null", "{}", "[" * 5000, "\udcff", '{"lakewriter_position":1}', "12",
        '{"lakewriter_position":1,"from":0,"series":{"spot:../..:1m":[[0,1]]}}',
        '{"lakewriter_position":1,"from":0,"series":{"spot:BTCUSDT":[[0,1]]}}',
        '{"lakewriter_position":1,"from":0,"series":{"spot:BTCUSDT:1m":[[5,1]]}}',
        '{"lakewriter_position":1,"from":0,"series":{"spot:BTCUSDT:1m":[[0,1e300]]}}',
    ],
)  # fmt: skip
def test_other_texts_are_refused(text: str) -> None:
    """A text that is no position is one clear error that names its place."""
    with pytest.raises(UsageError, match=r"place\.json"):
        parse_position(text.encode(errors="surrogateescape"), "place.json")


def test_a_newer_position_is_refused() -> None:
    """A position of a later version says so."""
    with pytest.raises(UsageError, match="newer"):
        parse_position('{"lakewriter_position":2,"from":0,"series":{}}', "place.json")
