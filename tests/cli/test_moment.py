"""Ages on the command line: wherever a day or a time is taken, `7d` counts back from the present."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lakewriter.cli.moment import parse_age, parse_day, parse_start, parse_stop
from lakewriter.cli.runs.record import CommandLineOptions
from lakewriter.cli.series_filter import filter_of
from lakewriter.cli.series_options import SeriesOptions
from lakewriter.cli.span import parse_until
from lakewriter.config import load_config
from lakewriter.errors import UsageError
from lakewriter.interval import DAY_MS, HOUR_MS
from lakewriter.lake.partition_filter import PartitionFilter
from lakewriter.partition import day_of


def ago(days: int) -> datetime:
    return datetime.now(UTC) - timedelta(days=days)


def test_options_of_days_take_ages() -> None:
    """`--since 7d --until 1d` are the days that contain these times."""
    before = [ago(7).date(), ago(1).date()]
    found = filter_of(SeriesOptions((), (), (), "7d"), "1d")
    assert found in (
        PartitionFilter(since=before[0], until=before[1]),
        PartitionFilter(since=ago(7).date(), until=ago(1).date()),
    )
    assert parse_day(None, "--since") is None
    with pytest.raises(UsageError, match=r"--until: .* is before --since"):
        filter_of(SeriesOptions((), (), (), "1d"), "1w")


def test_options_of_times_take_ages() -> None:
    """An age is a time, never a whole day."""
    now_ms = time.time() * 1000
    for parse in (parse_start, parse_stop):
        found = parse("90m", "--since")
        assert found is not None
        assert found == pytest.approx(now_ms - 1.5 * HOUR_MS, abs=60_000)
        assert parse(None, "--since") is None
    assert parse_stop("2024-06-30", "--until") == (parse_start("2024-06-30", "--since") or 0) + DAY_MS
    with pytest.raises(UsageError, match="--since: '1969-12-31' is before 1970"):
        parse_start("1969-12-31", "--since")


def test_until_takes_ages() -> None:
    """`coverage --until 1d` expects every series to last until then."""
    now_s = 1_719_759_600.0
    span = parse_until("1d", now_s)
    assert span == ("2024-06-29", int(now_s * 1000) - DAY_MS, None)
    assert parse_until("2024-06-29", now_s).until_ms is None


def test_a_config_takes_an_age(tmp_path: Path) -> None:
    """`since = "30d"` is counted back at each start."""
    path = tmp_path / "lakewriter.toml"
    path.write_text('subscriptions = ["spot:BTCUSDT:1m"]\nsince = "30d"\n')
    options = CommandLineOptions(str(path), [], *[None] * (len(CommandLineOptions._fields) - 2))
    before = day_of(int(ago(30).timestamp() * 1000))
    since_ms = options.settings(load_config(path)).since_ms
    assert since_ms is not None
    assert before <= day_of(since_ms) <= ago(30).date()


@pytest.mark.parametrize("text", ["30m", "3600s", "7", "soon", "0d", "36526d"])
def test_what_is_removed_is_hours_old(text: str) -> None:
    """`forget --older-than 30m` may be meant as months, so hours are the least unit."""
    with pytest.raises(UsageError, match="is not a number of hours, days or weeks"):
        parse_age(text)
    assert (parse_age("1h"), parse_age("52w")) == (HOUR_MS, 52 * 7 * DAY_MS)
