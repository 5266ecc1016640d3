"""`lakewriter query`, which runs SQL or a saved query on the lake."""

import contextlib
import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from lakewriter.cli import DEFAULT_LAKE
from lakewriter.cli.query_values import parsed_params, queries_directory
from lakewriter.cli.terminal import (
    ignore_broken_pipe,
    read_text,
    standard_input,
    standard_output,
    wrapped,
)
from lakewriter.errors import UsageError
from lakewriter.query.saved import SavedQuery, is_name, parse_query, saved_queries, saved_query

_EXAMPLE = 'lakewriter query "SELECT symbol, max(high) FROM candles GROUP BY symbol"'


def run(
    sql: str | None,
    sql_file: str | None,
    params: tuple[str, ...],
    table_files: tuple[str, ...],
    queries: str | None,
    format_name: str | None,
    output: str | None,
    force: bool,
    max_rows: int | None,
    no_pager: bool,
    timeout: str | None,
    memory_limit: str | None,
    list_saved: bool,
    lake: str | None,
) -> None:
    """Run the statement, and print its answer."""
    if list_saved:
        with ignore_broken_pipe(), standard_output():
            _show_saved(queries)
            _show_macros()
        return
    if output == "":
        raise UsageError("query: -o '' names no file", "-o FILE.csv")
    query = _parsed_query(sql, sql_file, queries)
    values = query.values(parsed_params(params, "lakewriter query vwap -p symbol=ETHUSDT"))
    path = None if output is None else Path(output)
    with _importing_for_answers():
        from lakewriter.cli.answer import Target

    target = Target(path, format_name, max_rows, paged=not no_pager, overwrite=force)
    _answer(lake or DEFAULT_LAKE, query.sql, values, target, table_files, (timeout, memory_limit or ""))


@contextlib.contextmanager
def _importing_for_answers() -> Iterator[None]:
    """Import the modules for an answer while the engine starts in a thread."""
    # Imports create many objects and no garbage. Garbage collection would take a tenth of the time.
    gc.disable()
    try:
        from lakewriter.query.engine import prefetch_engine

        prefetch_engine()
        yield
    finally:
        gc.enable()


def _answer(
    lake: str,
    sql: str,
    values: dict[str, str],
    target: Any,
    table_files: tuple[str, ...],
    bounds: tuple[str | None, str],
) -> None:
    """Run a statement and print its answer.

    Args:
        table_files: the values of `--table`.
        bounds: the timeout and the memory limit, as the user typed them.
    """
    from lakewriter.cli.answer import kill_after, limit_memory, print_answer
    from lakewriter.lake.open import open_to_read
    from lakewriter.query.limits import QueryLimits

    timeout, memory = bounds
    timeout_s = None
    if timeout is not None:
        from lakewriter.config import parse_duration

        timeout_s = parse_duration(timeout) / 1000
    limits = QueryLimits(timeout_s=timeout_s, memory=memory)
    with kill_after(timeout_s):
        store = open_to_read(lake)
        limit_memory(memory)
        tables = {}
        if table_files:
            from lakewriter.cli.table_files import read_table_files

            tables = read_table_files(table_files)
        print_answer(store, sql, values, target, limits, tables)


def _parsed_query(sql: str | None, sql_file: str | None, queries: str | None) -> SavedQuery:
    if (sql is None) == (sql_file is None):
        what = "no SQL given" if sql is None else "SQL is given twice, as an argument and with -f"
        raise UsageError(f"query: {what}", _EXAMPLE)
    if sql_file is not None:
        return parse_query(Path(sql_file).stem, read_text("query", sql_file, "lakewriter query -f FILE.sql"))
    assert sql is not None
    if sql == "-":
        try:
            return parse_query("-", standard_input("query", _EXAMPLE).read().decode())
        except UnicodeDecodeError:
            raise UsageError("query: standard input is not UTF-8 text", _EXAMPLE) from None
    if is_name(sql):
        return saved_query(sql.strip(), queries_directory(queries))
    return parse_query("SQL", sql)


def _show_saved(queries: str | None) -> None:
    for query in saved_queries(queries_directory(queries)):
        click.echo(wrapped(f"{query.name}  {query.title}", hanging=len(query.name) + 2))
        width = max((len(f"{p.name}={p.default}") for p in query.parameters), default=0)
        for parameter in query.parameters:
            given = f"{parameter.name}={parameter.default}"
            click.echo(wrapped(f"{given:{width}}  {parameter.what}".rstrip(), 4, 4 + width + 2))


def _show_macros() -> None:
    from lakewriter.query.macros import MACROS

    click.echo("\nIn SQL, after FROM:")
    for macro in MACROS.values():
        click.echo(wrapped(macro.signature, hanging=8))
        click.echo(wrapped(macro.what, 4, 4))
        click.echo(wrapped(macro.columns, 4, 4))
