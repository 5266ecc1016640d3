"""lakewriter records every closed Binance candle into a plain Parquet lake.

One candle's way, and who has it in hand:

    frame ─► binance.wire ─► recording.listening ─► queue ─► lake.journal (fsync)
          ─► recording.buffer ─► lake.lake.merge ─► candles.parquet ─► query
    REST page / archive zip ─► backfill, recording.healing ─► lake.lake.merge
    a file of others ─► importer ─► lake.lake.merge

Layers, top to bottom; imports go down only: `cli` → `recording | query |
sandbox | verify` → `importer | backfill` → `lake | binance` → the nouns
(`candle`, `series`, `partition`, `gap`, `market`, `interval`, `subscription`,
`config` and others) → `errors`.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

__all__ = ["Candle", "Lake", "__version__", "open_lake"]

# Imported when they are first asked for: `lakewriter --help` needs none of them.
_WHERE = {
    "Candle": "lakewriter.candle",
    "Lake": "lakewriter.query.reader",
    "open_lake": "lakewriter.query.reader",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name]), name)
