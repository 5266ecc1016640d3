"""The history test: years from a faulty archive, interrupted again and again, while a recorder heals.

    PYTHONPATH=tests python -m crash.history --days 400 --symbols 10 --seed 7

A backfill of every symbol in four intervals is stopped or killed several times, and
started again each time. Meanwhile a recorder of the same lake records and heals the
same series, with the same weight budget. It is killed once. The faults are broken zips,
wrong or missing checksums, missing days, waits required by REST, and halts. At the end
the test checks:

- Each candle of the truth is in the lake with its true values, or in the ledger with a
  reason that the faults explain.
- `lakewriter coverage` is clean from the first day to now.
- No limit of the exchange was broken.
"""

import asyncio
import json
import random
import signal
import sys
import time
from asyncio.subprocess import Process
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import numpy as np

from crash import longrun
from lakewriter.candle import VALUE_COLUMNS
from lakewriter.interval import DAY_MS, HOUR_MS, MINUTE_MS
from lakewriter.lake.gaps.ledgers import read_gaps
from lakewriter.sandbox.faults.table import Fault
from lakewriter.sandbox.server import Sandbox, SandboxOptions, serve
from lakewriter.series import Series

SPEED = 60.0
START_MS = int(datetime(2026, 3, 2, 12, tzinfo=UTC).timestamp() * 1000)
INTERVALS = ("1m", "5m", "1h", "1d")

CONFIG = """
subscriptions = {subscriptions}
flush_every = "5s"
universe_every = "5s"
heal_limit = "2d"
"""


class History:
    """One run.

    Args:
        directory: the directory of the lake, the config and the logs.
        interruptions: of the backfill; the recorder starts at the second, and is killed halfway.
    """

    def __init__(
        self, directory: Path, seed: int, sandbox: Sandbox, *, days: int, symbols: int, interruptions: int
    ) -> None:
        self.interruptions = interruptions
        self.directory = directory
        self.lake = directory / "lake"
        self.sandbox = sandbox
        self.chance = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.errors: list[str] = []
        self.since_ms = START_MS // DAY_MS * DAY_MS - days * DAY_MS
        self.chosen = {
            "spot": sandbox.symbols("spot")[: symbols - 2 * (symbols // 3)],
            "usdt_futures": sandbox.symbols("usdt_futures")[: symbols // 3],
            "coin_futures": sandbox.symbols("coin_futures")[: symbols // 3],
        }
        self.series = [
            Series(market, symbol, interval)
            for market, names in self.chosen.items()
            for symbol in names
            for interval in INTERVALS
        ]
        self.subscriptions = [
            f"{market}:{','.join(names)}:{','.join(INTERVALS)}"
            for market, names in self.chosen.items()
            if names
        ]
        config = CONFIG.format(subscriptions=json.dumps(self.subscriptions))
        (directory / "lakewriter.toml").write_text(config)

    async def run(self) -> None:
        """Apply faults, backfill with interruptions, and record; then wait for both."""
        self._stage()
        refusing = asyncio.create_task(self._refuse())
        recorder: Process | None = None
        for interruption in range(self.interruptions):
            filling = await self._start("backfill", *self._since())
            await asyncio.sleep(self.chance.uniform(1.5, 5))
            if recorder is None and interruption == 1:
                recorder = await self._start("record", "--grace", "3m", "--quiet")
            if recorder is not None and interruption == (self.interruptions + 2) // 2:
                recorder.kill()
                await recorder.wait()
                recorder = await self._start("record", "--grace", "3m", "--quiet")
                self.counts["recorders killed"] += 1
            if filling.returncode is None:
                await self._interrupt(filling)
        began_s = time.monotonic()
        filling = await self._start("backfill", *self._since())
        await filling.wait()
        self.counts["seconds of the last run"] = round(time.monotonic() - began_s)
        if filling.returncode:
            self.errors.append(f"the backfill's exit is {filling.returncode}: {self._tail('backfill')}")
        refusing.cancel()
        await asyncio.gather(refusing, return_exceptions=True)
        assert recorder is not None
        await self._settled()
        await self._coverage("while the recorder lives")
        recorder.terminate()
        if await asyncio.wait_for(recorder.wait(), 120):
            self.errors.append(f"the recorder's exit is {recorder.returncode}: {self._tail('record')}")
        await self._coverage("after its end")

    def _stage(self) -> None:
        """Damage files permanently, and add halts."""
        for name, share, value in (
            ("archive_corrupt_zip", 0.01, 0),
            ("archive_corrupt_zip", 0.005, 1),
            ("archive_wrong_checksum", 0.005, 0),
            ("archive_missing_checksum", 0.005, 0),
            ("archive_missing_file", 0.01, 0),
            ("archive_missing_rows", 0.01, 0),
        ):
            self.sandbox.add_fault(Fault(name, share=share, value=value))
            self.counts[f"fault: {name}"] += 1
        # A halt that lasts is no proven reason yet, so each one ends before the first backfill.
        hours = (START_MS - self.since_ms) // HOUR_MS - 2
        for market in self.chosen:
            for _ in range(3):
                start_ms = self.since_ms + self.chance.randint(1, hours) * HOUR_MS
                halt = Fault("exchange_halt", market, start_ms=start_ms, stop_ms=start_ms + 90 * MINUTE_MS)
                self.sandbox.add_fault(halt)
                self.counts["fault: exchange_halt"] += 1

    async def _refuse(self) -> None:
        """Refuse calls and files for a second or two at a time, until cancelled."""
        while True:
            await asyncio.sleep(self.chance.uniform(2, 8))
            name = self.chance.choice(("rest_status", "archive_status"))
            status = self.chance.choice((429, 503))
            fault = Fault(name, value=status, retry_after_s=1 if status == 429 else 0)
            fault_id = self.sandbox.add_fault(fault)
            self.counts[f"fault: {name}"] += 1
            await asyncio.sleep(self.chance.uniform(0.5, 1.5))
            self.sandbox.remove_fault(fault_id)

    async def _interrupt(self, filling: Process) -> None:
        number = self.chance.choice((signal.SIGKILL, signal.SIGINT, signal.SIGTERM))
        began_s = time.monotonic()
        filling.send_signal(number)
        await filling.wait()
        self.counts[f"interrupted by {number.name}"] += 1
        took_ms = round((time.monotonic() - began_s) * 1000)
        self.counts["slowest stop, ms"] = max(self.counts["slowest stop, ms"], took_ms)

    def _since(self) -> tuple[str, ...]:
        return ("--since", f"{datetime.fromtimestamp(self.since_ms / 1000, UTC):%Y-%m-%d}")

    async def _start(self, command: str, *arguments: str) -> Process:
        with (self.directory / f"{command}.log").open("ab") as log:
            return await asyncio.create_subprocess_exec(
                sys.executable, "-m", "lakewriter", command, *arguments, "--lake", str(self.lake),
                "--config", str(self.directory / "lakewriter.toml"), "--exchange", self.sandbox.url,
                stdout=log, stderr=log, cwd=self.directory,
            )  # fmt: skip

    async def _settled(self) -> None:
        """Wait until all gaps but those of just closed candles are settled."""
        until_ms = self.sandbox.now_ms() + 8 * MINUTE_MS
        deadline_s = time.monotonic() + 180
        while self.sandbox.now_ms() < until_ms or self._pending():
            if time.monotonic() > deadline_s:
                self.errors.append("still pending")
                return
            await asyncio.sleep(0.5)

    def _pending(self) -> bool:
        recent_ms = self.sandbox.now_ms() - 8 * MINUTE_MS
        return any(gap.reason == "pending" and gap.start_ms < recent_ms for gap in read_gaps(self.lake))

    async def _coverage(self, when: str) -> None:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "lakewriter", "coverage", "--lake", str(self.lake),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await child.communicate()
        (self.directory / "coverage.txt").write_bytes(out)
        if child.returncode:
            self.errors.append(f"coverage {when}: exit {child.returncode}: {err.decode()[-300:]}")

    def _tail(self, command: str) -> str:
        return " | ".join((self.directory / f"{command}.log").read_text(errors="replace").splitlines()[-4:])

    def audit(self) -> None:
        """Compare the lake and the ledger with the truth, series by series."""
        reasons: dict[Series, dict[int, str]] = {}
        for gap in read_gaps(self.lake):
            begins = gap.series.grid.grid(gap.start_ms, gap.stop_ms)
            reasons.setdefault(gap.series, {}).update(dict.fromkeys(begins, gap.reason))
        with duckdb.connect() as connection:
            for series in self.series:
                self._audit(connection, series, reasons.get(series, {}))
        self.errors += [f"limit broken: {kind} {n}" for kind, n in self.sandbox.violations.items()]

    def _audit(self, connection: duckdb.DuckDBPyConnection, series: Series, reasons: dict[int, str]) -> None:
        market, symbol, interval = series
        path = f"{self.lake}/market={market}/symbol={symbol}/interval={interval}/*/*.parquet"
        found = connection.execute(
            f"SELECT epoch_ms(candle_begin_time) AS begin, * FROM read_parquet('{path}') ORDER BY 1"
        ).fetchnumpy()
        begins = found["begin"]
        stop_ms = int(begins[-1]) + 1
        true = self.sandbox.truth.arrays(*series, self.since_ms, stop_ms)
        exists = np.array(sorted(self.sandbox.expected(*series, self.since_ms, stop_ms)))
        self.counts["candles in the lake"] += len(begins)
        if len(np.unique(begins)) != len(begins):
            self.errors.append(f"{series}: candles twice")
        lost = np.setdiff1d(exists, begins)
        excess = np.setdiff1d(begins, exists)
        silent = set(series.grid.grid(self.since_ms, stop_ms)) - set(begins.tolist()) - reasons.keys()
        for what, some in (("lost", lost), ("that do not exist", excess), ("unexplained", sorted(silent))):
            if len(some):
                self.errors.append(f"{series}: {len(some)} candles {what}, like {int(some[0])}")
        absent = reasons.keys() - set(begins.tolist())
        self.counts["candles explained"] += len(absent)
        wrong = Counter(reasons[each] for each in absent if self.since_ms <= each < stop_ms)
        if wrong.keys() - {"exchange_halt"}:
            self.errors.append(f"{series}: {dict(wrong)} are no halts")
        there = np.isin(true["candle_begin_time"], begins)
        for name in VALUE_COLUMNS:
            ours = found[name][np.isin(begins, true["candle_begin_time"])]
            if not np.array_equal(ours, true[name][there]):
                self.errors.append(f"{series}: {name} is not the truth")

    def summary(self) -> str:
        """Return the outcome, with one number per line."""
        self.counts["errors"] = len(self.errors)
        return longrun.block(sorted(self.counts.items()))


async def main(directory: Path, seed: int, *, days: int, symbols: int, interruptions: int) -> bool:
    """Run the history test; return whether it found no error."""
    options = SandboxOptions(speed=SPEED, symbols=max(10, symbols), start_ms=START_MS, push_every_ms=2000)
    async with serve(options) as sandbox:
        history = History(directory, seed, sandbox, days=days, symbols=symbols, interruptions=interruptions)
        await history.run()
        await asyncio.to_thread(history.audit)
    print(history.summary())
    for error in history.errors[:40]:
        print(error, file=sys.stderr)
    return not history.errors


if __name__ == "__main__":
    parser = longrun.parser_of(__doc__)
    parser.add_argument("--days", type=int, default=400)
    parser.add_argument("--symbols", type=int, default=10, help="over three markets; each in four intervals")
    parser.add_argument("--interruptions", type=int, default=5, help="of the backfill; 3 or more")
    arguments = parser.parse_args()
    longrun.run(
        "history",
        arguments,
        lambda place: main(
            place,
            arguments.seed,
            days=arguments.days,
            symbols=arguments.symbols,
            interruptions=arguments.interruptions,
        ),
    )
