"""lakewriter records every closed Binance candle into a plain Parquet lake.

One candle's way, and who has it in hand:

    frame ─► binance.wire ─► recording.listener ─► queue ─► lake.journal (fsync)
          ─► recording.buffer ─► lake.lake.merge ─► candles.parquet ─► query

Layers, top to bottom; imports go down only: `cli` → `recording | query |
sandbox` → `lake | binance` → the nouns (`candle`, `interval`, `market`,
`partition`, `subscription`, `config`) → `errors`.
"""

__version__ = "0.1.0"
