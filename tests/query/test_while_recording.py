"""While a recorder adds candles, an answer lies between the candles in files before and the candles sent.

Predicates are drawn at random. LAKEWRITER_EQUALITY_S=600 runs all of them repeatedly,
for that many seconds.
"""

import contextlib
import json
import random
import re
import tempfile
import urllib.request
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given

from lakewriter.interval import DAY_MS
from lakewriter.lake.lake import LakeStore
from lakewriter.partition import LEVELS
from lakewriter.query.scan.pruning import CANDLES_SCHEMA
from lakewriter.sandbox import Truth
from support.lakes import BEGIN_MS, STEPS_MS
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
from support.running import KEY_AND_VALUES, Child, wait_until
from support.statements import FILTERS, PREDICATES, asked_plainly, plain_glob

pytestmark = [pytest.mark.slow, pytest.mark.timeout(LIMIT_S)]

RECORDED = re.compile(r"^recorded (\S+) (\S+) (\S+) (\d{4}-\d\d-\d\d \d\d:\d\d) at ", re.MULTILINE)

KEY_PARTS = 4  # of KEY_AND_VALUES

# An hour takes half a second; more in a long run, so that there is not ever more to compare.
SPEED = int(7200 / max(1, LONGER_S / 60))

RECORDED_SERIES = [
    *(("spot", symbol, interval) for symbol in ("BTCUSDT", "ETHUSDT") for interval in ("5m", "1h", "1d")),
    *(("usdt_futures", symbol, "1h") for symbol in ("BTCUSDT", "ETHUSDT", "BNBUSDT")),
    *(("coin_futures", symbol, "1h") for symbol in ("BTCUSD_PERP", "ETHUSD_PERP")),
]

# What the exchange sends is computed so far ahead.
AHEAD_MS = 5 * DAY_MS

Rows = Counter[tuple[object, ...]]


def of_one_row(predicate: str) -> bool:
    """Return whether a predicate depends on one row's values alone, without those that its source sets."""
    others = ("SELECT", "candles", "random", "event_time", "recv_time", "source")
    return not any(word in predicate for word in others)


class Live:
    """A lake with a live recorder.

    Args:
        copies: a directory for copies of it; on the same disk.
    """

    def __init__(self, store: LakeStore, recorder: Child, url: str, copies: Path) -> None:
        self.store = store
        self.asked = self.before = self.seen = 0
        self._recorder = recorder
        self._url = url
        self._copies = copies
        self._truth = duckdb.connect()
        self._truth.execute("SET TimeZone='UTC'")
        self._truth.register("nothing", CANDLES_SCHEMA.empty_table())
        self._truth.execute("CREATE TABLE candles AS FROM nothing")
        self._sent_until_ms = BEGIN_MS - DAY_MS

    def bracket(self, predicate: str) -> None:
        """Run a query; check that it has all earlier rows, and only rows that the exchange has sent."""
        sql = f"SELECT {KEY_AND_VALUES} FROM candles c WHERE {predicate}"
        logged = self.logged()
        before = self._before(sql)
        ours = rows_of(ask(self.store, sql, self.asked))
        now_ms = self._now_ms()
        sent = self._sent_by(now_ms, sql)
        keys = Counter(row[:KEY_PARTS] for row in ours.elements())
        assert keys.total() == len(keys), f"twice: {keys.most_common(3)}"
        assert not before - ours, f"lost: {list(before - ours)[:3]}"
        promised = {row[:KEY_PARTS] for row in sent} & logged
        assert promised <= keys.keys(), f"recorded, not seen: {list(promised - keys.keys())[:3]}"
        assert not ours - sent, f"never sent: {list(ours - sent)[:3]}"
        assert all(row[KEY_PARTS] <= now_ms for row in ours), "not over yet"  # type: ignore[operator]
        self.asked += 1
        self.before += len(before)
        self.seen += len(ours)

    def _before(self, sql: str) -> Rows:
        """Return plain DuckDB's answer over a copy, because it could read two versions of a replaced file."""
        with tempfile.TemporaryDirectory(dir=self._copies) as directory:
            for file in self.store.root.glob("market=*/*/*/*/*.parquet"):
                copied = Path(directory, file.relative_to(self.store.root))
                copied.parent.mkdir(parents=True, exist_ok=True)
                # A file is never written to once it has its name, only replaced: what is linked stays whole.
                while not copied.exists():
                    # A link fails if the file is replaced between the look-up and the link.
                    with contextlib.suppress(FileNotFoundError):
                        copied.hardlink_to(file)
            with contextlib.closing(plain_glob(Path(directory))) as plain:
                return rows_of(asked_plainly(plain, sql))

    def _sent_by(self, now_ms: int, sql: str) -> Rows:
        """Return the rows of a statement over all candles sent so far, and some still open."""
        while self._sent_until_ms <= now_ms:
            start_ms = self._sent_until_ms
            self._sent_until_ms += AHEAD_MS
            self._truth.register("arriving", candles_sent(start_ms, self._sent_until_ms))
            self._truth.execute("INSERT INTO candles FROM arriving")
        return rows_of(asked_plainly(self._truth, sql))

    def logged(self) -> set[tuple[object, ...]]:
        def begin_ms(text: str) -> int:
            return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)

        found = RECORDED.findall(self._recorder.logged())
        return {(*series, begin_ms(begin)) for *series, begin in found}

    def _now_ms(self) -> int:
        with urllib.request.urlopen(f"{self._url}/control") as answer:
            return int(json.load(answer)["now_ms"])


def candles_sent(start_ms: int, stop_ms: int) -> pa.Table:
    """Return the candles that the exchange sends for a range of begin times; other columns are null."""
    tables = []
    for market, symbol, interval in RECORDED_SERIES:
        said = Truth().arrays(market, symbol, interval, start_ms, stop_ms)
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
    subscriptions = [":".join(series) for series in RECORDED_SERIES]
    with (
        sandbox(directory, SPEED) as url,
        recording(directory, store.root, url, *subscriptions) as recorder,
        Compactions(store.root) as compactions,
    ):
        recorder.wait_for("flushed")
        live = Live(store, recorder, url, directory)
        yield live
        wait_until(lambda: len(live.logged()) > 200)
        print(f"meanwhile: {len(live.logged())} candles recorded")
        print(f"{live.asked} statements: {live.seen} rows seen, {live.before} of them in files before")
    # Only few of the first answers were in files before.
    assert live.asked < 10 or live.before > live.seen / 10
    compactions.folded()
    globbed = plain_glob(store.root)
    rows = rows_of(globbed.sql(f"SELECT {KEY_AND_VALUES} FROM candles").to_arrow_table())
    assert max(rows.values()) == 1
    assert live.logged() <= {row[:KEY_PARTS] for row in rows}


OF_ONE_ROW = [predicate for predicate in PREDICATES if of_one_row(predicate)]


def test_every_predicate_over_what_is_recorded_just_now(live: Live) -> None:
    """Each answer has all recorded rows, none twice, and none that was never sent."""
    assert len(OF_ONE_ROW) > 130
    many = len(OF_ONE_ROW) if LONGER_S else 15
    for _ in rounds():
        for predicate in random.sample(OF_ONE_ROW, many):
            with noted(predicate):
                live.bracket(predicate)


@BY_CHANCE
@given(predicate=FILTERS)
def test_any_filter_over_what_is_recorded_just_now(live: Live, predicate: str) -> None:
    """The same holds for any filter."""
    live.bracket(predicate.replace("event_time", "close"))
