"""The slices of a lake: the directories that each task of Spark reads.

The lake is listed once, in one process. A task takes some 40 to 140 ms whatever is in
it, so a slice has many partitions; but few rows, so that all cores get work.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import NamedTuple

from lakewriter.errors import UsageError
from lakewriter.follow.partition_rows import rows_max
from lakewriter.interval import INTERVALS
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.listing import PartitionDirs
from lakewriter.lake.open import open_to_read
from lakewriter.lake.partition_filter import PartitionFilter
from lakewriter.lake.presence_many import known_series
from lakewriter.query.spark_source.request import SparkRequest, SymbolFilter
from lakewriter.series import Series
from lakewriter.subscription import chosen

# Limits of a slice. A file of 1s candles has 86,400 rows.
SLICE_PARTITIONS_MAX = 50
SLICE_ROWS_MAX = 500_000

# The driver has the paths of all partitions in memory, at some 200 bytes each.
PARTITIONS_MAX = 1_000_000

# Names that an error lists.
NAMES_SHOWN_MAX = 10


class Place(NamedTuple):
    """The directories of a partition, and its files if the listing had them.

    Args:
        directories: as in `PartitionDirs`.
        names: the files on an object store; None on a disk, where a task lists them.
    """

    directories: tuple[str, ...]
    names: tuple[str, ...] | None


Slice = tuple[Place, ...]


def plan_slices(request: SparkRequest) -> list[Slice]:
    """Return the slices of a request. The ledger of gaps is one slice without places.

    Raises:
        UsageError: if a named market, symbol or interval has no series, or the lake has too many partitions.
        LakeError: if the lake cannot be listed.
    """
    store = open_to_read(request.uri)
    if request.table == "gaps":
        # The ledger may know a series that has no candles yet.
        _check_names(request, lambda wanted: _known(store, wanted), [])
        return [()]
    found = list(_listed(store, request))
    _check_names(request, store.series, {each.partition.series for each in found})
    return list(_sliced(found))


def _known(store: LakeStore, wanted: SymbolFilter) -> list[Series]:
    known = known_series(store, PartitionFilter(wanted.markets, (), wanted.intervals))
    symbols = frozenset(wanted.keep("symbol", sorted({series.symbol for series in known})))
    return [series for series in known if series.symbol in symbols]


def _listed(store: LakeStore, request: SparkRequest) -> Iterator[PartitionDirs]:
    for number, each in enumerate(store.partitions(request.partition_filter())):
        if number == PARTITIONS_MAX:
            raise UsageError(
                f"lake: {store.name} has more than {PARTITIONS_MAX:,} such partitions; "
                "choose fewer by the options, or use spark.read.parquet"
            )
        yield each


def _check_names(
    request: SparkRequest, list_series: Callable[[SymbolFilter], Iterable[Series]], found: Collection[Series]
) -> None:
    """Raise UsageError if the lake has no series of a name, on any day.

    Args:
        list_series: returns the series that match a filter.
        found: the series that are known to match.
    """
    for level, name in request.absent_names(found):
        there = sorted({str(getattr(each, level)) for each in list_series(request.without_level(level))})
        if not chosen([name], there):
            more = ", …" if len(there) > NAMES_SHOWN_MAX else ""
            shown = ", ".join(there[:NAMES_SHOWN_MAX]) or "none"
            raise UsageError(f"option {level}s: no series of {name}; the other options leave: {shown}{more}")


def _sliced(found: list[PartitionDirs]) -> Iterator[Slice]:
    rows_of = {interval: rows_max(Series("", "", interval)) for interval in INTERVALS}
    places: list[Place] = []
    rows = 0
    for partition, directories, versions in found:
        more = rows_of[partition.interval]
        if places and (len(places) == SLICE_PARTITIONS_MAX or rows + more > SLICE_ROWS_MAX):
            yield tuple(places)
            places, rows = [], 0
        places.append(Place(directories, tuple(sorted(versions)) or None))
        rows += more
    if places:
        yield tuple(places)
