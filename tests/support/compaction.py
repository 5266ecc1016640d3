"""Plan a compaction as one value, and keep what it verified, as the command does step by step."""

from collections.abc import Iterable
from typing import NamedTuple

from lakewriter.lake.compact import CompactionResult, VerifiedList, planned_compactions
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.listing import PartitionDirs
from lakewriter.lake.partition_filter import ALL, PartitionFilter


class CompactionPlan(NamedTuple):
    """The partitions to compact, and the results of those that need no compaction."""

    work: list[PartitionDirs]
    in_order: list[CompactionResult]


def plan_compaction(store: LakeStore, wanted: PartitionFilter = ALL) -> CompactionPlan:
    """Return the whole plan of `planned_compactions`."""
    plan = CompactionPlan([], [])
    for each in planned_compactions(store, wanted):
        if isinstance(each, CompactionResult):
            plan.in_order.append(each)
        else:
            plan.work.append(each)
    return plan


def write_verified(store: LakeStore, outcomes: Iterable[CompactionResult], *, everything: bool) -> None:
    """Write the verified partitions, for the next run; see `VerifiedList`."""
    verified = VerifiedList(store, everything=everything)
    for outcome in outcomes:
        verified.add(outcome)
    verified.write()
