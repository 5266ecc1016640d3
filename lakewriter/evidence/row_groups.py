"""Group the rows of a file by the series that its columns claim. Pure.

Rule: a column with several values splits a file into one group for each value. An unknown
value refuses the file, unless the column's name can have other meanings.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from lakewriter.candle import IntArray
from lakewriter.errors import LakewriterError
from lakewriter.evidence.claims import EXAMPLES, Claim, Level, agree, claims_on
from lakewriter.spelling import ANY, asset_in, interval_in, market_in, symbol_in

# The maximum series in one file. The exchange lists a few thousand in a year.
SERIES_MAX = 20_000

_CHARACTERS_MAX = 40


class ColumnClaim(NamedTuple):
    """A column with the market, symbol, interval or base asset of each row.

    Args:
        level: market, symbol, interval or asset.
        name: the column's name, as the file spells it.
        values: a text for each row, or null.
        loose: whether the name can have other meanings. The column then counts only if all
            of its values are known.
    """

    level: Level
    name: str
    values: pa.Array
    loose: bool = False


class RowGroup(NamedTuple):
    """Rows with the same claims.

    Args:
        claims: the claims.
        rows: positions, ascending; None for all rows.
    """

    claims: tuple[Claim, ...]
    rows: IntArray | None


def _never(_text: str) -> bool:
    return False


def group_rows(
    columns: Sequence[ColumnClaim], name: str, is_exact: Callable[[str], bool] = _never
) -> list[RowGroup]:
    """Return the rows of a file, grouped by the claims of its columns.

    Args:
        name: the file's name in an error.
        is_exact: returns whether a text is a symbol in the exchange's spelling, as in a lake's columns.

    Raises:
        LakewriterError: if a column has unknown or missing values.
        ContradictionError: if two columns of a row contradict each other.
    """
    all_rows: list[Claim] = []
    by_text: list[list[list[Claim]]] = []
    codes: list[IntArray] = []
    for column in columns:
        encoded = column.values.dictionary_encode()
        claims = _claims_by_text(column, encoded, name, is_exact)
        if claims is None:
            continue
        if len(claims) == 1:
            all_rows += claims[0]
        else:
            by_text.append(claims)
            codes.append(encoded.indices.to_numpy().astype(np.int64))
    if not codes:
        return [RowGroup(tuple(agree(all_rows, name).values()), None)]
    groups = []
    for texts, rows in _combinations(codes, name):
        claims_of_rows = [claim for at, claims in zip(texts, by_text, strict=True) for claim in claims[at]]
        groups.append(RowGroup(tuple(agree([*all_rows, *claims_of_rows], name).values()), rows))
    return groups


def _combinations(codes: list[IntArray], name: str) -> list[tuple[list[int], IntArray]]:
    """Return each distinct combination of the columns' codes, with its rows."""
    order = np.lexsort(tuple(reversed(codes)))
    changes = np.logical_or.reduce([np.diff(code[order]) != 0 for code in codes])
    firsts = [0, *(np.flatnonzero(changes) + 1).tolist(), len(order)]
    if len(firsts) > SERIES_MAX:
        raise LakewriterError(f"{name}: holds more than {SERIES_MAX} series", "import it in parts")
    # The sort is stable, so the rows of each group are ascending.
    return [
        ([int(code[order[first]]) for code in codes], order[first:stop]) for first, stop in pairwise(firsts)
    ]


def _claims_by_text(
    column: ColumnClaim, encoded: Any, name: str, is_exact: Callable[[str], bool]
) -> list[list[Claim]] | None:
    """Return the claims of each distinct text in a column; None if the column claims nothing."""
    texts = encoded.dictionary.to_pylist()
    if not texts:
        return None  # the whole column is null
    if len(texts) > SERIES_MAX:
        raise LakewriterError(f"{name}: its column {column.name} has more than {SERIES_MAX} values")
    claims = [_claims_of(column, text, is_exact) for text in texts]
    if column.loose and (None in claims or encoded.null_count):
        return None  # the column means something else
    if encoded.null_count or "" in texts:
        raise LakewriterError(f"{name}: its column {column.name} is empty in some rows")
    for text, each in zip(texts, claims, strict=True):
        if each is None:
            shown = repr(text[:_CHARACTERS_MAX])
            raise LakewriterError(
                f"{name}: its column {column.name} says {shown}, which is no {column.level} of Binance",
                f"--relabel --{column.level} {EXAMPLES[column.level]}",
            )
    return [text_claims or [] for text_claims in claims]


def _claims_of(column: ColumnClaim, text: str, is_exact: Callable[[str], bool]) -> list[Claim] | None:
    by = f"its column {column.name}"
    if column.level == "asset":
        asset = asset_in(text)
        return None if asset is None else [Claim("asset", asset, by, "asset")]
    if column.level == "interval":
        interval = interval_in(text)
        return None if interval is None else claims_on("interval", interval.name, by)
    if column.level == "market" and (market := market_in(text)) is not None:
        return [] if market == ANY else claims_on("market", market, by)
    if is_exact(text):
        return claims_on("symbol", text, by)
    spelled = symbol_in(text)
    if spelled is None:
        return None
    return [*([Claim("market", spelled.market, by, "symbol")] if spelled.market else []),
            Claim("symbol", spelled.symbol, by, "symbol")]  # fmt: skip
