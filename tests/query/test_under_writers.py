"""Each statement returns the rows that plain DuckDB returns over a still copy, while writers work.

The writers change no answer (see support/restless_writers.py). Statements are drawn at
random.
LAKEWRITER_EQUALITY_S=600 runs all of them repeatedly, for that many seconds.
"""

import math
import multiprocessing
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given

from lakewriter.candle import Candle
from lakewriter.interval import DAY_MS
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.open import open_to_read
from support.lakes import BEGIN_MS, STEPS_MS, make_lake
from support.recorder_at_work import (
    BY_CHANCE,
    LIMIT_S,
    LONGER_S,
    Compactions,
    ask,
    noted,
    recording,
    rounds,
    sandbox,
)
from support.restless_writers import planned, prepare, unsettle
from support.running import PATIENCE_S, run, wait_until
from support.statements import (
    ALL_ROWS,
    FILTERS,
    PREDICATES,
    SERIES,
    STATEMENTS,
    as_statement,
    asked_plainly,
    in_any_order,
    of,
    plain_copy,
    plain_glob,
    two_scans,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(LIMIT_S)]

# An hour takes three seconds.
SPEED = 1200

# The recorder is at it for two tests, and brings nothing that the still copy lacks before both are timed out.
DAYS = math.ceil(2 * LIMIT_S * SPEED * 1000 / DAY_MS)

RECORDED_SERIES = [one for one in SERIES if one[1] in ("BTCUSDT", "ETHUSDT") and one[2] in ("1h", "1d")]

# Moved from the journal into files, one by one.
MOVED_SERIES = ("spot", "MOVEDUSDT", "1h")


def settled_rows() -> tuple[list[Candle], list[Candle]]:
    """Return the rows of the lake, and those whose losing duplicates a recorder will add."""
    kept = [one for one in ALL_ROWS if (one.market, one.symbol, one.interval) not in RECORDED_SERIES]
    days = range(BEGIN_MS, BEGIN_MS + 24 * DAY_MS, DAY_MS)
    kept += [of(*MOVED_SERIES, begin_ms, begin_ms + STEPS_MS["1h"]) for begin_ms in days]
    recorded = []
    for market, symbol, interval in RECORDED_SERIES:
        for begin_ms in range(BEGIN_MS - DAY_MS, BEGIN_MS + DAYS * DAY_MS, STEPS_MS[interval]):
            one = of(market, symbol, interval, begin_ms, begin_ms + STEPS_MS[interval], source="archive")
            recorded.append(one)
    return kept, recorded


class Lakes(NamedTuple):
    """A lake under constant writes, and plain DuckDB over a still copy of its rows."""

    store: LakeStore
    plain: duckdb.DuckDBPyConnection


@pytest.fixture(scope="module")
def unsettled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lakes]:
    directory = tmp_path_factory.mktemp("unsettled")
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    kept, recorded = settled_rows()
    still = make_lake(directory / "still", [*kept, *recorded])
    store = LakeStore.create(str(directory / "lake"), "test")
    todo = planned(kept, recorded, seed)
    prepare(store, todo)
    context = multiprocessing.get_context("spawn")
    ready, stop, counts = context.Event(), context.Event(), context.Queue()
    moves_per_s = len(todo.moving) / (LONGER_S or 40)
    writers = context.Process(
        target=unsettle, args=(str(store.root), todo, seed, ready, stop, counts, moves_per_s)
    )
    writers.start()
    plain = plain_copy(still.root)
    try:
        assert ready.wait(PATIENCE_S)
        subscriptions = [":".join(series) for series in RECORDED_SERIES]
        with (
            sandbox(directory, SPEED) as url,
            recording(directory, store.root, url, *subscriptions) as recorder,
            Compactions(store.root) as compactions,
        ):
            yield Lakes(open_to_read(str(store.root), keep_listings=True), plain)
            # However short the tests were, the writers were at it.
            wait_until(lambda: compactions.folded() > 5 and recorder.logged().count("\nrecorded ") > 20)
            assert writers.is_alive()
        stop.set()
        done = counts.get(timeout=PATIENCE_S)
        print(
            f"meanwhile: {done}, {compactions.folded()} files folded by {len(compactions.done)} compactions"
        )
        assert min(done[what] for what in ("plant", "rewrite", "unfold", "repeat", "spell_anew", "move")) > 0
    finally:
        stop.set()
        writers.join()
    assert writers.exitcode == 0
    in_the_end(store.root, plain)


def in_the_end(lake: Path, plain: duckdb.DuckDBPyConnection) -> None:
    """After a flush and a compaction, check that a plain glob of the lake has the same rows, once."""
    for command in ("flush", "compact"):
        assert run(command, "--lake", str(lake)).returncode == 0
    globbed = plain_glob(lake)
    assert_same(globbed.sql("FROM candles").to_arrow_table(), plain.sql("FROM candles").to_arrow_table())


def assert_same(ours: pa.Table, theirs: pa.Table) -> None:
    found, expected = Counter(in_any_order(ours)), Counter(in_any_order(theirs))
    missing, extra = expected - found, found - expected
    assert not missing, f"{missing.total()} missing, as {list(missing)[:3]}; extra {list(extra)[:3]}"
    assert not extra, f"{extra.total()} too many, as {list(extra)[:3]}"


EVERYTHING = [*map(as_statement, PREDICATES), *STATEMENTS]


def test_every_statement_while_writers_never_rest(unsettled: Lakes) -> None:
    """During all kinds of writes, each answer equals that of a still copy."""
    many = len(EVERYTHING) if LONGER_S else 12
    for _ in rounds():
        for number, sql in enumerate(random.sample(EVERYTHING, many)):
            expected = asked_plainly(unsettled.plain, sql)
            with noted(sql):
                assert_same(ask(unsettled.store, sql, number), expected)


@BY_CHANCE
@given(one=FILTERS, other=FILTERS)
def test_any_filters_while_writers_never_rest(unsettled: Lakes, one: str, other: str) -> None:
    """For any two filters, the answer under constant writes equals that of a still copy."""
    sql = two_scans(one, other)
    assert_same(ask(unsettled.store, sql), asked_plainly(unsettled.plain, sql))
