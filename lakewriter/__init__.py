"""lakewriter records every closed Binance candle into a plain Parquet lake.

The life of a candle, and the modules that handle it:

    frame ─► binance.wire ─► recording.listening ─► queue ─► lake.journal (fsync)
          ─► recording.flushing ─► lake.lake.merge ─► candles.parquet ─► query
    REST page / archive zip ─► backfill, recording.healing ─► lake.lake.merge
    a file of another tool ─► importer ─► lake.lake.merge
    lake.journal, candles.parquet ─► follow ─► a program that wants each new candle

Layers, top to bottom; imports go down only: `cli` → `web` → `status` → `recording | query |
sandbox | verify` → `importer | backfill | follow` → `lake | binance` → the nouns
(`candle`, `series`, `partition`, `gap`, `market`, `interval`, `subscription`,
`config` and others) → `errors`.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = [
    "Candle",
    "CandleListener",
    "EmptyAnswerWarning",
    "FollowedCandle",
    "Follower",
    "Lake",
    "LakewriterError",
    "Result",
    "__version__",
    "open_lake",
]

# Type checkers and editors cannot follow the lazy imports below. These imports show them the types.
if TYPE_CHECKING:
    from lakewriter.candle import Candle
    from lakewriter.errors import EmptyAnswerWarning, LakewriterError
    from lakewriter.follow.followed_candle import FollowedCandle
    from lakewriter.follow.follower import Follower
    from lakewriter.query.python.reader import Lake, open_lake
    from lakewriter.query.python.result import Result
    from lakewriter.recording.listening.listener import CandleListener
else:
    # Imported at first use. `lakewriter --help` does not need them, and a query needs no sockets.
    _MODULES = {
        "Candle": "lakewriter.candle",
        "CandleListener": "lakewriter.recording.listening.listener",
        "EmptyAnswerWarning": "lakewriter.errors",
        "FollowedCandle": "lakewriter.follow.followed_candle",
        "Follower": "lakewriter.follow.follower",
        "Lake": "lakewriter.query.python.reader",
        "LakewriterError": "lakewriter.errors",
        "Result": "lakewriter.query.python.result",
        "open_lake": "lakewriter.query.python.reader",
    }

    def __getattr__(name: str) -> Any:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(_MODULES[name]), name)

    def __dir__() -> list[str]:
        return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
