"""The counters of a backfill, and the errors that they log."""

from datetime import date

import pytest

from lakewriter.backfill.planner import BackfillPlan
from lakewriter.backfill.progress import Progress
from lakewriter.cli.runs.backfill_report import report_of
from lakewriter.errors import LakeError
from lakewriter.lake.storage import StoreAwayError
from lakewriter.partition import Partition

PARTITIONS = [Partition("spot", "BTCUSDT", "1m", date(2024, 6, day)) for day in range(1, 31)]


def test_a_store_that_is_away(caplog: pytest.LogCaptureFixture) -> None:
    """One line of the log is about all partitions and series, and no file is said to be damaged."""
    progress = Progress()
    for each in PARTITIONS:
        name = f"lake: s3://b/l/{each.file}: cannot connect to the store"
        error = StoreAwayError(name, "is the network up?", "lake: s3://b/l: cannot connect to the store")
        progress.add_unmerged(each, error)
        progress.add_unreadable(each.series, error)
    assert caplog.messages == ["lake: s3://b/l: cannot connect to the store"]
    report = report_of(BackfillPlan([], []), progress)
    assert report.problem == (
        "30 partitions could not be merged and are unchanged; 1 series are not complete; the store was away"
    )
    assert report.hint == "the same command retries missing candles"


def test_damaged_files(caplog: pytest.LogCaptureFixture) -> None:
    """The first errors of partitions and series are logged; the hint is about the files."""
    progress = Progress()
    for each in PARTITIONS:
        progress.add_unmerged(each, LakeError(f"{each.file}: not readable"))
    progress.add_unreadable(PARTITIONS[0].series, LakeError("x"))
    assert caplog.messages == [
        *(f"{each.file}: not readable" for each in PARTITIONS[:20]),
        "spot BTCUSDT 1m: x",
    ]
    report = report_of(BackfillPlan([], []), progress)
    assert report.problem.endswith("are unchanged; 1 series have files that cannot be read")
    assert report.hint == "lakewriter verify --check partition"
