"""Compaction of a lake on an object store whose writers go on."""

import time
from pathlib import Path

import pytest

from lakewriter.candle import to_table
from lakewriter.lake.compact import compact_partition, planned_compactions
from lakewriter.lake.listing import PartitionDirs
from lakewriter.lake.open import open_to_change
from lakewriter.lake.partition_filter import PartitionFilter
from support.lakes import add_foreign, make_lake, rest_candle
from support.object_store import Store

pytestmark = pytest.mark.slow


def test_own_file_that_is_newer_than_the_listing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compaction that has listed a foreign file alone folds in the own file that was written since."""
    monkeypatch.setenv("LAKEWRITER_STATE_DIR", str(tmp_path / "state"))
    make_lake(tmp_path / "a")
    add_foreign(tmp_path / "a", [rest_candle(7)])
    server = Store()
    try:
        store = open_to_change(server.upload(tmp_path / "a", "lake"))
        [item] = planned_compactions(store, PartitionFilter())
        assert isinstance(item, PartitionDirs) and item.versions
        store.merge(item.partition, to_table([rest_candle(8)]))
        result = compact_partition(store, item, time.time())
        assert (result.error, result.rows) == ("", 2)
        found = store.read(item.partition)
        assert found is not None and found.num_rows == 2
    finally:
        server.close()
