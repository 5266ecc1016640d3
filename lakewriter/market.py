"""The table of the three markets, and the rule for valid symbols.

Only this module knows the hosts, limits, intervals and paths of a market. It
opens no connections. CONTRIBUTING.md names the modules that a new market changes.
"""

import re
import unicodedata
from urllib.parse import urlsplit

import msgspec

from lakewriter.errors import UsageError
from lakewriter.interval import DAY_MS, INTERVALS


class Market(msgspec.Struct, frozen=True):
    """One of the exchange's markets, with its endpoints and limits.

    Args:
        name: the name in SQL and on disk.
        stream_url: the part before `/stream` and `/ws`.
        rest_url: the part before `rest_path`.
        rest_path: the prefix of the paths of REST calls ("/api/v3").
        archive_url: the part before `archive_path`.
        archive_path: the prefix in the public archive ("/data/spot").
        archive_list_url: the bucket that lists the archive's files; its keys begin with
            `archive_path`, without the slash.
        status_field: the field of exchangeInfo that holds a symbol's status.
        intervals: names of the intervals that the market streams.
        streams_max: maximum number of streams on one connection.
        messages_per_s: maximum number of messages per second that a client may send on one connection.
        klines_max: maximum number of rows in one REST page of klines.
        klines_page: rows of the page with the minimum weight per row.
        klines_weights: the weights of a page of klines, as ascending pairs (limit, weight).
            A weight applies to limits below its own; the last one also to all larger limits.
        range_ms_max: the maximum range of one page of klines; None without a maximum.
        counts_back_from_end: whether a page holds the newest rows of its range, not the oldest.
        exchange_info_params, exchange_info_weight: parameters and weight of an exchangeInfo call.
        sandbox_route: the path after the market's name in the sandbox's stream URL.
        busy_symbol: a symbol that has traded for years, for a probe of the market.
        volume_in_contracts: whether `volume` counts contracts and `quote_volume` the base asset.
        weight_pool: the name of the market's pool of request weight.
        weight_max: maximum request weight of that pool per minute.
        grace_ms: the time from a candle's end to its deadline.
    """

    name: str
    stream_url: str
    rest_url: str
    rest_path: str
    archive_url: str
    archive_path: str
    archive_list_url: str
    status_field: str
    intervals: tuple[str, ...]
    streams_max: int
    messages_per_s: int
    klines_max: int
    klines_page: int
    klines_weights: tuple[tuple[int, int], ...]
    weight_pool: str
    weight_max: int
    grace_ms: int
    range_ms_max: int | None = None
    counts_back_from_end: bool = False
    exchange_info_params: dict[str, str] = {}
    exchange_info_weight: int = 1
    sandbox_route: str = ""
    busy_symbol: str = "BTCUSDT"
    volume_in_contracts: bool = False

    def klines_weight(self, limit: int) -> int:
        """Return the weight of a page of klines with this limit."""
        weights = self.klines_weights
        return next((weight for below, weight in weights if limit < below), weights[-1][1])


_ALL = tuple(INTERVALS)
_WITHOUT_SECONDS = tuple(name for name in INTERVALS if name != "1s")

# The maximum of the documented and the measured weights.
# Source: binance-spot-api-docs, rest-api.md. The futures' documents say 5 from
# 500 rows on; measurements show 2 up to 500.
_SPOT_WEIGHTS = ((1001, 2),)
_FUTURES_WEIGHTS = ((100, 1), (500, 2), (1001, 5), (1501, 10))

MARKETS: dict[str, Market] = {
    market.name: market
    for market in (
        # Source: binance-spot-api-docs, web-socket-streams.md: 1024 streams per
        # connection, 5 incoming messages per second, including pings and pongs.
        Market(
            name="spot",
            stream_url="wss://stream.binance.com:9443",
            rest_url="https://api.binance.com",
            rest_path="/api/v3",
            archive_url="https://data.binance.vision",
            archive_path="/data/spot",
            archive_list_url="https://s3-ap-northeast-1.amazonaws.com/data.binance.vision",
            status_field="status",
            intervals=_ALL,
            streams_max=1024,
            messages_per_s=5,
            klines_max=1000,
            klines_page=1000,
            klines_weights=_SPOT_WEIGHTS,
            weight_pool="spot",
            weight_max=6000,
            grace_ms=10_000,
            # Permission sets are a third of spot's answer, and are not needed.
            exchange_info_params={"showPermissionSets": "false"},
            exchange_info_weight=20,
        ),
        # Both futures markets share one pool of weight since 2026-06-30. Their candles
        # arrive up to 2 s late, and later in fast markets.
        # Since 2026-04-23 klines are sent below /market only. At other paths the exchange
        # acknowledges subscriptions, but sends no klines. Some documents allow 200 streams
        # per connection, others 1024; 200 satisfies both.
        Market(
            name="usdt_futures",
            stream_url="wss://fstream.binance.com/market",
            rest_url="https://fapi.binance.com",
            rest_path="/fapi/v1",
            archive_url="https://data.binance.vision",
            archive_path="/data/futures/um",
            archive_list_url="https://s3-ap-northeast-1.amazonaws.com/data.binance.vision",
            status_field="status",
            intervals=_WITHOUT_SECONDS,
            streams_max=200,
            messages_per_s=10,
            klines_max=1500,
            klines_page=499,
            klines_weights=_FUTURES_WEIGHTS,
            weight_pool="futures",
            weight_max=2400,
            grace_ms=15_000,
            sandbox_route="/market",
        ),
        Market(
            name="coin_futures",
            busy_symbol="BTCUSD_PERP",
            stream_url="wss://dstream.binance.com",
            rest_url="https://dapi.binance.com",
            rest_path="/dapi/v1",
            archive_url="https://data.binance.vision",
            archive_path="/data/futures/cm",
            archive_list_url="https://s3-ap-northeast-1.amazonaws.com/data.binance.vision",
            status_field="contractStatus",
            intervals=_WITHOUT_SECONDS,
            streams_max=200,
            messages_per_s=10,
            klines_max=1500,
            klines_page=499,
            klines_weights=_FUTURES_WEIGHTS,
            weight_pool="futures",
            weight_max=2400,
            grace_ms=15_000,
            # Source: documented, SDK market_data_api.py.
            range_ms_max=200 * DAY_MS,
            counts_back_from_end=True,
            volume_in_contracts=True,
        ),
    )
}


def parse_market(text: str) -> Market:
    """Return the market with this name.

    Raises:
        UsageError: if no market has this name.
    """
    market = MARKETS.get(text) if isinstance(text, str) else None
    if market is None:
        raise UsageError(f"market: {text!r} is unknown", f"choose from: {' '.join(MARKETS)}")
    return market


def served_at(market: Market, exchange_url: str) -> Market:
    """Return the market with the endpoints of one server that offers all three markets.

    The server has each market below `/<market>`. As at the exchange, klines of the
    USDⓈ-M market are below `/market`, and all three markets share one archive list.

    Args:
        exchange_url: the server, such as "http://127.0.0.1:9080". A final slash is optional.

    Raises:
        UsageError: if `exchange_url` is not an http(s) URL.
    """
    base = exchange_url.rstrip("/")
    if not is_url(base, ("http", "https")):
        raise UsageError(
            f"exchange: {exchange_url!r} is not an http:// or https:// URL",
            "lakewriter record --exchange http://127.0.0.1:9080 …",
        )
    return msgspec.structs.replace(
        market,
        stream_url=f"ws{base.removeprefix('http')}/{market.name}{market.sandbox_route}",
        rest_url=f"{base}/{market.name}",
        archive_url=f"{base}/{market.name}",
        archive_list_url=f"{base}/data.binance.vision",
    )


def is_url(text: str, schemes: tuple[str, ...]) -> bool:
    """Return whether the text is a URL of one of these schemes, with a valid host."""
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname or "", parts.port
        host.encode("idna")
    except ValueError:
        return False
    plain = not (parts.query or parts.fragment or "@" in parts.netloc)
    return parts.scheme in schemes and bool(host) and plain and text.isprintable() and " " not in text


# The exchange's own limit is 20 characters (error -1100). The longest known symbol has 17.
SYMBOL_LENGTH_MAX = 32

# The exchange's own pattern is '^[A-Z0-9-_.]{1,20}$' (error -1100). Since 2025
# symbols also have letters of other scripts.
_ASCII_SYMBOL = re.compile(r"[A-Z0-9](?:[A-Z0-9_.-]*[A-Z0-9_])?")

# Characters that are letters by category, but invisible: the Hangul fillers.
_INVISIBLE = frozenset("\u115f\u1160\u3164\uffa0")


def is_symbol(text: str) -> bool:
    """Return whether `text` can be a symbol, which is also a directory of the lake.

    A symbol has at most 32 characters, in NFC: letters, digits, `_`, `-` and `.`.
    ASCII letters are upper case. The first character is a letter or a digit. The last
    one is not `-` or `.`. The text has no `..`. It has no separator, no control
    character and no special character of Hive. A symbol needs no escaping in a path.
    """
    if len(text) > SYMBOL_LENGTH_MAX:
        return False
    if text.isascii():
        return _ASCII_SYMBOL.fullmatch(text) is not None and ".." not in text
    reduced = "".join("A" if _is_foreign_letter(char) else char for char in text)
    return (
        _ASCII_SYMBOL.fullmatch(reduced) is not None
        and ".." not in text
        and unicodedata.is_normalized("NFC", text)
    )


def _is_foreign_letter(char: str) -> bool:
    # Lo: letters without case (Chinese, Japanese, Korean …). Letters with case are
    # refused: the exchange may fold them, and file systems differ. Right-to-left
    # letters are refused: they change the visual order of a path.
    return (
        not char.isascii()
        and unicodedata.category(char) == "Lo"
        and unicodedata.bidirectional(char) == "L"
        and char not in _INVISIBLE
    )


def parse_symbol(text: str) -> str:
    """Parse a symbol; return it in upper case.

    Raises:
        UsageError: if the text cannot be a symbol.
    """
    symbol = "".join(char.upper() if char.isascii() else char for char in text)
    if not is_symbol(symbol):
        raise UsageError(f"symbol: {text!r} cannot be a symbol", "symbols look like BTCUSDT or BTCUSD_PERP")
    return symbol


def wire_symbol(symbol: str) -> str:
    """Return the symbol as in stream names, with ASCII letters in lower case."""
    return "".join(char.lower() if char.isascii() else char for char in symbol)
