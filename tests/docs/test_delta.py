"""The recipe that copies finished days into Delta Lake runs as it stands, and copies each candle once."""

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

from lakewriter.lake.lake import LakeStore
from support.lakes import add_foreign, make_lake, rest_candle, rows_of_sql
from support.running import REPOSITORY

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("deltalake") is None, reason="needs deltalake"),
]

PAGE = (REPOSITORY / "docs" / "how-to" / "delta.md").read_text()
COLUMNS = 'market, symbol, "interval", "date", candle_begin_time, candle_end_time, close, trade_num, event_time, source'
CHINESE = "币安人生USDT"


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LakeStore:
    """The lake `data` in the working directory: two symbols, three days."""
    monkeypatch.chdir(tmp_path)
    return make_lake(
        tmp_path / "data",
        [
            rest_candle(number, interval=interval, symbol=symbol)
            for symbol in ("BTCUSDT", CHINESE)
            for interval, numbers in (("1m", range(0, 3 * 1440, 100)), ("1d", range(3)))
            for number in numbers
        ],
    )


def recipe() -> dict[str, Any]:
    [code] = re.findall(r"```python\n# Delta\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    return names


def delta_rows() -> list[tuple[object, ...]]:
    """Return the rows of the Delta table, by deltalake and Arrow alone."""
    from deltalake import DeltaTable

    names = COLUMNS.replace('"', "").split(", ")
    table = DeltaTable("candles-delta").to_pyarrow_table().select(names)
    return sorted((tuple(row.values()) for row in table.to_pylist()), key=str)


def lake_rows(store: LakeStore, where: str) -> list[tuple[object, ...]]:
    return sorted(rows_of_sql(store, f"SELECT {COLUMNS} FROM candles WHERE {where}"), key=str)


def test_days_are_copied_once(lake: LakeStore) -> None:
    """Each day is copied whole, and a second copy changes no row."""
    from deltalake import DeltaTable

    names = recipe()
    for day in ("2024-06-30", "2024-07-01", "2024-07-01"):
        names["copy_day"](day)
    copied = delta_rows()
    assert len(copied) == 2 * (29 + 2) and copied == lake_rows(lake, "\"date\" < '2024-07-02'")
    assert DeltaTable("candles-delta").version() == 2


def test_a_changed_day_replaces_its_copy_alone(lake: LakeStore) -> None:
    """A day that changed is copied again; other days and older versions stay."""
    from deltalake import DeltaTable

    names = recipe()
    names["copy_day"]("2024-06-30")
    names["copy_day"]("2024-07-01")
    before = delta_rows()
    add_foreign(lake.root, [rest_candle(100, close=101.5, trade_num=99), rest_candle(101)])
    names["copy_day"]("2024-06-30")
    after = delta_rows()
    assert len(after) == len(before) + 1 and after == lake_rows(lake, "\"date\" < '2024-07-02'")
    assert DeltaTable("candles-delta", version=1).to_pyarrow_table().num_rows == len(before)


def test_a_registered_lake_breaks(lake: LakeStore) -> None:
    """The page's reason holds: a table of Delta over the lake's files fails once a file is replaced."""
    from deltalake import DeltaTable, Field, Schema, convert_to_deltalake
    from deltalake.schema import PrimitiveType

    directory = lake.root / "market=spot"
    levels = {"symbol": "string", "interval": "string", "date": "date"}
    fields = [Field(name, PrimitiveType(kind)) for name, kind in levels.items()]
    convert_to_deltalake(directory, partition_by=Schema(fields), partition_strategy="hive")
    assert DeltaTable(directory).to_pyarrow_table().num_rows == 2 * (44 + 3)
    make_lake(lake.root, [rest_candle(number) for number in range(1440)])
    with pytest.raises(Exception, match=r"(?i)corrupt|magic|invalid|parquet|snappy|zstd|metadata"):
        DeltaTable(directory).to_pyarrow_table()
