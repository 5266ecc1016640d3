"""The parser of exchangeInfo: an answer → a market's instruments. Pure.

Source: `GET <rest_path>/exchangeInfo` of each market; coin_futures has
`contractStatus` instead of `status`.
"""

import msgspec

from lakewriter.errors import ExchangeError
from lakewriter.instrument import Instrument
from lakewriter.interval import CALENDAR_MS_MAX, TIME_MS_MIN
from lakewriter.market import Market, is_symbol

# Spot's full answer had 17 MB in 2026-07.
ANSWER_BYTES_MAX = 128 * 1024 * 1024


class _Symbol(msgspec.Struct):
    symbol: str
    status: str = ""
    contractStatus: str = ""
    contractType: str = ""
    onboardDate: int | float | str | None = None
    deliveryDate: int | float | str | None = None


class _ExchangeInfo(msgspec.Struct):
    symbols: list[_Symbol]


def parse_instruments(body: bytes, market: Market) -> list[Instrument]:
    """Parse the instruments in an exchangeInfo answer of the market.

    Raises:
        ExchangeError: if the answer cannot be read.
    """
    try:
        info = msgspec.json.decode(body, type=_ExchangeInfo)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ExchangeError(f"{market.name}: exchangeInfo cannot be read: {error}") from None
    return [
        Instrument(
            entry.symbol,
            getattr(entry, market.status_field),
            entry.contractType,
            _moment_ms(entry.onboardDate),
            _moment_ms(entry.deliveryDate),
        )
        for entry in info.symbols
        if is_symbol(entry.symbol)
    ]


def _moment_ms(value: object) -> int | None:
    """Return a plausible time in milliseconds, or None. The delivery of a perpetual is in 2100-12."""
    return value if isinstance(value, int) and TIME_MS_MIN <= value < CALENDAR_MS_MAX else None
