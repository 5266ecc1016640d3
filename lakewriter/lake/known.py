"""Which series a lake knows of: by its directories, journals, gap ledgers, subscriptions and what was forgotten."""

from lakewriter.lake.forgotten import read_forgotten
from lakewriter.lake.gaps.ledgers import read_told
from lakewriter.lake.journal import read_hot
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.partition_filter import ALL, PartitionFilter
from lakewriter.lake.subscriptions import read_periods
from lakewriter.series import Series


def known_series(store: LakeStore, wanted: PartitionFilter = ALL) -> set[Series]:
    """Return the series that the lake has anything of; days are not looked at.

    Raises:
        LakeError: if a ledger or the journal cannot be read.
    """
    # Read in the order in which candles travel, so that none is missed on its way.
    with store.ledgers() as root:
        told = {each.gap.series for each in read_told(root)}
        told |= {each.series for each in read_periods(root)}
        told |= {each.series for each in read_forgotten(root)}
    hot = {Series(candle.market, candle.symbol, candle.interval) for candle in read_hot(store.root)}
    return {series for series in told | hot if wanted.covers(series)}.union(store.series(wanted))
