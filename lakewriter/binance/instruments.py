"""What the exchange lists: exchangeInfo → the symbols of a market.

Source: `GET <rest_path>/exchangeInfo` of each market; coin_futures says
`contractStatus` where the others say `status`.
"""

import aiohttp
import msgspec

from lakewriter.errors import ExchangeError
from lakewriter.instrument import Instrument
from lakewriter.market import Market, is_symbol

# Spot's full answer had 17 MB in 2026-07.
ANSWER_BYTES_MAX = 128 * 1024 * 1024
_TIMEOUT_S = 60.0


class _Symbol(msgspec.Struct):
    symbol: str
    status: str = ""
    contractStatus: str = ""
    contractType: str = ""
    onboardDate: int | None = None
    deliveryDate: int | None = None


class _ExchangeInfo(msgspec.Struct):
    symbols: list[_Symbol]


async def fetch_instruments(market: Market) -> list[Instrument]:
    """Return what the market lists, in the exchange's order.

    Symbols that could not be a directory are left out.

    Raises:
        ExchangeError: if the exchange does not answer, or not with a list.
    """
    url = f"{market.rest_url}{market.rest_path}/exchangeInfo"
    # What nobody reads here is a third of spot's answer.
    params = {"showPermissionSets": "false"} if market.name == "spot" else {}
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, trust_env=True) as session,
            session.get(url, params=params) as answer,
        ):
            if answer.status != 200:
                raise ExchangeError(f"{url}: HTTP {answer.status}")
            body = await answer.content.read(ANSWER_BYTES_MAX)
            while chunk := await answer.content.read(ANSWER_BYTES_MAX - len(body)):
                body += chunk
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        raise ExchangeError(f"{url}: {str(error) or type(error).__name__}") from None
    return parse_instruments(body, market)


def parse_instruments(body: bytes, market: Market) -> list[Instrument]:
    """Return what an exchangeInfo answer of the market lists.

    Raises:
        ExchangeError: if it is not such an answer.
    """
    try:
        said = msgspec.json.decode(body, type=_ExchangeInfo)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ExchangeError(f"{market.name}: exchangeInfo cannot be read: {error}") from None
    return [
        Instrument(
            entry.symbol,
            getattr(entry, market.status_field),
            entry.contractType,
            entry.onboardDate,
            entry.deliveryDate,
        )
        for entry in said.symbols
        if is_symbol(entry.symbol)
    ]
