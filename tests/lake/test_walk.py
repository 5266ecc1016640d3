"""The listing of a lake's levels finds each series once, and ignores directories that only resemble one."""

from datetime import date, timedelta
from pathlib import Path
from urllib.parse import quote

import pytest

from lakewriter.lake.lake import LakeStore
from lakewriter.lake.listing import EMPTY_BYTES_MAX, PartitionDirs, PartitionFiles
from lakewriter.lake.partition_filter import PartitionFilter
from lakewriter.lake.storage import Listing, LocalStorage
from lakewriter.partition import Partition, partition_of
from support.candles import stream_candle

PARTITION = partition_of(stream_candle())


@pytest.fixture
def store(tmp_path: Path) -> LakeStore:
    return LakeStore.create(str(tmp_path / "lake"), "test")


def put(store: LakeStore, name: str) -> None:
    """Create a file in the lake that is large enough for rows; a listing opens no file."""
    path = store.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(EMPTY_BYTES_MAX + 1))


MANY = [
    Partition(market, symbol, interval, date(2024, 6, day))
    for market in ("coin_futures", "spot")
    for symbol in ("AUSDT", "BTCUSDT", "币安人生USDT")
    for interval in ("1m", "3m")
    for day in (9, 10, 11)
]


def test_files(store):
    """Every partition is listed once, sorted, with its file."""
    for partition in MANY:
        put(store, partition.file)
    assert list(store.files()) == [PartitionFiles(partition, (partition.file,)) for partition in MANY]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (PartitionFilter(markets=("spot",)), [p for p in MANY if p.market == "spot"]),
        (PartitionFilter(symbols=("AUSDT", "币安人生USDT")), [p for p in MANY if p.symbol != "BTCUSDT"]),
        (PartitionFilter(intervals=("1m",)), [p for p in MANY if p.interval == "1m"]),
        (PartitionFilter(since=date(2024, 6, 10)), [p for p in MANY if p.date.day >= 10]),
        (PartitionFilter(until=date(2024, 6, 10)), [p for p in MANY if p.date.day <= 10]),
        (
            PartitionFilter(("spot",), ("AUSDT",), ("3m",), date(2024, 6, 9), date(2024, 6, 9)),
            [Partition("spot", "AUSDT", "3m", date(2024, 6, 9))],
        ),
        (PartitionFilter(symbols=("NONE",)), []),
        (PartitionFilter(since=date(2025, 1, 1)), []),
    ],
)
def test_files_filtered(store, wanted, expected):
    """A filter keeps the named partitions; both ends of a range of days are included."""
    for partition in MANY:
        put(store, partition.file)
    assert [found.partition for found in store.files(wanted)] == expected
    assert [found.partition for found in store.partitions(wanted)] == expected


def test_foreign_names(store):
    """Other directories, hidden files and other suffixes are ignored."""
    directory = PARTITION.path
    put(store, PARTITION.file)
    put(store, f"{directory}/part-0.parquet")
    for name in (
        f"{directory}/.hidden.parquet",
        f"{directory}/_temporary.parquet",
        f"{directory}/candles.parquet.tmp",
        f"{directory}/candles.csv",
        f"{directory}/_SUCCESS",
        f"{directory}/sub/deep.parquet",
        "market=spot/stray.parquet",
        "stray.parquet",
        "market=forex/symbol=A/interval=1m/date=2024-06-30/candles.parquet",
        "market=spot/symbol=a/interval=1m/date=2024-06-30/candles.parquet",
        "market=spot/symbol=A/interval=1M/date=2024-06-30/candles.parquet",
        "market=spot/symbol=A/interval=1m/date=2024-6-30/candles.parquet",
        "market=spot/symbol=A/interval=1m/day=2024-06-30/candles.parquet",
        "market=spot/symbol=%ff/interval=1m/date=2024-06-30/candles.parquet",
        "market=spot/symbol=%2e%2e/interval=1m/date=2024-06-30/candles.parquet",
        "other/symbol=A/interval=1m/date=2024-06-30/candles.parquet",
    ):
        put(store, name)
    (store.root / directory / "directory.parquet").mkdir()
    assert list(store.files()) == [PartitionFiles(PARTITION, (PARTITION.file, f"{directory}/part-0.parquet"))]


def test_names_that_are_not_utf8(store):
    """A directory whose name is not UTF-8 is ignored."""
    put(store, PARTITION.file)
    for name in (b"market=\xff", b"market=spot/symbol=\xff/interval=1m/date=2024-06-30"):
        Path(str(store.root).encode().decode() + "/" + name.decode("utf-8", "surrogateescape")).mkdir(
            parents=True
        )
    assert [found.partition for found in store.files()] == [PARTITION]


def test_percent_encoded(store):
    """A percent-encoded directory and ours are one partition."""
    ours = Partition("spot", "币安人生USDT", "1m", PARTITION.date)
    encoded = ours.path.replace("币安人生", quote("币安人生"))
    partly = ours.path.replace("spot", "s%70ot")
    names = [f"{directory}/part-0.parquet" for directory in (encoded, partly)]
    for name in names:
        put(store, name)
    assert list(store.files()) == [PartitionFiles(ours, tuple(sorted(names)))]
    put(store, ours.file)
    (found,) = store.files(PartitionFilter(markets=("spot",), symbols=("币安人生USDT",)))
    assert found.partition == ours
    assert len(found.names) == 3


def test_empty_partitions(store):
    """A directory without files is a partition, but has no files."""
    (store.root / PARTITION.path).mkdir(parents=True)
    assert list(store.files()) == []
    assert list(store.partitions()) == [PartitionDirs(PARTITION, (PARTITION.path,))]


def test_series_have_a_directory(tmp_path):
    """The series of all markets or of one are listed, also foreign ones; other directories are ignored."""
    store = LakeStore.create(str(tmp_path), "test")
    assert store.series() == []
    for partition in (
        partition_of(stream_candle()),
        Partition("spot", "ETHUSDT", "1mo", date(2024, 6, 1)),
        Partition("coin_futures", "BTCUSD_PERP", "1m", date(2024, 6, 1)),
    ):
        (tmp_path / partition.path).mkdir(parents=True)
    (tmp_path / "market=spot" / "symbol=ETHUSDT" / "interval=7m").mkdir()
    (tmp_path / "market=spot" / "notes").mkdir()
    assert len(store.series()) == 3
    found = [tuple(each) for each in store.series(PartitionFilter(markets=("spot",)))]
    assert found == [
        (stream_candle().market, stream_candle().symbol, stream_candle().interval),
        ("spot", "ETHUSDT", "1mo"),
    ]


DAYS = [Partition("spot", "BTCUSDT", "1m", date(2024, 6, 1) + timedelta(days=day)) for day in range(30)]


@pytest.mark.parametrize(
    "wanted", [PartitionFilter(), PartitionFilter(since=DAYS[20].date, until=DAYS[29].date)]
)
def test_newest(store, wanted):
    """For each series the newest partition with an own file is found, and all later ones, oldest first."""
    other = Partition("spot", "ETHUSDT", "1m", DAYS[25].date)
    for partition in [*DAYS[:28], other]:
        put(store, partition.file)
    foreign = [f"{DAYS[day].path}/part-0.parquet" for day in (26, 28)]
    for name in foreign:
        put(store, name)
    (store.root / DAYS[29].path).mkdir()
    assert list(store.newest(wanted)) == [
        PartitionFiles(DAYS[27], (DAYS[27].file,)),
        PartitionFiles(DAYS[28], (foreign[1],)),
        PartitionFiles(other, (other.file,)),
    ]


def test_newest_of_foreign_files_alone(store):
    """For a series without own files all partitions are returned."""
    names = [f"{partition.path}/part-0.parquet" for partition in DAYS]
    for name in names:
        put(store, name)
    assert [found.names for found in store.newest()] == [(name,) for name in names]


class Counted(LocalStorage):
    """A storage that records the listed directories."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, root / "_lakewriter" / "locks")
        self.listed: list[str] = []

    def entries(self, directory: str) -> Listing:
        self.listed.append(directory)
        return super().entries(directory)


@pytest.fixture
def counted(store: LakeStore) -> LakeStore:
    """A lake with a month of each of two series."""
    for partition in DAYS:
        put(store, partition.file)
        put(store, partition.file.replace("BTCUSDT", "ETHUSDT"))
    return LakeStore.local(store.root, Counted(store.root))


def test_newest_looks_into_one_day(counted):
    """For the newest candle of a series its older days are not listed."""
    assert [found.partition for found in counted.newest(PartitionFilter(symbols=("BTCUSDT",)))] == DAYS[-1:]
    assert [name for name in counted.storage.listed if "date=" in name] == [DAYS[-1].path]


def test_few_days_are_not_listed(counted):
    """A few wanted days are found without a listing of all days."""
    wanted = PartitionFilter(since=DAYS[3].date, until=DAYS[4].date, symbols=("ETHUSDT",))
    assert len(list(counted.files(wanted))) == 2
    assert [name.rpartition("/")[2] for name in counted.storage.listed] == [
        "", "market=spot", "symbol=ETHUSDT", "date=2024-06-04", "date=2024-06-05",
    ]  # fmt: skip
