"""The two scenarios of the torture test: minutes only, and all intervals with backfills."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import NamedTuple

from lakewriter.market import MARKETS
from lakewriter.sandbox import Sandbox
from lakewriter.series import Series
from lakewriter.subscription import parse_subscription


class Past(NamedTuple):
    """Series from a time on, for backfills or foreign files.

    Args:
        since_ms: the first begin time; a UTC midnight for backfills.
        subscriptions: the subscriptions to the series.
    """

    since_ms: int
    subscriptions: tuple[str, ...]


class Scenario(NamedTuple):
    """The recorded, backfilled and foreign series, and the time of the exchange.

    Foreign files are put only into symbols that begin with a letter of `plain_readers.FOREIGN`.

    Args:
        start_ms: the exchange's first time.
        speed: simulated seconds per real second.
        record_a, record_b: subscriptions of the two recorders.
        record_options: further options of recorders.
        foreign: the series that get foreign files.
        backfill: the series of backfills; without any, no backfill runs.
    """

    start_ms: int
    speed: float
    record_a: tuple[str, ...]
    record_b: tuple[str, ...]
    record_options: tuple[str, ...]
    foreign: tuple[Past, ...]
    backfill: tuple[Past, ...] = ()


def series_of(sandbox: Sandbox, subscriptions: Iterable[str]) -> list[Series]:
    """Return the series of the sandbox that the subscriptions cover."""
    wanted = [parse_subscription(text) for text in subscriptions]
    return [
        Series(name, symbol, interval)
        for name, market in MARKETS.items()
        for symbol in sandbox.symbols(name)
        for interval in market.intervals
        if any(each.covers(name, symbol, interval) for each in wanted)
    ]


def _ms(year: int, month: int, day: int, hour: int = 0, minute: int = 0) -> int:
    return int(datetime(year, month, day, hour, minute, tzinfo=UTC).timestamp() * 1000)


# Twenty simulated minutes before a midnight: the day changes early in every run.
_BEFORE_MIDNIGHT_MS = _ms(2024, 6, 30, 23, 40)

# Some seventy series, which two cores and one disk can write twice a second.
MINUTES = Scenario(
    start_ms=_BEFORE_MIDNIGHT_MS,
    speed=60,
    record_a=(
        "spot:A*,B*,D*:1m,3m",
        "usdt_futures:B*,D*,X*,龙虾USDT:1m,3m",
        "coin_futures:B*,D*,X*:1m,3m",
    ),
    record_b=(
        "spot:B*,D*:1m",
        "usdt_futures:B*,ETHUSDT,龙虾USDT:1m,3m",
        "coin_futures:B*,ETHUSD_PERP:3m",
    ),
    record_options=(),
    foreign=(
        Past(
            _BEFORE_MIDNIGHT_MS,
            ("spot:D*,X*:1m,3m", "usdt_futures:D*,X*:1m,3m", "coin_futures:D*,X*:1m,3m"),
        ),
    ),
)

# On this day a month and a year begin, and a week. The day before, three days ended.
_NEW_YEAR_MS = _ms(2024, 1, 1)

# The share of a run that lies before the new year, and its most simulated time: three days end in it.
_BEFORE_NEW_YEAR = 0.8
_BEFORE_NEW_YEAR_MS_MAX = 25 * 3_600_000

# A second candle takes at least half a real millisecond, which two recorders and a sandbox can bear.
_SPEED_MAX = 1800.0

# The first days of what backfills fetch and others put, and the intervals.
_PASTS = {
    _ms(2023, 12, 30): "1m,3m,5m",
    _ms(2023, 11, 27): "15m,30m,1h,2h",
    _ms(2023, 10, 28): "4h,6h,8h,12h,1d,3d,1w,1mo",
}


def all_intervals(duration_s: float) -> Scenario:
    """Return a run over the new year, when candles of every interval end and every file period begins."""
    before_ms = min(_BEFORE_NEW_YEAR_MS_MAX, _BEFORE_NEW_YEAR * duration_s * 1000 * _SPEED_MAX)
    speed = before_ms / (_BEFORE_NEW_YEAR * duration_s * 1000)
    names = ",".join(_PASTS.values())
    return Scenario(
        start_ms=_NEW_YEAR_MS - int(before_ms),
        speed=speed,
        record_a=("spot:BTCUSDT:1s", *_recorded(names)),
        record_b=_recorded(names)[1:],
        # Two real seconds: a shorter grace would fetch every candle of a busy machine by REST.
        record_options=("--grace", f"{2 * speed:.0f}s"),
        foreign=(
            Past(_NEW_YEAR_MS - int(before_ms), ("spot:DOGEUSDT:1s",)),
            *(
                Past(since_ms, (f"spot:DOGEUSDT:{names}", f"usdt_futures:DOGEUSDT:{names}"))
                for since_ms, names in _PASTS.items()
            ),
        ),
        backfill=(
            Past(_NEW_YEAR_MS, ("spot:BTCUSDT:1s",)),  # those of a whole day would be most of the lake
            *(Past(since_ms, _recorded(names)) for since_ms, names in _PASTS.items()),
        ),
    )


def _recorded(intervals: str) -> tuple[str, ...]:
    return (
        f"spot:BTCUSDT,DOGEUSDT:{intervals}",
        f"usdt_futures:DOGEUSDT,龙虾USDT:{intervals}",
        f"coin_futures:BTCUSD_PERP:{intervals}",
    )
