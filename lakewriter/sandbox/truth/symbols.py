"""The sandbox's symbols: their names, precision and usual size.

A market first lists known names, then some that do not trade. Generated names like
`A001USDT` and `A1000USDT` fill the list up to the wanted number. Only its name determines a
symbol's size and precision. So a seed and a name are enough to compute its candles. Pure.
"""

import hashlib
from datetime import datetime

import msgspec

# The begin of all history. It is a Monday, the first of a month, and on the grid of each interval.
LISTED_MS = 1_514_764_800_000

# The exchange's delivery date for perpetual contracts.
PERPETUAL_DELIVERY_MS = 4_133_404_800_000

# Spot writes every decimal string with 8 decimals.
SPOT_DECIMALS = 8

# The maximum quote volume of a minute in its smallest unit. The sum of a month fits into 63 bits.
_QUOTE_UNITS_MAX = 10**14

# The maximum lots of a minute. The square fits into 63 bits.
_LOTS_MAX = 2 * 10**9

# The maximum contracts of a minute: contracts × size × 10^(8 + decimals) fits into 63 bits.
_CONTRACTS_MAX = 50_000


class SymbolListing(msgspec.Struct, frozen=True):
    """One symbol of one market.

    Args:
        price_ticks: the usual price in ticks of 10^-price_decimals.
        price_decimals: the decimals of a price.
        lot_decimals: the decimals of a volume; 0 for contracts.
        contract_size: the quote units of one contract; 0 if the volume is in coins.
        trades_per_minute: the usual number of trades in a minute.
        lots_per_trade: the usual size of a trade, in lots.
        lots_max: the maximum volume of a minute, in lots.
        quiet_per_64: the average number of minutes without trades in 64 minutes.
        status: "TRADING" or another status of the exchange.
        delivery_ms: the end of the contract; far in the future for a perpetual.
        onboard_ms: the time of the listing.
    """

    market: str
    symbol: str
    price_ticks: int
    price_decimals: int
    lot_decimals: int
    contract_size: int
    trades_per_minute: int
    lots_per_trade: int
    lots_max: int
    quiet_per_64: int
    status: str = "TRADING"
    delivery_ms: int = PERPETUAL_DELIVERY_MS
    onboard_ms: int = LISTED_MS

    @property
    def quote_decimals(self) -> int:
        """The decimals of a quote volume, without spot's padding."""
        return 8 if self.contract_size else self.price_decimals + self.lot_decimals

    def price_text(self, ticks: int) -> str:
        """Return a price in the exchange's form."""
        return self._text(ticks, self.price_decimals)

    def volume_text(self, lots: int) -> str:
        """Return a volume in the exchange's form."""
        return self._text(lots, self.lot_decimals)

    def quote_text(self, units: int) -> str:
        """Return a quote volume in the exchange's form."""
        return self._text(units, self.quote_decimals)

    def _text(self, units: int, decimals: int) -> str:
        text = decimal_text(units, decimals)
        if self.market != "spot":
            return text
        return (text if decimals else text + ".") + "0" * (SPOT_DECIMALS - decimals)


def decimal_text(units: int, decimals: int) -> str:
    """Return `units` × 10^-decimals as text, with all of its decimals."""
    if not decimals:
        return str(units)
    text = f"{units:0{decimals + 1}d}"
    return f"{text[:-decimals]}.{text[-decimals:]}"


# symbol → usual price, price decimals, lot decimals, trades per minute.
_SPOT: dict[str, tuple[float, int, int, int]] = {
    "BTCUSDT": (83_000, 2, 5, 900),
    "ETHUSDT": (2_900, 2, 4, 700),
    "BNBUSDT": (860, 2, 3, 300),
    "SOLUSDT": (135, 2, 3, 400),
    "XRPUSDT": (2.1, 4, 1, 300),
    "DOGEUSDT": (0.15, 5, 0, 150),
    "ADAUSDT": (0.42, 4, 1, 90),
    "TRXUSDT": (0.28, 4, 1, 90),
    "AVAXUSDT": (14, 2, 2, 60),
    "LINKUSDT": (13, 2, 2, 60),
    "DOTUSDT": (2.3, 3, 2, 40),
    "LTCUSDT": (84, 2, 3, 60),
    "BCHUSDT": (530, 1, 3, 40),
    "UNIUSDT": (6.2, 3, 2, 30),
    "ATOMUSDT": (2.5, 3, 2, 20),
    "ETCUSDT": (14, 2, 2, 15),
    "XLMUSDT": (0.25, 4, 0, 20),
    "NEARUSDT": (1.9, 3, 1, 20),
    "FILUSDT": (1.6, 3, 2, 15),
    "AAVEUSDT": (170, 2, 3, 20),
    "SUIUSDT": (1.5, 4, 1, 60),
    "1INCHUSDT": (0.19, 4, 1, 3),
    "SHIBUSDT": (0.0000085, 8, 0, 30),
    "PEPEUSDT": (0.0000046, 8, 0, 60),
    "ETHBTC": (0.034, 5, 3, 60),
    "BNBBTC": (0.0103, 6, 2, 10),
    "BELBTC": (0.0000021, 8, 0, 1),
}
_USDT: dict[str, tuple[float, int, int, int]] = {
    "BTCUSDT": (83_000, 2, 3, 2_000),
    "ETHUSDT": (2_900, 2, 3, 1_600),
    "BNBUSDT": (860, 3, 2, 300),
    "SOLUSDT": (135, 4, 2, 700),
    "XRPUSDT": (2.1, 4, 1, 500),
    "DOGEUSDT": (0.15, 6, 0, 300),
    "ADAUSDT": (0.42, 5, 0, 150),
    "TRXUSDT": (0.28, 5, 0, 60),
    "AVAXUSDT": (14, 4, 0, 90),
    "LINKUSDT": (13, 3, 2, 90),
    "DOTUSDT": (2.3, 3, 1, 60),
    "LTCUSDT": (84, 2, 3, 90),
    "BCHUSDT": (530, 2, 3, 60),
    "UNIUSDT": (6.2, 4, 0, 40),
    "ATOMUSDT": (2.5, 3, 2, 30),
    "NEARUSDT": (1.9, 4, 0, 40),
    "FILUSDT": (1.6, 3, 1, 30),
    "SUIUSDT": (1.5, 6, 1, 120),
    "AAVEUSDT": (170, 3, 1, 40),
    "1000PEPEUSDT": (0.0046, 7, 0, 200),
    "1000SHIBUSDT": (0.0085, 6, 0, 60),
    "4USDT": (0.05, 5, 0, 20),
    "BTCUSDC": (83_000, 1, 3, 300),
    "BTCUSDT_261225": (83_600, 1, 3, 20),
    "BTCUSDT_270326": (84_300, 1, 3, 8),
    "ETHUSDT_261225": (2_930, 2, 3, 12),
    "币安人生USDT": (0.12, 5, 0, 60),
    "龙虾USDT": (0.03, 6, 0, 4),
}
_COIN: dict[str, tuple[float, int, int, int]] = {
    "BTCUSD_PERP": (83_000, 1, 0, 400),
    "ETHUSD_PERP": (2_900, 2, 0, 300),
    "BNBUSD_PERP": (860, 3, 0, 40),
    "SOLUSD_PERP": (135, 3, 0, 60),
    "XRPUSD_PERP": (2.1, 4, 0, 40),
    "DOGEUSD_PERP": (0.15, 5, 0, 30),
    "ADAUSD_PERP": (0.42, 5, 0, 15),
    "TRXUSD_PERP": (0.28, 5, 0, 4),
    "AVAXUSD_PERP": (14, 3, 0, 12),
    "LINKUSD_PERP": (13, 3, 0, 12),
    "DOTUSD_PERP": (2.3, 3, 0, 10),
    "LTCUSD_PERP": (84, 2, 0, 12),
    "BCHUSD_PERP": (530, 2, 0, 12),
    "UNIUSD_PERP": (6.2, 3, 0, 3),
    "ATOMUSD_PERP": (2.5, 3, 0, 2),
    "ETCUSD_PERP": (14, 3, 0, 6),
    "NEARUSD_PERP": (1.9, 3, 0, 3),
    "FILUSD_PERP": (1.6, 3, 0, 6),
    "SUIUSD_PERP": (1.5, 4, 0, 8),
    "AAVEUSD_PERP": (170, 2, 0, 2),
    "BTCUSD_261225": (83_700, 1, 0, 30),
    "BTCUSD_270326": (84_400, 1, 0, 12),
    "ETHUSD_261225": (2_940, 2, 0, 20),
    "ETHUSD_270326": (2_970, 2, 0, 5),
    "BNBUSD_261225": (865, 3, 0, 1),
    "XRPUSD_261225": (2.12, 4, 0, 1),
}
_KNOWN = {"spot": _SPOT, "usdt_futures": _USDT, "coin_futures": _COIN}

# symbol → its status.
_NOT_TRADING: dict[str, dict[str, str]] = {
    "spot": {"XMRUSDT": "BREAK", "BUSDUSDT": "BREAK", "HNTUSDT": "HALT"},
    "usdt_futures": {"BNXUSDT": "SETTLING", "SPACEUSDT": "PENDING_TRADING"},
    "coin_futures": {"ETHUSD_270625": "PENDING_TRADING", "BTCUSD_260925": "SETTLING"},
}

_SUFFIX = {"spot": "USDT", "usdt_futures": "USDT", "coin_futures": "USD_PERP"}


def listing(market: str, symbol: str) -> SymbolListing:
    """Return the listing of a symbol. An unknown symbol gets values computed from its name."""
    known = _KNOWN[market].get(symbol)
    price, price_decimals, lot_decimals, trades = known or _generated_size(market, symbol)
    ticks = max(100, round(price * 10**price_decimals))
    size = (100 if symbol.startswith("BTC") else 10) if market == "coin_futures" else 0
    if size:
        quote_units = size * 10 ** (SPOT_DECIMALS + price_decimals) // ticks
        lots_max = min(_CONTRACTS_MAX, _QUOTE_UNITS_MAX // (2 * quote_units))
        lots_per_trade = max(1, min(40, lots_max // (4 * trades)))
    else:
        lots_max = min(_LOTS_MAX, _QUOTE_UNITS_MAX // (2 * ticks))
        # A usual trade is worth about 500 units of a dollar-like quote.
        lots_per_trade = max(1, min(round(500 / price * 10**lot_decimals), lots_max // (4 * trades)))
    return SymbolListing(
        market=market,
        symbol=symbol,
        price_ticks=ticks,
        price_decimals=price_decimals,
        lot_decimals=lot_decimals,
        contract_size=size,
        trades_per_minute=trades,
        lots_per_trade=lots_per_trade,
        lots_max=lots_max,
        quiet_per_64=1 if trades >= 100 else 4 if trades >= 10 else 20,
        status=_NOT_TRADING[market].get(symbol, "TRADING"),
        delivery_ms=_delivery_ms(market, symbol),
    )


def _generated_size(market: str, symbol: str) -> tuple[float, int, int, int]:
    number = int.from_bytes(hashlib.blake2b(symbol.encode(), digest_size=8).digest())
    price = 10.0 ** (number % 5 - 2) * (1 + number // 5 % 900 / 100)
    decimals = (2, 3, 4)[number % 3] if price > 1 else 5
    lot_decimals = 0 if market == "coin_futures" else 1
    return price, decimals, lot_decimals, 1 + number // 7 % 60


def listings(market: str, symbols: int) -> list[SymbolListing]:
    """Return the market's list: `symbols` trading symbols, and a few that do not trade."""
    known = list(_KNOWN[market])[:symbols]
    generated = [f"A{number:03d}{_SUFFIX[market]}" for number in range(1, symbols - len(known) + 1)]
    return [listing(market, symbol) for symbol in [*known, *_NOT_TRADING[market], *generated]]


def _delivery_ms(market: str, symbol: str) -> int:
    # Delivery is at 08:00 UTC on the day in the name, like BTCUSDT_261225.
    yymmdd = symbol.partition("_")[2]
    if market == "spot" or not yymmdd.isdigit():
        return PERPETUAL_DELIVERY_MS
    try:
        day = datetime.strptime(yymmdd + "08+0000", "%y%m%d%H%z")
    except ValueError:
        return PERPETUAL_DELIVERY_MS
    return int(day.timestamp()) * 1000
