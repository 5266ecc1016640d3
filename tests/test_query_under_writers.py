"""Each statement gives what plain DuckDB gives, while a recorder and compactions run.

On the first lake nothing that the writers do changes any answer (see
unsettling.py), so each statement is asked as it stands, and compared with plain
DuckDB over a still copy. On the second one a recorder brings candles that
nobody had, and an answer is held between what was there before and what the
exchange has sent.

Statements are drawn by chance; LAKEWRITER_EQUALITY_S=600 asks all of them, again
and again for so many seconds.
"""

import contextlib
import json
import multiprocessing
import os
import random
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from running import Child, child, run, wait_until
from statements import (
    ALL_ROWS,
    FILTERS,
    PREDICATES,
    SERIES,
    STATEMENTS,
    as_statement,
    asked_plainly,
    in_any_order,
    of,
    params_of,
    plain_glob,
    two_scans,
)
from test_query_files import BEGIN_MS, DAY_MS, STEPS_MS, make_lake
from unsettling import planned, prepare, unsettle

from lakewriter.candle import Candle
from lakewriter.lake.lake import LakeStore
from lakewriter.partition import LEVELS
from lakewriter.query import session
from lakewriter.query.failure import MovedError
from lakewriter.query.pruning import CANDLES_SCHEMA
from lakewriter.sandbox import Truth

LONGER_S = float(os.environ.get("LAKEWRITER_EQUALITY_S", "0"))

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300 + 3 * LONGER_S)]

# An hour takes two seconds.
SPEED = 1800

# The recorder may be at it for so long.
DAYS = int((300 + LONGER_S) * SPEED * 1000 / DAY_MS) + 2

RECORDED_SERIES = [one for one in SERIES if one[1] in ("BTCUSDT", "ETHUSDT")]

# A file that is replaced just while it is opened makes plain DuckDB fail, and a stream; see the README.
TRIES_MAX = 20

# Moved from the journal into files, one by one.
MOVED_SERIES = ("spot", "MOVEDUSDT", "1h")

RECORDED = re.compile(r"^recorded (\S+) (\S+) (\S+) (\d{4}-\d\d-\d\d \d\d:\d\d) at ", re.MULTILINE)


def settled_rows() -> tuple[list[Candle], list[Candle]]:
    """Return the rows of the statements' lake, and those that a recorder will bring as well, from worse sources."""
    kept = [one for one in ALL_ROWS if (one.market, one.symbol, one.interval) not in RECORDED_SERIES]
    days = range(BEGIN_MS, BEGIN_MS + 24 * DAY_MS, DAY_MS)
    kept += [of(*MOVED_SERIES, begin_ms, begin_ms + STEPS_MS["1h"]) for begin_ms in days]
    recorded = []
    for market, symbol, interval in RECORDED_SERIES:
        for begin_ms in range(BEGIN_MS - DAY_MS, BEGIN_MS + DAYS * DAY_MS, STEPS_MS[interval]):
            one = of(market, symbol, interval, begin_ms, begin_ms + STEPS_MS[interval], source="archive")
            recorded.append(one)
    return kept, recorded


@contextlib.contextmanager
def sandbox(directory: Path, speed: int) -> Iterator[str]:
    """A local exchange in a process of its own, where it is 2024-06-30; its URL."""
    arguments = ["--port", "0", "--speed", str(speed), "--start", "2024-06-30", "--symbols", "4"]
    with (directory / "sandbox.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "lakewriter", "sandbox", *arguments, "--push-every", "0"],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert process.stdout is not None
    with process, contextlib.closing(process.stdout):
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


@contextlib.contextmanager
def recording(directory: Path, lake: Path, url: str, *subscriptions: str) -> Iterator[Child]:
    """`lakewriter record`, which flushes all the time, and stops well."""
    arguments = ["record", *subscriptions, "--exchange", url, "--lake", str(lake), "--flush-every", "200ms"]
    with child(directory / "record.log", *arguments) as recorder:
        recorder.wait_for("\nrecorded ")
        yield recorder
        assert recorder.stop() == 0, recorder.logged()[-3000:]


class Compactions(threading.Thread):
    """`lakewriter compact`, again and again."""

    def __init__(self, lake: Path) -> None:
        super().__init__()
        self.lake = lake
        self.over = threading.Event()
        self.done: list[subprocess.CompletedProcess[str]] = []

    def run(self) -> None:
        while not self.over.wait(1.5):
            self.done.append(run("compact", "--json", "--lake", str(self.lake)))

    def __enter__(self) -> "Compactions":
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.over.set()
        self.join()

    def folded(self) -> int:
        """Return how many files they have removed; none of them failed."""
        assert all(each.returncode == 0 for each in self.done), [each.stderr for each in self.done]
        return sum(json.loads(each.stdout)["files_removed"] for each in self.done)


class Lakes(NamedTuple):
    """A lake that is written to, and plain DuckDB over a still copy of its rows."""

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
    plain = plain_glob(still.root)
    try:
        assert ready.wait(60)
        subscriptions = [":".join(series) for series in RECORDED_SERIES]
        with (
            sandbox(directory, SPEED) as url,
            recording(directory, store.root, url, *subscriptions) as recorder,
            Compactions(store.root) as compactions,
        ):
            yield Lakes(store, plain)
            # However short the tests were, the writers were at it.
            wait_until(lambda: compactions.folded() > 5 and recorder.logged().count("\nrecorded ") > 20)
            assert writers.is_alive()
        stop.set()
        done = counts.get(timeout=60)
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
    """When all is flushed and folded, a plain glob of the lake itself has the same rows, once."""
    for command in ("flush", "compact"):
        assert run(command, "--lake", str(lake)).returncode == 0
    globbed = plain_glob(lake)
    assert_same(globbed.sql("FROM candles").to_arrow_table(), plain.sql("FROM candles").to_arrow_table())


def assert_same(ours: pa.Table, theirs: pa.Table) -> None:
    found, expected = Counter(in_any_order(ours)), Counter(in_any_order(theirs))
    missing, extra = expected - found, found - expected
    assert not missing, f"{missing.total()} missing, as {list(missing)[:3]}; extra {list(extra)[:3]}"
    assert not extra, f"{extra.total()} too many, as {list(extra)[:3]}"


@contextlib.contextmanager
def noted(sql: str) -> Iterator[None]:
    """Let an error say which statement it was."""
    try:
        yield
    except Exception as error:
        error.add_note(sql)
        raise


def ask(store: LakeStore, sql: str, number: int = 0) -> pa.Table:
    """Return our answer, in one piece or batch by batch, by an engine made ahead or now."""
    if number % 3:
        session.prepare(store)
    for _ in range(TRIES_MAX if number % 2 else 0):
        # Whoever has used some rows is told, and asks again.
        with contextlib.suppress(MovedError), session.stream(store, sql, params_of(sql)) as answer:
            return pa.Table.from_batches(answer.batches, answer.schema)
    return session.run(store, sql, params_of(sql))


def rounds() -> Iterator[int]:
    """Count rounds: one, or as many as there is time for."""
    until_s = time.monotonic() + LONGER_S
    number = 0
    while not number or time.monotonic() < until_s:
        yield number
        number += 1


EVERYTHING = [*map(as_statement, PREDICATES), *STATEMENTS]


def test_every_statement_while_writers_never_rest(unsettled: Lakes) -> None:
    """Recorded over, planted, folded, unfolded, flushed and rewritten: each answer is that of a still copy."""
    many = len(EVERYTHING) if LONGER_S else 180
    for _ in rounds():
        for number, sql in enumerate(random.sample(EVERYTHING, many)):
            expected = asked_plainly(unsettled.plain, sql)
            with noted(sql):
                assert_same(ask(unsettled.store, sql, number), expected)


@settings(
    max_examples=15 + int(LONGER_S), database=None, phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
@given(one=FILTERS, other=FILTERS)
def test_any_filters_while_writers_never_rest(unsettled: Lakes, one: str, other: str) -> None:
    """Whatever two scans filter by, the answer is that of a still copy."""
    sql = two_scans(one, other)
    assert_same(ask(unsettled.store, sql), asked_plainly(unsettled.plain, sql))


# Of a candle, what the exchange said; the rest is ours.
SAID = (
    'market, symbol, "interval", epoch_ms(candle_begin_time), epoch_ms(candle_end_time), open, high, low, '
    "close, volume, quote_volume, trade_num, taker_buy_base_asset_volume, taker_buy_quote_asset_volume"
)
KEY_PARTS = 4

LIVE_SPEED = 7200
LIVE_SERIES = [
    *(("spot", symbol, interval) for symbol in ("BTCUSDT", "ETHUSDT") for interval in ("5m", "1h", "1d")),
    *(("usdt_futures", symbol, "1h") for symbol in ("BTCUSDT", "ETHUSDT", "BNBUSDT")),
    *(("coin_futures", symbol, "1h") for symbol in ("BTCUSD_PERP", "ETHUSD_PERP")),
]

Rows = Counter[tuple[object, ...]]


def of_one_row(predicate: str) -> bool:
    """Whether a row passes or not, whatever else is there, and whoever brought it."""
    others = ("SELECT", "candles", "random", "event_time", "recv_time", "source")
    return not any(word in predicate for word in others)


class Live:
    """A lake into which a recorder brings what nobody had."""

    def __init__(self, store: LakeStore, recorder: Child, url: str) -> None:
        self.store = store
        self.asked = self.seen = 0
        self._recorder = recorder
        self._url = url
        self._plain = plain_glob(store.root)
        self._truth = duckdb.connect()
        self._truth.execute("SET TimeZone='UTC'")
        self._truth.register("candles", all_candles())

    def bracket(self, predicate: str) -> None:
        """Ask, and hold the answer between what was there before and what the exchange has sent since."""
        sql = f"SELECT {SAID} FROM candles c WHERE {predicate}"
        logged = self.logged()
        before = self._before(sql)
        ours = rows_of(ask(self.store, sql, self.asked))
        true = rows_of(asked_plainly(self._truth, sql))
        keys = Counter(row[:KEY_PARTS] for row in ours.elements())
        assert keys.total() == len(keys), f"twice: {keys.most_common(3)}"
        assert not before - ours, f"lost: {list(before - ours)[:3]}"
        promised = {row[:KEY_PARTS] for row in true} & logged
        assert promised <= keys.keys(), f"recorded, not seen: {list(promised - keys.keys())[:3]}"
        assert not ours - true, f"never sent: {list(ours - true)[:3]}"
        now_ms = self._now_ms()
        assert all(row[KEY_PARTS] <= now_ms for row in ours), "not over yet"  # type: ignore[operator]
        self.asked += 1
        self.seen += len(ours)

    def _before(self, sql: str) -> Rows:
        for _ in range(TRIES_MAX):
            with contextlib.suppress(duckdb.Error):
                return rows_of(asked_plainly(self._plain, sql))
        return Counter()

    def logged(self) -> set[tuple[object, ...]]:
        def begin_ms(text: str) -> int:
            return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)

        found = RECORDED.findall(self._recorder.logged())
        return {(*series, begin_ms(begin)) for *series, begin in found}

    def _now_ms(self) -> int:
        with urllib.request.urlopen(f"{self._url}/control") as answer:
            return int(json.load(answer)["now_ms"])


def all_candles() -> pa.Table:
    """Return what the exchange will have sent in the end; null what it does not say."""
    stop_ms = BEGIN_MS + int((200 + LONGER_S) * LIVE_SPEED * 1000)
    tables = []
    for market, symbol, interval in LIVE_SERIES:
        said = Truth().arrays(market, symbol, interval, BEGIN_MS - DAY_MS, stop_ms)
        begins = said["candle_begin_time"]
        columns = {
            **said,
            "candle_begin_time": begins.astype("datetime64[ms]"),
            "candle_end_time": (begins + STEPS_MS[interval]).astype("datetime64[ms]"),
            **{
                name: np.full(len(begins), text)
                for name, text in zip(LEVELS, (market, symbol, interval), strict=False)
            },
            "date": begins.astype("datetime64[ms]").astype("datetime64[D]"),
        }
        arrays = [
            pa.array(columns[field.name]).cast(field.type)
            if field.name in columns
            else pa.nulls(len(begins), field.type)
            for field in CANDLES_SCHEMA
        ]
        tables.append(pa.Table.from_arrays(arrays, schema=CANDLES_SCHEMA))
    return pa.concat_tables(tables)


def rows_of(table: pa.Table) -> Rows:
    return Counter(zip(*(column.to_pylist() for column in table.columns), strict=True))


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    directory = tmp_path_factory.mktemp("live")
    store = LakeStore.create(str(directory / "lake"), "test")
    subscriptions = [":".join(series) for series in LIVE_SERIES]
    with (
        sandbox(directory, LIVE_SPEED) as url,
        recording(directory, store.root, url, *subscriptions) as recorder,
        Compactions(store.root) as compactions,
    ):
        recorder.wait_for("flushed")
        live = Live(store, recorder, url)
        yield live
        wait_until(lambda: len(live.logged()) > 200)
        print(
            f"meanwhile: {len(live.logged())} candles recorded, {live.seen} seen by {live.asked} statements"
        )
    compactions.folded()
    globbed = plain_glob(store.root)
    rows = rows_of(globbed.sql(f"SELECT {SAID} FROM candles").to_arrow_table())
    assert max(rows.values()) == 1
    assert live.logged() <= {row[:KEY_PARTS] for row in rows}


OF_ONE_ROW = [predicate for predicate in PREDICATES if of_one_row(predicate)]


def test_every_predicate_over_what_is_recorded_just_now(live: Live) -> None:
    """Nothing that was recorded is missing, nothing comes twice, and nothing that was never sent."""
    assert len(OF_ONE_ROW) > 130
    many = len(OF_ONE_ROW) if LONGER_S else 45
    for _ in rounds():
        for predicate in random.sample(OF_ONE_ROW, many):
            with noted(predicate):
                live.bracket(predicate)


@settings(
    max_examples=15 + int(LONGER_S), database=None, phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
@given(predicate=FILTERS)
def test_any_filter_over_what_is_recorded_just_now(live: Live, predicate: str) -> None:
    """The same for any filter."""
    live.bracket(predicate.replace("event_time", "close"))
