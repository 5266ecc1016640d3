"""A local Binance that speaks the real protocol, and whose every candle can be computed."""
