"""README, CHANGELOG, CONTRIBUTING and docs name what is there: commands, options, files, faults."""

import re
import shlex
from pathlib import Path

import click
import pytest
from running import REPOSITORY

from lakewriter.cli import COMMANDS, cli
from lakewriter.sandbox.faults.table import FAULTS
from lakewriter.subscription import parse_subscription

README_WORDS_MAX = 700
SENTENCE_WORDS_MAX = 20

PAGES = [
    *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((REPOSITORY / "docs").rglob("*.md")),
]
page_of = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))

# What ends a command in a line of a shell: a pipe, a redirection, the background.
_END = re.compile(r"^([|&;]|[0-9]?>)")


def command_lines(text: str) -> list[list[str]]:
    """Return the words of each `lakewriter …` in the consoles and indented lines of a page."""
    consoles = re.findall(r"^```console\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    shells = [
        f"{line}\n{rest}"
        for console in consoles
        for line, rest in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", console, re.MULTILINE)
    ]
    cron = re.findall(r"^    (?:\S+ ){5} *(lakewriter .*)$", text, re.MULTILINE)
    return [words for shell in [*shells, *cron] if (words := _words(shell)) and words[0] == "lakewriter"]


def _words(shell: str) -> list[str]:
    """Return the words of the first command of a shell's input; output may follow it."""
    lines = shell.split("\n")
    for count in range(1, len(lines) + 1):
        if lines[count - 1].endswith("\\"):
            continue
        try:
            words = shlex.split("\n".join(lines[:count]).replace("\\\n", " "), comments=True)
        except ValueError:
            continue  # a quote is open
        end = next((at for at, word in enumerate(words) if _END.match(word)), len(words))
        return words[:end]
    raise AssertionError(f"no whole command: {shell}")


def command_named(name: str) -> click.Command:
    """Return the command line's command; fail if there is none."""
    command = cli.get_command(click.Context(cli), name)
    assert command is not None, f"there is no command {name}"
    return command


def options_of(command: click.Command) -> set[str]:
    """Return the names of a command's options."""
    return {opt for parameter in command.params for opt in parameter.opts} | {"--help", "--version", "--lake"}


def spans(text: str) -> list[str]:
    """Return what stands between backticks, outside of code blocks."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))


@page_of
def test_command_lines_are_accepted(page: Path) -> None:
    """The command line takes each command in a code block; subscriptions in it can be read."""
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
    """Every command of the five in README, and the lines for cron, are among those that are checked."""
    names = {words[1] for words in command_lines((REPOSITORY / "README.md").read_text())}
    assert {"record", "backfill", "query", "coverage", "verify"} <= names
    cron = command_lines((REPOSITORY / "docs" / "operating.md").read_text())
    assert ["lakewriter", "coverage", "--until", "now", "--lake", "/srv/candles"] in cron


@page_of
def test_options_in_prose_exist(page: Path) -> None:
    """Each command and option between backticks is one of the command line's."""
    known = {option for name in COMMANDS for option in options_of(command_named(name))}
    for span in spans(page.read_text()):
        if span == "lakewriter" or not span.startswith(("lakewriter ", "--")):
            continue
        first, *words = span.split(" ")
        if first.startswith("--"):
            assert first in known, f"{page.name}: {span}"
            continue
        if words[0].startswith("-"):
            assert words[0] in options_of(cli)
            continue
        options = options_of(command_named(words[0]))
        given = {word for word in words if word.startswith("--")}
        assert given <= options, f"{page.name}: {span}"


@page_of
def test_files_exist(page: Path) -> None:
    """Each file of the repository that a page names or links to is there."""
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert target.startswith("https://") or (page.parent / target).exists(), target
    tests = {path.name for path in (REPOSITORY / "tests").rglob("*.py")}
    for span in spans(text):
        path = span.split(" ")[0]
        if re.match(r"(lakewriter|tests|benchmarks|docs|queries)/\S*$", path):
            assert (REPOSITORY / path).exists(), path
        elif re.fullmatch(r"test_\w+\.py", span):
            assert span in tests, span


def test_make_targets_exist() -> None:
    """Each `make …` that a page names is a target."""
    targets = re.findall(r"^([\w-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    for page in PAGES:
        for span in spans(page.read_text()):
            if span.startswith("make "):
                assert span.split()[1] in targets, f"{page.name}: {span}"


def test_saved_queries_are_listed() -> None:
    """The page about querying lists the files in queries/, all of them."""
    [listed] = re.findall(r"files in `queries/`: (.*)\.\n", (REPOSITORY / "docs" / "querying.md").read_text())
    assert sorted(listed.replace("`", "").split(", ")) == sorted(
        path.stem for path in (REPOSITORY / "queries").glob("*.sql")
    )


def test_faults_are_the_sandboxs_or_cases() -> None:
    """Each case in the table of the exchange's faults is a fault of the sandbox, or tested by that name."""
    text = (REPOSITORY / "docs" / "faults.md").read_text()
    table = text.partition("## Faults of the exchange")[2].partition("\n## ")[0]
    cases = next((REPOSITORY / "tests").rglob("test_faults.py")).read_text()
    rows = [row.split("|")[3] for row in table.splitlines() if row.startswith("| ")][1:]
    names = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert len(names) > 30
    for name in names:
        assert name in FAULTS or name in cases, name


def test_readme_is_short() -> None:
    """README is read in some minutes."""
    assert len((REPOSITORY / "README.md").read_text().split()) <= README_WORDS_MAX


def sentences(text: str) -> list[str]:
    """Return the sentences of a page's prose, its lists and its tables; code counts as one word."""
    prose = re.sub(r"^```.*?^```|^    .*$", "", text, flags=re.DOTALL | re.MULTILINE)
    prose = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", re.sub(r"`[^`]*`", "code", prose))
    blocks = re.split(r"\n\s*\n|\n(?= *[-*|#] ?| *\d+\. )|\|", prose)
    return [part for block in blocks for part in re.split(r"(?<=[.!?:;])\s+", block.replace("**", ""))]


@page_of
def test_sentences_are_short(page: Path) -> None:
    """No sentence has more than 20 words, and none has a person without a name for its subject."""
    for sentence in sentences(page.read_text()):
        words = [word for word in sentence.split() if re.search(r"\w", word)]
        assert len(words) <= SENTENCE_WORDS_MAX, sentence
        if '"nobody"' not in sentence:
            assert not {"nobody", "somebody", "whoever"} & {word.lower() for word in words}, sentence
