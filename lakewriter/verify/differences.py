"""How published rows and ours differ, and which of them win. Pure.

A published row wins as it would in any merge; see `candle.precedence`.
"""

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from lakewriter.candle import VALUE_COLUMNS, IntArray, int_column, ranks
from lakewriter.candle_arrays import Bools
from lakewriter.verify.findings import Defect


class Differences(NamedTuple):
    """How published rows and ours differ, as positions in either.

    Args:
        missing: published rows that we lack.
        differs: published rows whose prices, volumes or trades are not ours …
        ours: … and the rows of ours.
        unpublished: rows of ours that are not published.
        columns: of each of `differs`, in which columns.
    """

    missing: IntArray
    differs: IntArray
    ours: IntArray
    unpublished: IntArray
    columns: Bools


def differences(ours: pa.Table, published: pa.Table) -> Differences:
    """Compare rows of one range; both sorted by begin time, each once."""
    left, right = int_column(ours, "candle_begin_time"), int_column(published, "candle_begin_time")
    _, at_left, at_right = np.intersect1d(left, right, assume_unique=True, return_indices=True)
    unlike = np.zeros((len(at_left), len(VALUE_COLUMNS)), np.bool_)
    for number, name in enumerate(VALUE_COLUMNS):
        one, other = ours[name].to_numpy()[at_left], published[name].to_numpy()[at_right]
        unlike[:, number] = (one != other) & ~((one != one) & (other != other))
    any_unlike = unlike.any(axis=1)
    return Differences(
        missing=np.flatnonzero(~np.isin(right, left)),
        differs=at_right[any_unlike],
        ours=at_left[any_unlike],
        unpublished=np.flatnonzero(~np.isin(left, right)),
        columns=unlike[any_unlike],
    )


def winning(ours: pa.Table, published: pa.Table) -> Bools:
    """Tell which published rows win over ours, row by row, as `candle.precedence` has it."""

    wins: Bools = np.zeros(ours.num_rows, np.bool_)
    same = ~wins
    left: Any
    right: Any
    for left, right in zip(ranks(ours), ranks(published), strict=True):
        wins |= same & (right > left)
        same &= right == left
    return wins | same  # of full ties a merge keeps the newcomer


def flaws_of(
    ours: pa.Table, published: pa.Table, found: Differences, wins: Bools, *, repair: bool
) -> list[Defect]:
    """Return the differences as flaws.

    Args:
        wins: of each differing row, whether the published one wins.
        repair: whether what wins is merged, and what is missing.
    """
    source = published["source"][0].as_py() if published.num_rows else "the exchange"

    def differs(at: int) -> str:
        parts = [
            f"{name} {ours[name][found.ours[at]].as_py()!r}, {source} has "
            f"{published[name][found.differs[at]].as_py()!r}"
            for name, unlike in zip(VALUE_COLUMNS, found.columns[at], strict=True)
            if unlike
        ]
        return "; ".join(parts) + (f" ({_outcome(bool(wins[at]))})" if repair else "")

    lacking = f"is not here, {source} has it" + (" (added)" if repair else "")
    flaws = [
        Defect("against", "differs", int_column(ours, "candle_begin_time")[found.ours], differs),
        Defect(
            "against",
            "missing",
            int_column(published, "candle_begin_time")[found.missing],
            lambda _: lacking,
        ),
        Defect(
            "against",
            "unpublished",
            int_column(ours, "candle_begin_time")[found.unpublished],
            lambda _: f"{source} has no such candle",
        ),
    ]
    return [flaw for flaw in flaws if len(flaw.begins)]


def _outcome(wins: bool) -> str:
    return "corrected" if wins else "left: ours has more trades, or is settled itself"
