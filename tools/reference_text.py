"""The parts of the reference that are made of the code: commands, config, SQL.

Each function returns Markdown. The command line, the config's struct, the SQL engine and
the saved queries are asked, so the reference cannot differ from them.
"""

import html
import inspect
import json
import re
import tempfile
import typing
import warnings
from collections.abc import Iterator

import click
import msgspec

import lakewriter
from lakewriter.cli import COMMANDS, cli
from lakewriter.config import Config, Endpoints
from lakewriter.lake.lake import LakeStore
from lakewriter.query.macros import MACROS
from lakewriter.query.saved import saved_queries
from lakewriter.query.statement.guard import TABLES

# Short names of SQL types, as the docs write them.
_SHORT_TYPES = {"TIMESTAMP WITH TIME ZONE": "TIMESTAMPTZ"}


def commands() -> str:
    """Return a section for each command: usage, help, examples, options."""
    root = click.Context(cli, info_name="lakewriter", **cli.context_settings)
    sections = []
    for name in COMMANDS:
        command = cli.get_command(root, name)
        assert command is not None, name
        sections += _command(click.Context(command, info_name=name, parent=root))
    return "\n\n".join(sections)


def _command(context: click.Context) -> Iterator[str]:
    command = context.command
    yield f"## {context.info_name}"
    yield _code("text", command.get_usage(context).removeprefix("Usage: "))
    for block in re.split(r"\n\s*\n", inspect.cleandoc(command.help or "")):
        if block.startswith("\b"):
            lines = block.removeprefix("\b").strip("\n")
            yield _code("sh" if "lakewriter " in lines else "text", inspect.cleandoc(lines))
        else:
            yield _escaped(" ".join(block.split()))
    options = [each for each in command.get_params(context) if isinstance(each, click.Option)]
    records = [found for each in options if (found := each.get_help_record(context))]
    yield _table(("option", ""), ((f"`{names}`", _escaped(meaning)) for names, meaning in records))
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None, name
            yield from _command(
                click.Context(inner, info_name=f"{context.info_name} {name}", parent=context.parent)
            )


def config() -> str:
    """Return a table of the keys of lakewriter.toml, and one of the keys of a market."""
    top = _table(("key", "value", "default", ""), _keys(Config))
    return (
        f"{top}\n\n## A market\n\nKeys of `[markets.NAME]`; NAME is `spot`, `usdt_futures` or `coin_futures`.\n\n"
        + _table(("key", "value", "default", ""), _keys(Endpoints))
    )


def _keys(struct: type[msgspec.Struct]) -> Iterator[tuple[str, ...]]:
    meanings = _arguments(struct)
    for field in msgspec.structs.fields(struct):
        default = "" if field.default in (None, (), msgspec.NODEFAULT) else f"`{_toml(field.default)}`"
        yield f"`{field.encode_name}`", _toml_type(field.type), default, _sentence(meanings[field.name])


def _toml(value: object) -> str:
    """Return a text, number or truth value as TOML, which writes these as JSON does."""
    return json.dumps(value, ensure_ascii=False)


def _toml_type(kind: object) -> str:
    names = {str: "text", int: "number", float: "number", bool: "true or false"}
    given = [each for each in typing.get_args(kind) if each not in (type(None), ...)]
    if typing.get_origin(kind) in (tuple, list):
        return "list of text"
    if typing.get_origin(kind) is dict:
        return "table"
    return " or ".join(dict.fromkeys(names.get(each, "table") for each in given or [kind]))


def _arguments(struct: type) -> dict[str, str]:
    """Return the meaning of each field, from the section `Args:` of a docstring."""
    section = (inspect.getdoc(struct) or "").partition("Args:\n")[2].partition("\n\n")[0]
    found = re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", section, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in found}


def tables() -> str:
    """Return the columns and types of each SQL table, as the engine describes them."""
    with tempfile.TemporaryDirectory() as directory:
        LakeStore.create(directory, "reference")
        lake = lakewriter.open_lake(directory)
        warnings.simplefilter("ignore", lakewriter.EmptyAnswerWarning)
        return "\n\n".join(
            f"### {name}\n\n"
            + _table(("column", "type"), (_described(row) for row in lake.query(f"DESCRIBE {name}")))
            for name in TABLES
        )


def _described(row: tuple[typing.Any, ...]) -> tuple[str, str]:
    return f"`{row[0]}`", _SHORT_TYPES.get(row[1], row[1])


def functions() -> str:
    """Return a section for each function for FROM: signature, rows, columns."""
    sections = []
    for macro in MACROS.values():
        sections += [f"### {macro.name}", _code("sql", macro.signature), _escaped(macro.what)]
        columns = re.split(r"; (?=\w+: )", macro.columns)
        sections.append(
            _table(("column", ""), (_column(text) for text in columns))
            if re.match(r"\w+: ", columns[0])
            else f"Columns: {_escaped(macro.columns)}."
        )
    return "\n\n".join(sections)


def _column(text: str) -> tuple[str, str]:
    name, _, meaning = text.partition(": ")
    return f"`{name}`", _escaped(meaning)


def queries() -> str:
    """Return a section for each saved query that is shipped: title, parameters, defaults."""
    sections = []
    for query in saved_queries(None):
        sections += [f"### {query.name}", _escaped(query.title)]
        if query.parameters:
            sections.append(
                _table(
                    ("parameter", "default", ""),
                    (
                        (f"`{each.name}`", f"`{each.default}`" if each.default else "", _escaped(each.what))
                        for each in query.parameters
                    ),
                )
            )
    return "\n\n".join(sections)


GENERATORS = {
    "commands": commands,
    "config": config,
    "tables": tables,
    "functions": functions,
    "queries": queries,
}


def _code(language: str, text: str) -> str:
    return f"```{language}\n{text}\n```"


def _table(head: tuple[str, ...], rows: typing.Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(text: str) -> str:
    """Return the text of a cell; a bar in code needs HTML, as no escape is read there."""
    if "|" in text and text.startswith("`"):
        text = f"<code>{html.escape(text.strip('`'))}</code>"
    return text.replace("|", "&#124;")


def _sentence(text: str) -> str:
    return _escaped(text[0].upper() + text[1:])


def _escaped(text: str) -> str:
    """Return text in which only backticks are Markdown."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else re.sub(r"([*_<\[\]])", r"\\\1", part) for part in parts)
