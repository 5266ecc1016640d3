"""Choose the series of a file by its groups of rows and the options. Pure.

Rule: options select series, and supply claims that a file lacks. Only `relabel` overrules the file.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lakewriter.candle import IntArray
from lakewriter.errors import UsageError
from lakewriter.evidence.claims import (
    EXAMPLES,
    LEVELS,
    Claim,
    ContradictionError,
    ImportOptions,
    Level,
    agree,
    claims_on,
)
from lakewriter.evidence.row_groups import RowGroup
from lakewriter.series import Series
from lakewriter.spelling import FUTURES

_HINT = "options select files; add --relabel to rename this file's rows"


class SeriesRows(NamedTuple):
    """The rows of one series in a file.

    Args:
        series: the series.
        interval_by: the source of its interval, for errors.
        rows: positions, ascending; None for all rows.
    """

    series: Series
    interval_by: str
    rows: IntArray | None


class ChosenSeries(NamedTuple):
    """The rows of a file whose series the options select.

    Args:
        parts: one entry for each series.
        other_rows: the number of rows of other series.
    """

    parts: list[SeriesRows]
    other_rows: int


class OtherSeriesError(ContradictionError):
    """The options select none of a file's series."""


def check_name_claims(place: Sequence[Claim], options: ImportOptions, name: str) -> None:
    """Check the claims of a file's name and directories against each other and the options.

    Raises:
        ContradictionError: if the claims contradict each other.
        OtherSeriesError: if the options select another series.
    """
    agreed = agree(_without_overruled(place, options), name)
    try:
        agree([*agreed.values(), *_option_claims(options)], name)
    except ContradictionError as error:
        raise OtherSeriesError(error.what, _HINT) from None


def choose_series(
    groups: Sequence[RowGroup], place: Sequence[Claim], options: ImportOptions, name: str, rows: int
) -> ChosenSeries:
    """Return the series of a file that the options select, with their rows.

    Args:
        groups: its rows, grouped by the claims of its columns.
        place: the claims of its name and directories.
        name: the file's name in an error.
        rows: the number of its rows.

    Raises:
        ContradictionError: if the claims of its name, directories and columns contradict
            each other.
        OtherSeriesError: if the options select none of its series.
        UsageError: if the market, symbol or interval is unknown.
    """
    by_options = _option_claims(options)
    found: dict[Series, tuple[SeriesRows, list[RowGroup]]] = {}
    refusal = ""
    for group in groups:
        agreed = agree(_without_overruled([*place, *group.claims], options), name)
        try:
            part = _part(agree([*agreed.values(), *by_options], name), group.rows, name)
        except ContradictionError as error:
            refusal = refusal or error.what
        else:
            found.setdefault(part.series, (part, []))[1].append(group)
    if not found:
        raise OtherSeriesError(refusal, _HINT)
    parts = [_combined(part, of_series, name) for part, of_series in found.values()]
    kept = sum(rows if part.rows is None else len(part.rows) for part in parts)
    return ChosenSeries(parts, rows - kept)


def _combined(part: SeriesRows, groups: list[RowGroup], name: str) -> SeriesRows:
    """Merge the groups of one series that its columns spell in several ways."""
    if len(groups) == 1:
        return part
    for level in LEVELS:
        if len({claim.value for group in groups for claim in group.claims if claim.level == level}) > 1:
            raise ContradictionError(f"{name}: holds several series, and --relabel cannot merge them")
    return part._replace(
        rows=np.sort(np.concatenate([group.rows for group in groups if group.rows is not None]))
    )


def _without_overruled(claims: Sequence[Claim], options: ImportOptions) -> list[Claim]:
    """Return the claims without those that the options overrule."""
    if not options.relabel:
        return list(claims)
    overruled = {claim.level for claim in _option_claims(options)}
    if "symbol" in overruled:
        overruled.add("asset")
    return [claim for claim in claims if not {claim.level, claim.of} & overruled]


def _option_claims(options: ImportOptions) -> list[Claim]:
    values = zip(LEVELS, (options.market, options.symbol, options.interval), strict=True)
    return [
        claim
        for level, value in values
        if value is not None
        for claim in claims_on(level, value, f"--{level}")
    ]


def _part(agreed: dict[Level, Claim], rows: IntArray | None, name: str) -> SeriesRows:
    market, symbol, interval = (_value(agreed, level, name) for level in LEVELS)
    if market == FUTURES:
        market = "usdt_futures"
    return SeriesRows(Series(market, symbol, interval), agreed["interval"].by, rows)


def _value(agreed: dict[Level, Claim], level: Level, name: str) -> str:
    if level not in agreed:
        raise UsageError(f"{name}: its {level} is unknown", f"--{level} {EXAMPLES[level]}")
    return agreed[level].value
