"""The number of PUT requests of a recorder's flushes, beside the table of docs/how-to/s3.md."""

import pytest

from lakewriter.recording.store_requests import puts_a_month


@pytest.mark.parametrize(
    ("intervals", "flush_every_s", "expected"),
    [
        ([], 300.0, 0),
        (["1m"], 300.0, 8_640),
        (["1m"] * 300, 300.0, 2_592_000),
        (["1m"] * 300, 3600.0, 216_000),
        (["1m"] * 3000, 300.0, 25_920_000),
        (["1m"] * 3000, 3600.0, 7_776_000),  # a flush at 50,000 candles, after 1,000 s
        (["1m", "1h", "1d", "1mo"], 300.0, 8_640 + 720 + 30 + 1),
        (["1s"] * 3, 300.0, 25_920),
    ],
)
def test_puts_a_month(intervals: list[str], flush_every_s: float, expected: int) -> None:
    """A flush has a PUT for each series with a new candle, and starts early at many candles."""
    assert puts_a_month(intervals, flush_every_s) == expected
