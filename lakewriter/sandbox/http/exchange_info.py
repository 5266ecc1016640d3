"""The sandbox's exchangeInfo, with each symbol in its market's form. Pure."""

from typing import Any

from lakewriter.market import MARKETS
from lakewriter.sandbox.truth.symbols import SymbolListing


def exchange_info(market: str, listed: list[SymbolListing], now_ms: int) -> dict[str, Any]:
    """Return the market's exchangeInfo with the fields that a client for candles may read."""
    weight_max = 6000 if market == "spot" else 2400
    limit = {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": weight_max}
    describe = _spot_symbol if market == "spot" else _futures_symbol
    return {
        "timezone": "UTC",
        "serverTime": now_ms,
        "rateLimits": [limit],
        "exchangeFilters": [],
        "symbols": [describe(item) for item in listed],
    }


def _spot_symbol(item: SymbolListing) -> dict[str, Any]:
    base, quote = _split_pair(item.symbol)
    return {
        "symbol": item.symbol,
        "status": item.status,
        "baseAsset": base,
        "baseAssetPrecision": 8,
        "quoteAsset": quote,
        "quotePrecision": 8,
        "quoteAssetPrecision": 8,
        "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": False,
        "filters": _filters(item),
        "permissions": [],
        "permissionSets": [["SPOT"]],
    }


def _futures_symbol(item: SymbolListing) -> dict[str, Any]:
    pair, _, suffix = item.symbol.partition("_")
    base, quote = _split_pair(pair)
    coin = item.market == "coin_futures"
    described: dict[str, Any] = {
        "symbol": item.symbol,
        "pair": pair,
        "contractType": "CURRENT_QUARTER" if suffix.isdigit() else "PERPETUAL",
        "deliveryDate": item.delivery_ms,
        "onboardDate": item.onboard_ms,
        MARKETS[item.market].status_field: item.status,
        "baseAsset": base,
        "quoteAsset": quote,
        "marginAsset": base if coin else quote,
        "pricePrecision": item.price_decimals,
        "quantityPrecision": item.lot_decimals,
        "underlyingType": "COIN",
        "filters": _filters(item),
    }
    if coin:
        described["contractSize"] = item.contract_size
    return described


def _filters(item: SymbolListing) -> list[dict[str, str]]:
    return [
        {"filterType": "PRICE_FILTER", "tickSize": item.price_text(1)},
        {"filterType": "LOT_SIZE", "stepSize": item.volume_text(1), "minQty": item.volume_text(1)},
    ]


def _split_pair(pair: str) -> tuple[str, str]:
    for quote in ("USDT", "USDC", "BTC", "USD"):
        if pair.endswith(quote):
            return pair.removesuffix(quote), quote
    return pair, ""
