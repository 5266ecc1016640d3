"""Builders of files to import: lines of the archive, and frames of pandas."""

import gzip
import io
import os
import zipfile
from pathlib import Path

import pandas as pd

BEGIN_MS = 1_719_705_600_000
MTIME_S = 1_730_000_000
NOW_MS = 1_780_000_000_000


def line(minute: int = 0, price: str = "2.0") -> str:
    """Return a row of the archive."""
    begin_ms = BEGIN_MS + minute * 60_000
    return f"{begin_ms},{price},3.0,0.5,2.0,10.0,{begin_ms + 59_999},20.0,7,4.0,8.0,0"


def written(path: Path, text: str | bytes) -> Path:
    """Write a file with a fixed modification time, compressed by its suffix."""
    data = text.encode() if isinstance(text, str) else text
    if path.suffix == ".zip":
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr(path.stem + ".csv", data)
        data = buffer.getvalue()
    elif path.suffix == ".gz":
        data = gzip.compress(data)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    os.utime(path, (MTIME_S, MTIME_S))
    return path


def lines(*minutes: int) -> str:
    return "\n".join(map(line, minutes)) + "\n"


def frame(minutes: int = 3) -> pd.DataFrame:
    """Return a frame like the original recorder's, indexed by the end of each candle."""
    begins = pd.to_datetime([BEGIN_MS + minute * 60_000 for minute in range(minutes)], unit="ms", utc=True)
    return pd.DataFrame(
        {
            "candle_begin_time": begins,
            "open": 2.0, "high": 3.0, "low": 0.5, "close": 2.0, "volume": 10.0, "quote_volume": 20.0,
            "trade_num": 7, "taker_buy_base_asset_volume": 4.0, "taker_buy_quote_asset_volume": 8.0,
        },
        index=pd.Index(begins + pd.Timedelta(minutes=1), name="candle_end_time"),
    )  # fmt: skip
