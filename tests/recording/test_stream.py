"""The health of a stream: its recent candles and its missed candles."""

from lakewriter.recording.listening.stream import RECENT_MAX, StreamHealth
from lakewriter.series import Series

MINUTE_MS = 60_000


def stream() -> StreamHealth:
    return StreamHealth(Series("spot", "BTCUSDT", "1m"))


def test_a_candle_is_news_once_and_again_with_more_trades() -> None:
    """A candle is new once and after a correction; duplicates and long past candles are not."""
    one = stream()
    assert one.name == "btcusdt@kline_1m"
    assert one.is_news(0, 10)
    assert not one.is_news(0, 10)
    assert not one.is_news(0, 9)
    assert one.is_news(0, 11)
    assert one.is_news(MINUTE_MS, 0)
    assert not one.is_news(MINUTE_MS, 0)
    for number in range(2, 2 + RECENT_MAX):
        assert one.is_news(number * MINUTE_MS, 1)
    assert one.is_news(0, 11)


def test_misses_ask_for_another_connection_each_time_they_have_doubled() -> None:
    """A new connection is requested at 2, 4, 8 and 16 candles missed in a row."""
    one = stream()
    asked = []
    for missed in range(1, 20):
        if one.count_miss():
            asked.append(missed)
            one.reconnected()
    assert asked == [2, 4, 8, 16]
    assert one.polled


def test_a_new_connection_is_not_to_blame_for_what_was_before() -> None:
    """Two misses must have happened on the present connection."""
    one = stream()
    one.count_miss()
    one.reconnected()
    assert not one.count_miss()
    assert one.count_miss()


def test_a_closed_candle_resets_the_misses() -> None:
    """A closed candle resets the count of misses."""
    one = stream()
    one.reset_misses()
    for _ in range(4):
        one.count_miss()
    assert one.polled
    one.reset_misses()
    assert not one.polled
    assert not one.count_miss()
    assert one.count_miss()
