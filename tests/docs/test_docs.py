"""README, CHANGELOG, CONTRIBUTING and docs name only commands, options, files and faults that exist."""

import functools
import re
from pathlib import Path

import click
import pytest

from lakewriter.binance.connect_limiter import ATTEMPTS_MAX, WINDOW_S
from lakewriter.candle import SCHEMA
from lakewriter.cli import COMMANDS, cli
from lakewriter.cli.option_values import HEATMAP_ROWS_SHOWN
from lakewriter.gap import LEFT, REASONS, UNEXPLAINED
from lakewriter.lake.compact import VERIFIED_NAME
from lakewriter.lake.exchange_limits import RATE_LIMITS_FILE, WEIGHT_DIRECTORY
from lakewriter.lake.forgotten import FORGOTTEN_FILE
from lakewriter.lake.gaps.ledgers import GAPS_DIRECTORY
from lakewriter.lake.instruments import INSTRUMENTS_DIRECTORY
from lakewriter.lake.journal_directories import JOURNAL_DIRECTORY
from lakewriter.lake.presence_cache import CACHE_NAME
from lakewriter.lake.root import STATE_DIRECTORY
from lakewriter.lake.segments import SEGMENT_BYTES_MAX
from lakewriter.lake.subscriptions import PERIODS_FILE
from lakewriter.market import MARKETS
from lakewriter.pictures.bars import CANDLES_MAX
from lakewriter.pictures.look import SIDE_MAX, SIDE_MIN
from lakewriter.query.macros import MACROS
from lakewriter.query.output.formats import FORMATS
from lakewriter.query.spark_source import slices
from lakewriter.query.statement.guard import TABLES
from lakewriter.recording import candle_queue, recorder
from lakewriter.recording.flushing import flusher, outage
from lakewriter.sandbox.faults.table import FAULTS
from lakewriter.subscription import parse_subscription
from lakewriter.web.app import REQUESTS_PER_S
from lakewriter.web.server import CONNECTIONS_MAX
from support.doc_commands import PAGES, command_lines, page_name
from support.running import REPOSITORY, TESTS

README_WORDS_MAX = 700
SENTENCE_WORDS_MAX = 20

page_of = pytest.mark.parametrize("page", PAGES, ids=page_name)


def command_named(name: str) -> click.Command:
    """Return the command of a command line; fail if it is unknown."""
    command = cli.get_command(click.Context(cli), name)
    assert command is not None, f"there is no command {name}"
    return command


def options_of(command: click.Command) -> set[str]:
    """Return the names of a command's options."""
    return {opt for parameter in command.params for opt in parameter.opts} | {"--help", "--version", "--lake"}


@functools.cache
def all_options() -> frozenset[str]:
    """Return the names of all commands' options."""
    return frozenset(option for name in COMMANDS for option in options_of(command_named(name)))


def spans(text: str) -> list[str]:
    """Return the texts between backticks, outside of code blocks."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))


@page_of
def test_command_lines_are_accepted(page: Path) -> None:
    """The command line accepts each command in a code block, and its subscriptions can be parsed."""
    for _, *words in command_lines(page.read_text()):
        context = cli.make_context("lakewriter", list(words))
        name = next(word for word in words if word in COMMANDS)
        command = command_named(name)
        rest = words[words.index(name) + 1 :]
        try:
            parsed = command.make_context(name, rest, parent=context)
        except click.exceptions.Exit as done:
            assert done.exit_code == 0, words
            continue
        if name in ("record", "backfill", "forget", "unsubscribe"):
            for subscription in parsed.params["subscriptions"]:
                parse_subscription(subscription)


def test_command_lines_are_found() -> None:
    """The checked commands include README's five and those for cron."""
    names = {words[1] for words in command_lines((REPOSITORY / "README.md").read_text())}
    assert {"record", "backfill", "query", "coverage", "verify"} <= names
    cron = command_lines((REPOSITORY / "docs" / "how-to" / "cron.md").read_text())
    assert ["lakewriter", "coverage", "--until", "now", "--lake", "/srv/candles"] in cron


@page_of
def test_options_in_prose_exist(page: Path) -> None:
    """Each command and option between backticks exists."""
    for span in spans(page.read_text()):
        if span == "lakewriter" or not span.startswith(("lakewriter ", "--")):
            continue
        first, *words = span.split(" ")
        if first.startswith("--"):
            assert first in all_options(), f"{page.name}: {span}"
            continue
        if words[0].startswith("-"):
            assert words[0] in options_of(cli)
            continue
        options = options_of(command_named(words[0]))
        given = {word for word in words if word.startswith("--")}
        assert given <= options, f"{page.name}: {span}"


@page_of
def test_files_exist(page: Path) -> None:
    """Each file that a page names or links to exists."""
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert target.startswith("https://") or (page.parent / target).exists(), target
    tests = {str(path.relative_to(TESTS)) for path in TESTS.rglob("test_*.py")}
    for span in spans(text):
        path = span.split(" ")[0]
        if re.fullmatch(r"(\w+/)?test_\w+\.py", span):
            assert span in tests, span
        elif re.match(r"(lakewriter|tests|benchmarks|docs|queries)/\S*$", path):
            assert (REPOSITORY / path).exists(), path


def test_make_targets_exist() -> None:
    """Each `make …` on a page is a target."""
    targets = re.findall(r"^([\w-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    for page in PAGES:
        for span in spans(page.read_text()):
            if span.startswith("make "):
                assert span.split()[1] in targets, f"{page.name}: {span}"


def test_saved_queries_are_listed() -> None:
    """The page on querying lists all files in queries/."""
    [listed] = re.findall(
        r"files in `queries/`: (.*)\.\n", (REPOSITORY / "docs" / "how-to" / "querying.md").read_text()
    )
    assert sorted(listed.replace("`", "").split(", ")) == sorted(
        path.stem for path in (REPOSITORY / "queries").glob("*.sql")
    )


def test_faults_are_the_sandboxs_or_cases() -> None:
    """Each case in the table of faults is a fault of the sandbox, or the name of a test."""
    text = (REPOSITORY / "docs" / "explanation" / "faults.md").read_text()
    table = text.partition("## Faults of the exchange")[2].partition("\n## ")[0]
    cases = (TESTS / "whole" / "test_faults.py").read_text()
    rows = [row.split("|")[3] for row in table.splitlines() if row.startswith("| ")][1:]
    names = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert len(names) > 30
    for name in names:
        assert name in FAULTS or name in cases, name


def first_cells(page: str, heading: str) -> list[str]:
    """Return the first cell of each row of the first table below a heading, without its own heading."""
    text = (REPOSITORY / page).read_text().partition(f"\n{heading}\n")[2]
    table = re.search(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert table, f"{page}: no table below {heading}"
    return [row.split("|")[1].strip() for row in table[0].splitlines()[2:]]


def names_in(cells: list[str]) -> list[str]:
    """Return the names between backticks in cells; of a function, the part before the parenthesis."""
    return [name for cell in cells for name in re.findall(r"`(\w+)[^`]*`", cell)]


def test_tables_of_names_are_complete() -> None:
    """The pages list all columns, reasons, SQL tables, functions, formats and faults, and no others."""
    columns = first_cells("docs/reference/on-disk.md", "## Partitions")
    assert [name for cell in columns for name in cell.split(", ")] == SCHEMA.names
    reasons = names_in(first_cells("docs/how-to/operating.md", "## Is it complete?"))
    assert sorted(reasons) == sorted([*REASONS, LEFT, UNEXPLAINED])
    assert sorted(names_in(first_cells("docs/reference/sql.md", "## Tables"))) == sorted(TABLES)
    assert sorted(names_in(first_cells("docs/reference/sql.md", "## Functions"))) == sorted(MACROS)
    querying = (REPOSITORY / "docs" / "how-to" / "querying.md").read_text()
    formats = re.search(r"`--format` is (.*?);", querying)
    assert formats and re.split(r", | or ", formats[1]) == list(FORMATS)
    for page in ("CHANGELOG.md", "docs/explanation/faults.md"):
        assert f"{len(FAULTS)} faults" in (REPOSITORY / page).read_text(), page


def test_limits_are_those_of_the_code() -> None:
    """The limits on their page equal the code's."""
    text = (REPOSITORY / "docs" / "reference" / "limits.md").read_text()
    rows = dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \|", text, re.MULTILINE))
    assert rows["queue"] == f"{candle_queue.QUEUE_CANDLES_MAX:,} candles"
    assert rows["buffer"] == f"{recorder.BUFFER_CANDLES_MAX:,} candles"
    assert rows["early flush"] == f"{flusher.FLUSH_CANDLES:,} candles"
    assert rows["buffer while no candle can be merged"] == f"{flusher.PARK_CANDLES:,} candles"
    assert rows["journal"].startswith(f"{recorder.JOURNAL_BYTES_MAX // 10**9} GB, ")
    assert rows["pause while an object store is away"] == (
        f"{outage.PAUSE_S_MIN:.0f} s, then twice as long, at most {outage.PAUSE_S_MAX:.0f} s"
    )
    assert rows["journal segment"] == f"{SEGMENT_BYTES_MAX >> 20} MiB"
    assert rows["HTTP"] == f"{CONNECTIONS_MAX} connections, {REQUESTS_PER_S:.0f} requests a second"
    assert rows["patience at a stop"].startswith(f"{recorder.STOP_PATIENCE_S:.0f} s ")
    assert rows["streams a connection"] == (
        f"{MARKETS['spot'].streams_max:,} on spot, {MARKETS['usdt_futures'].streams_max} on the futures"
    )
    assert rows["partitions of a read by Spark's source"] == (
        f"{slices.PARTITIONS_MAX:,} in all; {slices.SLICE_PARTITIONS_MAX}, or {slices.SLICE_ROWS_MAX:,} rows, in a task"
    )
    assert rows["candles of a chart"] == f"{CANDLES_MAX:,}"
    assert rows["side of a picture"] == f"{SIDE_MIN} to {SIDE_MAX:,} pixels"
    assert rows["series of a heat map on a terminal"] == str(HEATMAP_ROWS_SHOWN)
    assert rows["connection attempts"].startswith(f"{ATTEMPTS_MAX} in ") and WINDOW_S == 300


def test_every_place_below_the_root_is_described() -> None:
    """The page on the disk has each file and directory that the lake writes below _lakewriter."""
    named = " ".join(first_cells("docs/reference/on-disk.md", "## Every kind of file"))
    for place in (
        JOURNAL_DIRECTORY, GAPS_DIRECTORY, INSTRUMENTS_DIRECTORY, PERIODS_FILE, FORGOTTEN_FILE,
        WEIGHT_DIRECTORY, RATE_LIMITS_FILE, VERIFIED_NAME, CACHE_NAME,
    ):  # fmt: skip
        assert f"`{place.removeprefix(STATE_DIRECTORY + '/')}" in named, place


def test_every_folder_has_its_responsibility() -> None:
    """The page on the architecture has exactly one row per package."""
    cells = first_cells("docs/explanation/architecture.md", "## Layers")
    packages = (path.parent for path in (REPOSITORY / "lakewriter").glob("*/__init__.py"))
    assert sorted(cell.strip("`") for cell in cells) == sorted(f"lakewriter/{each.name}" for each in packages)


def test_readme_is_short() -> None:
    """README has at most its limit of words."""
    assert len((REPOSITORY / "README.md").read_text().split()) <= README_WORDS_MAX


def sentences(text: str) -> list[str]:
    """Return the sentences of a page's prose, its lists and its tables; code counts as one word."""
    prose = re.sub(r"^```.*?^```|^    .*$", "", text, flags=re.DOTALL | re.MULTILINE)
    prose = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", re.sub(r"`[^`]*`", "code", prose))
    blocks = re.split(r"\n\s*\n|\n(?= *[-*|#] ?| *\d+\. )|\|", prose)
    return [part for block in blocks for part in re.split(r"(?<=[.!?:;])\s+", block.replace("**", ""))]


@page_of
def test_sentences_are_short(page: Path) -> None:
    """No sentence has more than 20 words, or a subject such as "nobody" or "whoever"."""
    for sentence in sentences(page.read_text()):
        words = [word for word in sentence.split() if re.search(r"\w", word)]
        assert len(words) <= SENTENCE_WORDS_MAX, sentence
        if '"nobody"' not in sentence:
            assert not {"nobody", "somebody", "whoever"} & {word.lower() for word in words}, sentence
