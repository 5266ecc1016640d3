"""Every command of README and docs runs, in the order of its page, against a sandbox and on a lake.

The commands of a page run in one directory, which has a lake of the last days. What a
command prints is compared with the page, without numbers, times and paths. `NOT_RUN`
has each command that does not run here, with the reason.
"""

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import lakewriter
from lakewriter.candle import Candle
from lakewriter.interval import DAY_MS, HOUR_MS, MINUTE_MS
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.unflushed import read_unflushed
from lakewriter.partition import split_by_partition
from lakewriter.sandbox.truth.candles import Truth
from lakewriter.series import Series
from support import warm_processes
from support.cookbook_lake import TRADES_CSV
from support.doc_commands import PAGES, Typed, masked, page_name, typed_commands
from support.ports import free_port
from support.running import PATIENCE_S, wait_until
from support.truth_lakes import truth_table

pytestmark = pytest.mark.slow

# Page, or "" for every page, and beginning of the command → why it does not run here. The
# command line parses each `lakewriter …` in any case (test_docs.py).
NOT_RUN = {
    ("docs/how-to/s3.md", ""): "needs an object store; cli/test_remote.py queries one",
    **{
        ("docs/how-to/two-recorders.md", command): "needs an object store; lake/test_two_hosts.py has one"
        for command in (
            "lakewriter record usdt_futures:*USDT:1m --lake s3://",
            "lakewriter status --lake s3://",
            "lakewriter coverage --until now --lake s3://",
            "lakewriter unsubscribe --host",
        )
    },
    ("docs/how-to/page.md", "lakewriter serve --lake s3://"): "needs an object store",
    ("docs/how-to/page.md", "lakewriter serve --http 0.0.0.0"): "tests listen on this machine alone",
    ("docs/how-to/page.md", "ssh"): "needs another machine",
    ("docs/how-to/operating.md", "lakewriter status --watch"): "needs a terminal; cli/test_status.py has one",
    ("docs/how-to/embedding.md", "python listen.py"): "whole/test_embedding.py runs the program",
    ("docs/how-to/backing-up.md", ""): "whole/test_upkeep.py runs the page, on places of its own",
    ("docs/how-to/moving.md", ""): "whole/test_upkeep.py runs the page, on places of its own",
    ("docs/how-to/upgrading.md", ""): "whole/test_upkeep.py runs the page, on places of its own",
    ("docs/tutorial/first-lake.md", "python3 -m venv"): "installs packages",
    ("docs/tutorial/first-lake.md", "~/lakewriter-venv/bin/pip"): "installs packages",
    ("", "pip install"): "installs packages",
    ("", "systemctl"): "needs a machine with systemd; tests/deploy checks the units",
    ("", "export"): "a setting of the reader's shell",
}

# A masked line of a log.
LOGGED = re.compile(r"0 0 (INFO|WARNING|ERROR) ")

# Commands that draw candles, or tell how a recorder is: the page shows others than those of here.
PICTURE_LINES_MIN = 5
PICTURES = ("lakewriter chart ", "lakewriter coverage --heatmap")
NEWS = ("curl -s http://127.0.0.1:9464/",)

# What a page says → what runs instead: places of one machine, and times that take too long.
INSTEAD = {
    "/srv/candles": "data",
    "9080": "SANDBOX_PORT",
    "9464": "HTTP_PORT",
    "--since 2017-08-17": "--since 3d",
    "/etc/lakewriter.toml": "lakewriter.toml",
    "--duration 20s": "--duration 9s",
    "--duration 10s": "--duration 4s",
}

# Options that a command gets here: no terminal answers its question, and its usual port may be taken.
ALSO = {"forget": ["--yes"], "serve": ["--http", "127.0.0.1:HTTP_PORT"]}

# Commands that ask the exchange; here it is the sandbox.
ASK_THE_EXCHANGE = ("record", "backfill", "verify", "doctor")

# Commands that exit 1 if they find something, which is no failure of the page.
CHECKS = ("coverage", "gaps", "verify", "doctor", "status")

# Programs of the machine that pages use.
PROGRAMS = ("cat", "curl", "find", "head", "ls", "mkdir", "python")

# A page waits for candles of a sandbox; a minute of it takes a second.
SLEEP_S_MAX = 3.0

SYMBOLS = ("BTCUSDT", "ETHUSDT", "BNBUSDT")

# Candles of this long before now are in the lake.
LAKE_MS = {"1s": 5 * MINUTE_MS, "1m": 2 * DAY_MS, "1h": 30 * DAY_MS, "4h": 60 * DAY_MS}


# Whatever minute they begin at, ten have a whole bucket of five.
MINUTES = 10


class Job:
    """A command that goes on while the page's next commands run."""

    def __init__(self, directory: Path, words: Sequence[str], environment: dict[str, str]) -> None:
        self.words = words
        self.out, self.err = (directory / f".{time.monotonic_ns()}.{name}" for name in ("out", "err"))
        with (
            self.out.open("wb") as stdout,
            self.err.open("wb") as stderr,
            Path(os.devnull).open("rb") as null,
        ):
            self.process = warm_processes.start(
                words,
                stdin=null.fileno(),
                stdout=stdout.fileno(),
                stderr=stderr.fileno(),
                cwd=directory,
                environment=environment,
            )

    def printed(self) -> str:
        return self.out.read_text() + self.err.read_text()

    def wait_for(self, pattern: str) -> None:
        """Wait until a text is printed; fail if the command ends before."""
        wait_until(lambda: re.search(pattern, self.printed()) is not None or self.process.poll() is not None)
        assert re.search(pattern, self.printed()), f"{shlex.join(self.words)}: {self.printed()}"

    def stop(self) -> None:
        """Stop it as Ctrl-C does; it has to end well."""
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(PATIENCE_S)
        assert code in (0, -signal.SIGKILL), f"{shlex.join(self.words)}: exit {code}: {self.printed()}"


class Reader:
    """Runs the commands of a page as a reader types them.

    Args:
        page: its path in the repository.
        directory: the working directory, with a lake in `data`.
        exchange: the URL of a sandbox, for commands that name no exchange.
    """

    def __init__(self, page: str, directory: Path, exchange: str) -> None:
        self.page, self.home, self.directory, self.exchange = page, directory, directory, exchange
        self.port = 0  # of the page's own sandbox, once it runs
        self.http_port = free_port()
        self.jobs: list[Job] = []
        self.programs: dict[str, str] = {}  # files that the page tells to save
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("LAKEWRITER_")},
            "HOME": str(directory),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "XDG_STATE_HOME": str(directory / ".state"),
            "no_proxy": "127.0.0.1",
        }

    def type(self, typed: Typed) -> None:
        """Run a command as the page shows it."""
        words = [self._here(word) for word in shlex.split(self._instead(shlex.join(typed.words)))]
        program, *arguments = words
        if program == "lakewriter":
            self._lakewriter(arguments, typed)
        elif program == "cd":
            self.directory /= arguments[0]
        elif program == "kill":
            self._kill(arguments)
        elif program == "sleep":
            time.sleep(min(float(arguments[0]), SLEEP_S_MAX))
        elif program in (*PROGRAMS, "source"):
            if program == "source":
                words = ["bash", "-c", " ".join(typed.words)]
            for name in self.programs.keys() & set(arguments):
                (self.directory / name).write_text(self.programs[name])
            done = subprocess.run(
                words,
                cwd=self.directory,
                env=self.environment,
                capture_output=True,
                text=True,
                timeout=PATIENCE_S,
                check=False,
            )
            assert done.returncode == 0, f"{shlex.join(words)}: {done.stderr}"
            self._compare(typed, done.stdout, done.stderr)
        else:
            pytest.fail(
                f"{self.page}: {program}: cannot run it; add it to PROGRAMS, or to NOT_RUN with a reason"
            )

    def _instead(self, text: str) -> str:
        for said, run in INSTEAD.items():
            text = text.replace(said, run)
        return text.replace("SANDBOX_PORT", str(self.port)).replace("HTTP_PORT", str(self.http_port))

    def _here(self, word: str) -> str:
        return f"{self.home}{word[1:]}" if word.startswith("~/") else word

    def _lakewriter(self, words: list[str], typed: Typed) -> None:
        # `--lake` may stand before the name.
        command = words[2] if words[0] == "--lake" else words[0]
        words += [self._instead(word) for word in ALSO.get(command, ()) if ALSO[command][0] not in words]
        if command in ASK_THE_EXCHANGE and "--exchange" not in words:
            words += ["--exchange", self.exchange]
        if command == "sandbox" and "--list-faults" not in words:
            self._sandbox(words, typed)
        elif command == "record" and "--duration" in words:
            self._record_for(words, typed)
        elif command == "record":
            self._on(words, typed, stays="--http" in words)
        elif command == "follow":
            self._follow(words, typed)
        elif command == "serve":
            self._on(words, typed, stays=True)
        else:
            self._to_its_end(command, words, typed)

    def _sandbox(self, words: list[str], typed: Typed) -> None:
        for job in [each for each in self.jobs if each.words[0] == "sandbox"]:
            job.stop()
        words += [] if "--port" in words else ["--port", "0"]
        job = self._start(words)
        job.wait_for(r"http://127.0.0.1:\d+\n")
        self.port = int(job.out.read_text().split()[0].rpartition(":")[2])
        self._compare(typed, job.out.read_text(), job.err.read_text())

    def _start(self, words: list[str]) -> Job:
        job = Job(self.directory, words, self.environment)
        self.jobs.append(job)
        return job

    def _on(self, words: list[str], typed: Typed, *, stays: bool = False) -> None:
        """Run a command that goes on until it is stopped: here once it works, or with the page."""
        if "--http" in words:
            self._free_address()
        job = self._start(words)
        if words[0] == "record":
            self._wait_for_candles(job, words)
        else:
            job.wait_for(r"\S.*\n")
        if "&" not in typed.rest and not stays:
            job.stop()
            self.jobs.remove(job)
        self._compare(typed, job.out.read_text(), job.err.read_text())

    def _record_for(self, words: list[str], typed: Typed) -> None:
        """Record until there are candles of MINUTES, which takes longer than the page says on a busy machine."""
        place = words.index("--duration")
        job = self._start([*words[:place], *words[place + 2 :]])
        started_us, recorded = time.time_ns() // 1000, set[Candle]()

        def enough() -> bool:
            recorded.update(
                each for each in read_unflushed(self.directory / "data") if each.recv_us > started_us
            )
            counts = Counter(each.series for each in recorded if each.source == "stream")
            return bool(counts) and min(counts.values()) >= MINUTES

        wait_until(lambda: enough() or job.process.poll() is not None)
        job.stop()
        self.jobs.remove(job)
        self._compare(typed, job.out.read_text(), job.err.read_text())

    def _free_address(self) -> None:
        """Stop the job that has the page's address, as a reader has to."""
        for job in [each for each in self.jobs if "--http" in each.words]:
            job.stop()
            self.jobs.remove(job)

    def _follow(self, words: list[str], typed: Typed) -> None:
        """Follow a recorder until the first candle."""
        if not any(job.words[0] == "record" for job in self.jobs):
            recorder = ["record", "spot:BTCUSDT:1m", "usdt_futures:BTCUSDT:1m", "--exchange", self.exchange]
            self._wait_for_candles(self._start(recorder), recorder)
        job = self._start(words)
        output = self.directory / words[words.index("-o") + 1] if "-o" in words else job.out
        wait_until(
            lambda: (output.exists() and b"\n" in output.read_bytes()) or job.process.poll() is not None
        )
        job.stop()
        self.jobs.remove(job)
        lines = output.read_text().splitlines()
        assert all(json.loads(line)["symbol"] for line in lines) and lines, job.printed()
        self._pipe(typed, output.read_text())

    def _pipe(self, typed: Typed, stdout: str) -> None:
        """Give what a command printed to what stands after it, a file or another program."""
        match typed.rest:
            case [">", name] if not name.startswith("/"):
                (self.directory / name).write_text(stdout)
            case ["|", program, *arguments] if shutil.which(program):
                subprocess.run([program, *arguments], input=stdout, cwd=self.directory, text=True, check=True)

    def _wait_for_candles(self, job: Job, words: list[str]) -> None:
        """Wait until a recorder has candles in its journal."""
        lake = self.directory / (words[words.index("--lake") + 1] if "--lake" in words else "data")
        job.wait_for(r"recording \d+ series")
        wait_until(
            lambda: (
                any(
                    each.stat().st_size
                    for each in lake.glob(f"_lakewriter/journal/*-{job.process.pid}-*/*.ndjson")
                )
                or job.process.poll() is not None
            )
        )
        assert job.process.poll() is None, job.printed()

    def _kill(self, arguments: list[str]) -> None:
        [job] = [self.jobs[int(number) - 1] for number in re.findall(r"%(\d+)", " ".join(arguments))]
        if "-9" in arguments:
            job.process.kill()
            job.process.wait(PATIENCE_S)
        else:
            job.stop()

    def _to_its_end(self, command: str, words: list[str], typed: Typed) -> None:
        done = warm_processes.run(
            words, stdin=b"", cwd=self.directory, environment=self.environment, timeout_s=PATIENCE_S
        )
        stdout, stderr = done.stdout.decode(), done.stderr.decode()
        said = f"{self.page}: lakewriter {shlex.join(words)}: exit {done.returncode}\n{stderr}"
        assert done.returncode in ((0, 1) if command in CHECKS else (0,)), said
        assert "Traceback" not in stderr, said
        self._pipe(typed, stdout)
        self._compare(typed, stdout, stderr)

    def _compare(self, typed: Typed, *outputs: str) -> None:
        """Check that the page's lines are printed, in their order, on either stream.

        Lines of a log may have another order: a recorder does several things at once.
        """
        line = " ".join(typed.words)
        if line.startswith(NEWS):
            assert outputs[0].strip()
            return
        if line.startswith(PICTURES):
            assert not typed.printed or outputs[0].count("\n") > PICTURE_LINES_MIN
            return
        left = [[masked(line) for line in output.split("\n")] for output in outputs]
        before = ""
        for line in typed.printed:
            wanted = masked(line)
            # Rows that differ in numbers alone: their count differs as well.
            if wanted in ("", "…", before):
                continue
            before = wanted
            for lines in left:
                if wanted in lines:
                    at = lines.index(wanted)
                    del lines[at if LOGGED.match(wanted) else 0 : at + 1]
                    break
            else:
                pytest.fail(
                    f"{self.page}: {shlex.join(typed.words)} does not print\n{line}\nbut\n{''.join(outputs)}"
                )

    def leave(self) -> None:
        """Stop what still runs, the newest first."""
        for job in reversed(self.jobs):
            job.stop()


@pytest.fixture(scope="module")
def exchange(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start a sandbox of six symbols in each market, and return its URL."""
    directory = tmp_path_factory.mktemp("exchange")
    words = ["sandbox", "--port", "0", "--speed", "60", "--symbols", "6"]
    job = Job(directory, words, dict(os.environ))
    job.wait_for("http://")
    yield job.out.read_text().split()[0]
    job.stop()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, exchange: str) -> Path:
    """Return a directory with what pages expect: a lake, and files of other tools."""
    home = tmp_path_factory.mktemp("prepared")
    store, truth = LakeStore.create(str(home / "data"), "test"), Truth()
    now_ms = int(time.time() * 1000) // MINUTE_MS * MINUTE_MS
    wanted = [Series("spot", symbol, "1m") for symbol in SYMBOLS]
    wanted += [
        Series("usdt_futures", "BTCUSDT", "1m"),
        Series("spot", "BTCUSDT", "1h"),
        Series("spot", "BTCUSDT", "1s"),
    ]
    wanted += [Series("usdt_futures", "ETHUSDT", "4h")]
    for series in wanted:
        stop_ms = now_ms - now_ms % {"1h": HOUR_MS, "4h": 4 * HOUR_MS}.get(series.interval, MINUTE_MS)
        rows = truth_table(truth, series, stop_ms - LAKE_MS[series.interval], stop_ms)
        for partition, some in split_by_partition(series, rows):
            store.merge(partition, some)
    (home / "trades.csv").write_text(TRADES_CSV.format(btc=60_000, eth=3_000))
    frame = lakewriter.open_lake(home / "data").candles("usdt_futures", "BTCUSDT", "1m")
    frame.to_parquet(home / "usdt_futures_BTCUSDT_1m.pqt")
    for period, name in (("daily", "BTCUSDT-1m-2024-06-30.zip"), ("monthly", "BTCUSDT-1m-2024-05.zip")):
        path = f"data/spot/{period}/klines/BTCUSDT/1m/{name}"
        for target in (home / name, home / "archive" / path):
            target.parent.mkdir(parents=True, exist_ok=True)
            with urllib.request.urlopen(f"{exchange}/{path}", timeout=PATIENCE_S) as answer:
                target.write_bytes(answer.read())
    for text in (page.read_text() for page in PAGES):
        for statement in re.findall(r"^```sql\n(-- [^\n]*\n-- :.*?)^```", text, re.DOTALL | re.MULTILINE):
            (home / "sql").mkdir(exist_ok=True)
            (home / "sql" / "mine.sql").write_text(statement)
    return home


def reason_not_to_run(page: str, typed: Typed) -> tuple[str, str] | None:
    """Return the entry of NOT_RUN for a command."""
    line = " ".join(typed.words)
    return next((each for each in NOT_RUN if each[0] in (page, "") and line.startswith(each[1])), None)


# What a newcomer types; the other pages are for the long form.
FIRST_PAGES = ("README.md", "docs/tutorial/first-lake.md")
WITH_COMMANDS = [
    pytest.param(page, id=page_name(page), marks=() if page_name(page) in FIRST_PAGES else pytest.mark.long)
    for page in PAGES
    if typed_commands(page.read_text())
]


@pytest.mark.parametrize("page", WITH_COMMANDS)
def test_the_commands_of_a_page_run(page: Path, tmp_path: Path, prepared: Path, exchange: str) -> None:
    """Each command of the page ends well, and prints what the page shows."""
    text, directory = page.read_text(), tmp_path / "home"
    shutil.copytree(prepared, directory)
    reader = Reader(page_name(page), directory, exchange)
    reader.programs = dict(
        re.findall(r"[Ss]ave (?:this|it) as `([\w.]+)`.*?^```\w+\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    )
    with contextlib.ExitStack() as stack:
        stack.callback(reader.leave)
        for typed in typed_commands(text):
            if reason_not_to_run(reader.page, typed) is None:
                reader.type(typed)


def test_statements_of_pages_run(prepared: Path) -> None:
    """Each statement in a block of SQL runs on a lake; those for other engines have their own tests."""
    lake, count = lakewriter.open_lake(prepared / "data"), 0
    blocks = [
        block
        for page in PAGES
        for block in re.findall(r"^```sql\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    ]
    for block in blocks:
        if block.startswith("-- DuckDB") or "\n-- :" in block:
            continue
        for statement in filter(str.strip, re.split(r";\n", block)):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", lakewriter.EmptyAnswerWarning)
                assert lake.query(statement).columns, statement
            count += 1
    assert count >= 5


def test_each_exception_is_needed() -> None:
    """Each entry of NOT_RUN, INSTEAD and ALSO is for a command of a page; the page may be planned."""
    typed = [(page_name(page), each) for page in PAGES for each in typed_commands(page.read_text())]
    used = {reason_not_to_run(page, each) for page, each in typed}
    there = set(map(page_name, PAGES))
    assert {entry for entry in NOT_RUN if entry[0] in there} <= used
    lines = [shlex.join(each.words) for _, each in typed]
    for part in (*INSTEAD, *(f"lakewriter {name}" for name in ALSO)):
        assert any(part in line for line in lines), part


def test_shells_of_pages_are_console_blocks() -> None:
    """A page shows commands in blocks that are run, and not in those of another name."""
    for page in PAGES:
        assert not re.findall(r"^ *```(?:sh|bash|shell|zsh)$", page.read_text(), re.MULTILINE), page.name
