"""The small lake on which the cookbook's answers run: the sandbox's candles of June 2024."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from lakewriter.candle import int_column
from lakewriter.interval import DAY_MS, HOUR_MS, MINUTE_MS
from lakewriter.lake.lake import LakeStore
from lakewriter.partition import split_by_partition
from lakewriter.sandbox.truth.candles import Truth
from lakewriter.series import Series
from support.truth_lakes import truth_table

JULY_MS = 1_719_792_000_000  # 2024-07-01
SYMBOLS = (
    "ADAUSDT", "AVAXUSDT", "BNBUSDT", "BTCUSDT", "DOGEUSDT", "DOTUSDT",
    "ETHUSDT", "LINKUSDT", "LTCUSDT", "SOLUSDT", "TRXUSDT", "XRPUSDT",
)  # fmt: skip

# BTCUSDT lacks these minutes of 1m: 2024-06-29 10:00 to 10:30.
GAP_MS = (JULY_MS - 2 * DAY_MS + 10 * HOUR_MS, JULY_MS - 2 * DAY_MS + 10 * HOUR_MS + 30 * MINUTE_MS)

TRADES_CSV = """time,symbol,price,quantity
2024-06-30 09:15:30Z,BTCUSDT,{btc},0.5
2024-06-30 10:00:00Z,ETHUSDT,{eth},2
2024-06-30 11:59:59Z,BTCUSDT,{btc},-0.5
"""


def make_cookbook_lake(directory: Path) -> LakeStore:
    """Make `data` and `trades.csv` in a directory.

    1m of three days in June, 1h of June, and 1d of the first half of 2024, until July.
    """
    store = LakeStore.create(str(directory / "data"), "test")
    truth = Truth()
    for symbol in SYMBOLS:
        spot = Series("spot", symbol, "1m")
        if symbol in ("BNBUSDT", "BTCUSDT", "ETHUSDT"):
            _merge(store, truth, spot, 3 * DAY_MS)
            _merge(store, truth, spot._replace(interval="1h"), 30 * DAY_MS)
        _merge(store, truth, spot._replace(interval="1d"), 182 * DAY_MS, "archive")
    _merge(store, truth, Series("usdt_futures", "BTCUSDT", "1m"), 3 * DAY_MS)
    prices = {
        name.lower()[:3]: truth.candles("spot", name, "1m", JULY_MS - DAY_MS, JULY_MS)[555].close
        for name in ("BTCUSDT", "ETHUSDT")
    }
    (directory / "trades.csv").write_text(TRADES_CSV.format(**prices))
    return store


def _merge(store: LakeStore, truth: Truth, series: Series, length_ms: int, source: str = "stream") -> None:
    rows = truth_table(truth, series, JULY_MS - length_ms, JULY_MS, source)
    begins = int_column(rows, "candle_begin_time")
    if series == Series("spot", "BTCUSDT", "1m"):
        rows = rows.filter(pa.array(np.logical_or(begins < GAP_MS[0], begins >= GAP_MS[1])))
    for partition, some in split_by_partition(series, rows):
        store.merge(partition, some)
