"""Evidence on other tools' rows: claims on their series, spacing, closed candles, duplicates, archive files."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakewriter.candle import VALUE_COLUMNS
from lakewriter.candle_arrays import ends
from lakewriter.errors import LakewriterError, UsageError
from lakewriter.evidence.archive_proof import ArchivePeriod, why_not_archive
from lakewriter.evidence.choice import OtherSeriesError, choose_series
from lakewriter.evidence.claims import NAME, ContradictionError, ImportOptions, RowsError, agree, claims_on
from lakewriter.evidence.closed import closed_rows
from lakewriter.evidence.columns import are_swapped, volume_and_quote
from lakewriter.evidence.duplicates import without_duplicates
from lakewriter.evidence.row_groups import ColumnClaim, RowGroup, group_rows
from lakewriter.evidence.spacing import check_lengths, check_spacing
from lakewriter.interval import DAY_MS, HOUR_MS, INTERVALS, MINUTE_MS

DAY_START_MS = 1_719_705_600_000  # 2024-06-30, a Sunday
BTC = [*claims_on("symbol", "BTCUSDT", NAME), *claims_on("interval", "1m", NAME)]
ALL = [RowGroup((), None)]


def column(level: str, *values: str | None, name: str = "") -> ColumnClaim:
    return ColumnClaim(level, name or level, pa.array(values, pa.string()))  # type: ignore[arg-type]


def test_options_fill_in_and_choose() -> None:
    """An option supplies a missing claim, and refuses a file with another claim."""
    (part,), other = choose_series(ALL, BTC, ImportOptions("spot"), "x.csv", 5)
    assert (part.series, part.interval_by, part.rows, other) == (("spot", "BTCUSDT", "1m"), NAME, None, 0)
    with pytest.raises(OtherSeriesError) as caught:
        choose_series(ALL, BTC, ImportOptions("spot", interval="1h"), "x.csv", 5)
    assert caught.value.what == "x.csv says 1m, --interval says 1h"
    with pytest.raises(UsageError, match=r"x\.csv: its market is unknown"):
        choose_series(ALL, BTC, ImportOptions(), "x.csv", 5)


@pytest.mark.parametrize(
    ("options", "series"),
    [
        (ImportOptions("spot", symbol="ETHUSDT"), ("spot", "ETHUSDT", "1m")),
        (ImportOptions("spot", interval="1h"), ("spot", "BTCUSDT", "1h")),
        (ImportOptions(symbol="BTCUSD_PERP"), ("coin_futures", "BTCUSD_PERP", "1m")),
    ],
)
def test_relabelling_overrules(options: ImportOptions, series: tuple[str, str, str]) -> None:
    """With --relabel, options overrule the file's claims, and other claims stay."""
    (part,), _ = choose_series(ALL, BTC, options._replace(relabel=True), "x.csv", 5)
    assert part.series == series


def test_a_symbol_tells_its_market() -> None:
    """A futures contract implies its market."""
    perpetual = [*claims_on("symbol", "BTCUSD_PERP", NAME), *claims_on("interval", "1m", NAME)]
    (part,), _ = choose_series(ALL, perpetual, ImportOptions(), "x.csv", 1)
    assert part.series.market == "coin_futures"
    with pytest.raises(OtherSeriesError, match=r"x\.csv says coin_futures, --market says spot"):
        choose_series(ALL, perpetual, ImportOptions("spot"), "x.csv", 1)
    either = [*claims_on("market", "futures", NAME), *perpetual]
    assert choose_series(ALL, either, ImportOptions(), "x.csv", 1).parts[0].series.market == "coin_futures"
    assert choose_series(ALL, [*BTC, *claims_on("market", "futures", NAME)], ImportOptions(), "x", 1).parts[
        0
    ].series.market == ("usdt_futures")


def test_two_sources_that_disagree() -> None:
    """The error names both sources, the file's first."""
    with pytest.raises(ContradictionError) as caught:
        agree([*BTC, *claims_on("symbol", "ETHUSDT", "its column pair")], "dir/x.csv")
    assert caught.value.what == "dir/x.csv says BTCUSDT, its column pair says ETHUSDT"
    with pytest.raises(ContradictionError) as caught:
        agree(
            [
                *claims_on("market", "spot", "its directory data/spot"),
                *claims_on("market", "coin_futures", NAME),
            ],
            "x",
        )
    assert caught.value.what == "x: its directory data/spot says spot, its name says coin_futures"


def test_columns_split_a_file() -> None:
    """Each series gets its rows in order, for all of its spellings."""
    groups = group_rows(
        [
            column("symbol", "BTCUSDT", "ETHUSDT", "btcusdt", "BTC/USDT:USDT", "ETHUSDT"),
            column("interval", "1m", "1m", "1min", "1m", "1h", name="timeframe"),
        ],
        "x.csv",
    )
    parts, other = choose_series(
        groups, claims_on("market", "usdt_futures", NAME), ImportOptions(), "x.csv", 5
    )
    found = {part.series[1:]: part.rows.tolist() for part in parts}  # type: ignore[union-attr]
    assert found == {("BTCUSDT", "1m"): [0, 2, 3], ("ETHUSDT", "1m"): [1], ("ETHUSDT", "1h"): [4]}
    assert other == 0
    parts, other = choose_series(
        groups, [], ImportOptions("usdt_futures", symbol="ETHUSDT", interval="1h"), "x.csv", 5
    )
    assert [part.series for part in parts] == [("usdt_futures", "ETHUSDT", "1h")]
    assert other == 4


@given(
    st.lists(
        st.tuples(st.sampled_from(["BTCUSDT", "ETHBTC", "xrpusdc"]), st.sampled_from(["1m", "5m"])),
        min_size=1,
    )
)
def test_a_split_is_a_partition(rows: list[tuple[str, str]]) -> None:
    """Each row is in exactly one group, that of its series, and groups keep the order of rows."""
    groups = group_rows(
        [column("symbol", *[row[0] for row in rows]), column("interval", *[row[1] for row in rows])], "x"
    )
    parts, other = choose_series(groups, [], ImportOptions("spot"), "x", len(rows))
    seen = {}
    for part in parts:
        places = range(len(rows)) if part.rows is None else part.rows.tolist()
        assert list(places) == sorted(places)
        seen |= dict.fromkeys(places, part.series)
    assert seen == {at: ("spot", symbol.upper(), interval) for at, (symbol, interval) in enumerate(rows)}
    assert other == 0


@pytest.mark.parametrize(
    ("columns", "what"),
    [
        ([column("symbol", "BTC", "ETH")], "its column symbol says 'BTC', which is no symbol of Binance"),
        ([column("symbol", "BTC-USD")], "its column symbol says 'BTC-USD', which is no symbol of Binance"),
        ([column("interval", "7m")], "its column interval says '7m', which is no interval of Binance"),
        ([column("market", "coinbase", name="exchange")], "its column exchange says 'coinbase', which is no market of Binance"),
        ([column("symbol", "BTCUSDT", None)], "its column symbol is empty in some rows"),
        ([column("symbol", "BTCUSDT", "")], "its column symbol is empty in some rows"),
        ([column("symbol", "BTCUSDT"), column("symbol", "ETHUSDT", name="pair")], "its column symbol says BTCUSDT, its column pair says ETHUSDT"),
        ([column("symbol", "BTCUSD_PERP"), column("market", "spot")], "its column symbol says coin_futures, its column market says spot"),
    ],
)  # fmt: skip
def test_columns_that_cannot_be(columns: list[ColumnClaim], what: str) -> None:
    """A column with unknown values, or one that contradicts another column, refuses the file."""
    with pytest.raises(LakewriterError) as caught:
        group_rows(columns, "x.csv")
    assert caught.value.what == f"x.csv: {what}"


def test_columns_with_other_meanings() -> None:
    """A column such as `code` or `period` counts only if all of its values are known."""
    codes = [ColumnClaim("symbol", "code", pa.array(["BTCUSDT", "ETHUSDT"]), loose=True)]
    assert [part.series.symbol for part in choose_series(group_rows(codes, "x"), [], ImportOptions("spot", interval="1m"), "x", 2).parts] == [
        "BTCUSDT", "ETHUSDT",
    ]  # fmt: skip
    for values in (["BTCUSDT", "A7"], ["BTCUSDT", None]):
        assert group_rows([ColumnClaim("symbol", "code", pa.array(values), loose=True)], "x") == [
            RowGroup((), None)
        ]


def test_a_column_of_base_assets() -> None:
    """A base asset implies no symbol, but its rows are of a separate series."""
    coins = group_rows([ColumnClaim("asset", "coin", pa.array(["BTC", "ETH", "BTC"]), loose=True)], "x.csv")
    (part,), other = choose_series(coins, [], ImportOptions("spot", "BTCUSDT", "1m"), "x.csv", 3)
    assert (part.rows.tolist(), other) == ([0, 2], 1)  # type: ignore[union-attr]
    with pytest.raises(ContradictionError, match=r"x\.csv says BTCUSDT, its column coin says ETH"):
        choose_series(coins, BTC, ImportOptions("spot"), "x.csv", 3)


def test_columns_that_say_nothing() -> None:
    """An empty column, the exchange's own name, or a letter with another meaning claims nothing."""
    columns = [
        column("symbol", None, None),
        column("market", "Binance", "binance"),
        ColumnClaim("interval", "i", pa.array(["0", "1"]), loose=True),
    ]
    assert all(group.claims == () for group in group_rows(columns, "x.csv"))
    (group,) = group_rows([column("market", "BTC/USDT")], "x.csv")
    assert [(each.level, each.value) for each in group.claims] == [("symbol", "BTCUSDT")]


def times(*steps: int, unit_ms: int = MINUTE_MS, start_ms: int = DAY_START_MS) -> np.ndarray:
    return np.array([start_ms + step * unit_ms for step in steps])


@pytest.mark.parametrize(
    ("begins", "interval", "what"),
    [
        (times(0, 1, 2, unit_ms=DAY_MS), "1h", "these rows are 1d, x.csv says 1h"),
        (times(0, 3, 9, 11, unit_ms=DAY_MS), "1m", "these rows are 1d, x.csv says 1m"),
        (times(0, 1, 2, unit_ms=HOUR_MS), "1m", "these rows are 1h, x.csv says 1m"),
        (times(0, 15, 30), "1m", "these rows are 15m, x.csv says 1m"),
        (times(0, 15, 30), "5m", "these rows are 15m, x.csv says 5m"),
        (times(0, 10, 20), "1m", "these rows are 5m, x.csv says 1m"),
        (times(7, 17, 27), "1m", "these rows are 10 m apart or more, x.csv says 1m"),
        (times(1, 8, 15, unit_ms=DAY_MS), "1d", "these rows are 1w, x.csv says 1d"),
        (times(1, 32, 63, unit_ms=DAY_MS), "1d", "these rows are 1mo, x.csv says 1d"),
        (np.array([*range(200), 200.5]) * DAY_MS, "1h", "these rows are 1d, x.csv says 1h"),
        (times(*range(50)), "1h", "these rows are 1m, x.csv says 1h"),
        (times(*range(40), unit_ms=DAY_MS), "1mo", "these rows are 1d, x.csv says 1mo"),
        (times(*range(9), unit_ms=DAY_MS), "3d", "these rows are 1d, x.csv says 3d"),
    ],
)
def test_rows_of_another_interval(begins: np.ndarray, interval: str, what: str) -> None:
    """From three rows on, the distances between rows prove their interval."""
    with pytest.raises(RowsError) as caught:
        check_spacing(begins.astype(np.int64), INTERVALS[interval], "x.csv")
    assert caught.value.what == what
    assert "--sparse" in caught.value.hint


@pytest.mark.parametrize(
    ("begins", "interval"),
    [
        (times(), "1m"),
        (times(0, unit_ms=DAY_MS), "1m"),
        (times(0, 1, unit_ms=DAY_MS), "1h"),
        (times(0, 1, 60), "1m"),
        (times(0, 7, 11, 12, 30), "1m"),
        (times(5, 3, 4, 3), "1m"),
        (times(0, 3, 6, unit_ms=DAY_MS), "3d"),
        (times(1, 32, 62, unit_ms=DAY_MS), "1mo"),
    ],
)
def test_rows_that_may_be_of_their_interval(begins: np.ndarray, interval: str) -> None:
    """Two rows prove nothing, and neither does a series with gaps and some adjacent rows."""
    check_spacing(begins, INTERVALS[interval], "x.csv")


@given(st.sampled_from(sorted(INTERVALS)), st.integers(0, 1000), st.integers(3, 60))
def test_whole_series_are_spaced_right(interval: str, first: int, rows: int) -> None:
    """A series without gaps has its own interval, at any start."""
    grid = INTERVALS[interval]
    begin_ms = grid.ceil(DAY_START_MS + first * (grid.length_ms or DAY_MS))
    check_spacing(np.array(grid.grid(begin_ms, begin_ms + rows * (grid.length_ms or 31 * DAY_MS))), grid, "x")


@given(st.sampled_from(sorted(INTERVALS)), st.sampled_from([0, 1, 1000]))
def test_ends_prove_an_interval(interval: str, short_ms: int) -> None:
    """End times prove the interval, exclusive or as the last millisecond or second; noise does not."""
    grid = INTERVALS[interval]
    begins = np.array(grid.grid(grid.ceil(DAY_START_MS), DAY_START_MS + 5 * (grid.length_ms or 31 * DAY_MS)))
    if interval == "1s" and short_ms == 1000:
        return
    stops = ends(grid, begins) - short_ms
    assert check_lengths(begins, stops, grid, "x")
    for other in INTERVALS.values():
        if other != grid:
            with pytest.raises(
                RowsError, match=f"these rows end {interval} after they begin, x says {other.name}"
            ):
                check_lengths(begins, stops, other, "x")
    assert not check_lengths(begins, begins + 17, grid, "x")
    assert not check_lengths(begins[:0], begins[:0], grid, "x")


def test_closed_rows() -> None:
    """A closed candle ended before now and before the file was written, and is not marked open."""
    stops = np.array([10, 20, 30, 40])
    assert closed_rows(stops, None, 30, 99).tolist() == [True, True, True, False]
    assert closed_rows(stops, None, 99, 29).tolist() == [True, True, False, False]
    marked = np.array([True, False, True, True])
    assert closed_rows(stops, marked, 99, 30).tolist() == [True, False, True, False]


def values(*rows: tuple[float, float | None, int | None]) -> list[pa.Array]:
    """Return columns of close, volume and trades; the other prices are 1."""
    table = {name: [1.0] * len(rows) for name in VALUE_COLUMNS}
    close, volume, trades = zip(*rows, strict=True)
    table |= {"close": list(close), "volume": list(volume), "trade_num": list(trades)}
    return [
        pa.array(table[name], pa.int64() if name == "trade_num" else pa.float64()) for name in VALUE_COLUMNS
    ]


def test_duplicates() -> None:
    """Of two rows of a candle the later one is kept, by trades or else by volume, in any order."""
    begins = times(1, 0, 0, 2, 2)
    rows = values((1, 5, None), (2, 9, None), (1, 3, None), (7, 1, 4), (7, 1, 4))
    found = without_duplicates(begins, rows)
    assert (found.kept.tolist(), found.equal, found.contradictions) == ([1, 0, 3], 1, 1) or (
        found.kept.tolist(), found.equal, found.contradictions
    ) == ([1, 0, 4], 1, 1)  # fmt: skip
    ascending = without_duplicates(times(0, 1), values((1, 1, 1), (1, 1, 1)))
    assert (ascending.kept.tolist(), ascending.equal, ascending.contradictions) == ([0, 1], 0, 0)
    # More trades are later, whatever the volume.
    assert without_duplicates(times(0, 0), values((1, 9, 3), (2, 1, 4))).kept.tolist() == [1]


@pytest.mark.parametrize(
    "rows",
    [
        [(1.0, 5.0, None), (2.0, 5.0, None)],
        [(1.0, 5.0, 3), (2.0, 6.0, 3)],
        [(1.0, None, None), (2.0, None, None)],
    ],
)
def test_rows_of_which_neither_is_later(rows: list[tuple[float, float | None, int | None]]) -> None:
    """Two different rows with equal trades, or equal volume without trades, refuse the file."""
    with pytest.raises(RowsError, match="neither is the later one"):
        without_duplicates(times(0, 0), values(*rows))


def test_many_contradictions() -> None:
    """One contradicting row in a hundred is allowed, as in overlapping pages; more of them refuse the file."""
    once = [(1.0, float(volume), None) for volume in range(1, 301)]
    begins = [*range(300), 0, 100, 200]
    found = without_duplicates(
        times(*begins), values(*once, (2.0, 999.0, None), (2.0, 999.0, None), (2.0, 0.5, None))
    )
    assert (found.contradictions, found.kept[[0, 100, 200]].tolist()) == (3, [300, 301, 200])
    begins += [50]
    with pytest.raises(RowsError, match="4 of 304 rows contradict another row of their candle"):
        without_duplicates(times(*begins), values(*once, *[(2.0, 999.0, None)] * 4))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 3)), min_size=1, max_size=8), st.randoms())
def test_the_order_of_rows_decides_nothing(drawn: list[tuple[int, int]], random: object) -> None:
    """In any order of lines the same rows are kept, or the file is refused."""

    def kept(rows: list[tuple[int, int]]) -> object:
        try:
            found = without_duplicates(
                times(*[at for at, _ in rows]), values(*[(1.0 + v, float(v), None) for _, v in rows])
            )
        except RowsError as error:
            return error.what.partition("the first")[0]
        return [rows[at] for at in found.kept.tolist()], found.equal, found.contradictions

    shuffled = list(drawn)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    # A file that is in order is looked at no closer.
    assert kept(sorted(drawn)) == kept(shuffled)


def test_which_of_two_is_the_volume() -> None:
    """Quote volume / volume is a price between low and high in one order; otherwise None."""
    low, high = np.array([90.0, 0.0]), np.array([110.0, 1.0])
    base, quote = np.array([2.0, 0.0]), np.array([200.0, 0.0])
    assert volume_and_quote(base, quote, low, high) == (0, 1)
    assert volume_and_quote(quote, base, low, high) == (1, 0)
    assert volume_and_quote(base, base, low, high) is None
    assert volume_and_quote(base * 0, quote, low, high) is None
    par = np.array([1.0, 1.0])
    assert volume_and_quote(base, base, par * 0.9, par * 1.1) is None


@pytest.mark.parametrize("row", [0, 63, 64, 999])
def test_each_row_decides_which_is_the_volume(row: int) -> None:
    """One row without a price between low and high is enough, wherever it stands."""
    low, high = np.full(1000, 90.0), np.full(1000, 110.0)
    base, quote = np.full(1000, 2.53), np.full(1000, 253.01)
    assert volume_and_quote(base, quote, low, high) == (0, 1)
    assert volume_and_quote(quote, base, low, high) == (1, 0)
    assert are_swapped(quote, base, low, high) and not are_swapped(base, quote, low, high)
    quote[row] = 399.01
    assert volume_and_quote(base, quote, low, high) is None
    assert not are_swapped(quote, base, low, high) and not are_swapped(base, quote, low, high)


JUNE_30 = ArchivePeriod(DAY_START_MS, DAY_START_MS + DAY_MS)


@pytest.mark.parametrize(
    ("begins", "period", "now_ms", "checked", "why"),
    [
        (times(0, 1439), JUNE_30, DAY_START_MS + DAY_MS, False, ""),
        (times(0, 700), JUNE_30, DAY_START_MS + DAY_MS, True, ""),
        (
            times(0, 700),
            JUNE_30,
            DAY_START_MS + DAY_MS,
            False,
            "it ends at 2024-06-30 11:40:00, before its period does",
        ),
        (times(0, 1439), JUNE_30, DAY_START_MS + DAY_MS - 1, True, "its period is not over"),
        (times(0, 1440), JUNE_30, DAY_START_MS * 2, True, "it has rows outside of its name's period"),
        (times(-1, 1439), JUNE_30, DAY_START_MS * 2, True, "it has rows outside of its name's period"),
        (times(), JUNE_30, DAY_START_MS * 2, True, "it has rows outside of its name's period"),
        (times(0, 1439), None, DAY_START_MS * 2, True, "the archive has no file of its name"),
    ],
)
def test_the_standing_of_the_archive(
    begins: np.ndarray, period: ArchivePeriod | None, now_ms: int, checked: bool, why: str
) -> None:
    """A proven archive file has an archive name, a finished period, all of its rows, and a later file time."""
    assert why_not_archive(begins, INTERVALS["1m"], period, now_ms, checked=checked) == why
