"""`lakewriter shell`, which reads statements and commands, and prints their answers."""

import contextlib
import shlex
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import click

from lakewriter import __version__
from lakewriter.cli import DEFAULT_LAKE
from lakewriter.cli.query_values import parsed_params, queries_directory
from lakewriter.cli.shell.statements import LINE_MARK, command_of, is_blank, split_statements
from lakewriter.cli.terminal import finished_report, read_text, standard_input, wrapped
from lakewriter.errors import LakewriterError, UsageError
from lakewriter.query.output.formats import text_formats, text_formats_explained
from lakewriter.query.saved import SavedQuery, saved_queries, saved_query

_HELP = f"""\
SQL ends with a semicolon, or with \\G for one value on each line; Alt-Enter runs it without either.
Ctrl-C stops a statement, Ctrl-D quits. Times are UTC.
.help [FUNCTION]       show this help, or the usage of a function of .tables
.mode FORMAT           {text_formats_explained()}
.once [--force] FILE   write the next answer to a new file: .csv, .xlsx, .parquet, .json, .md …
.queries               show the saved queries
.quit                  quit
.read FILE             run the statements of a file
.run NAME [P=VALUE …]  run a saved query
.schema [TABLE]        show the columns of a table, or of all
.table NAME FILE       read a file as a table: .csv, .tsv, .ndjson, .json, .parquet, .arrow
.tables                show the tables, and the functions after FROM
.timer on|off          show how long each statement took"""

# Columns of the commands in the help.
_HELP_INDENT = 23

_COMMANDS = [line.split()[0] for line in _HELP.splitlines() if line.startswith(".")]

# Maximum depth of nested files. A file that reads itself would recurse endlessly.
_READ_DEPTH_MAX = 8


NO_VALUES: Mapping[str, Any] = {}


class _Quit(Exception):  # noqa: N818 - no error
    """The request of the user to quit."""


class Shell:
    """An interpreter of statements and commands.

    Args:
        lake: the lake's URI.
        paged: whether long tables go to a pager.
        table_files: the values of `--table`.
        queries: the user's directory of saved queries; None is the config's.

    Attributes:
        tables: the tables of the user's files, by name.
    """

    def __init__(
        self, lake: str, *, paged: bool, table_files: tuple[str, ...] = (), queries: str | None = None
    ) -> None:
        from lakewriter.lake.open import open_to_read

        self.tables: dict[str, Any] = {}
        if table_files:
            from lakewriter.cli.table_files import read_table_files

            self.tables = read_table_files(table_files)
        self.store = open_to_read(lake, keep_listings=True)
        self._paged = paged
        self._queries = queries
        self._mode = "table"
        self._timer = False
        self._once: Path | None = None
        self._overwrite = False
        self._depth = 0
        self._actions: dict[str, Callable[[str], None]] = {
            ".help": self._help,
            ".mode": self._set_mode,
            ".once": self._set_once,
            ".queries": self._show_queries,
            ".read": self._read,
            ".run": self._run_saved,
            ".schema": self._schema,
            ".table": self._table,
            ".tables": self._tables,
            ".timer": self._set_timer,
        }

    def run(self, text: str) -> None:
        """Run a command, or the statements of a text. The last statement needs no semicolon.

        Raises:
            LakewriterError: if a statement fails. The statements after it are not run.
        """
        command = command_of(text)
        if command:
            self._command(command)
            return
        statements, rest = split_statements(text)
        for sql in [*statements, *([] if is_blank(rest) else [rest])]:
            self._statement(sql)

    def _statement(self, sql: str, values: Mapping[str, Any] = NO_VALUES) -> None:
        from lakewriter.cli.answer import Target, print_answer

        began_s = time.monotonic()
        path, self._once = self._once, None
        mode = None if path else "line" if sql.endswith(LINE_MARK) else self._mode
        target = Target(
            path,
            mode,
            None,
            paged=self._paged,
            overwrite=self._overwrite,
            all_columns_hint=r"\G instead of ; shows all",
        )
        print_answer(self.store, sql.removesuffix(LINE_MARK), values, target, tables=self.tables)
        if self._timer:
            click.echo(f"{time.monotonic() - began_s:.3f} s", err=True)

    def _command(self, text: str) -> None:
        name, _, rest = text.rstrip("; ").partition(" ")
        if name in (".quit", ".exit"):
            raise _Quit
        if name not in self._actions:
            raise UsageError(f"{name}: unknown command", ".help lists the commands")
        self._actions[name](rest.strip())

    def _set_mode(self, text: str) -> None:
        self._mode = _one_of(".mode", text, text_formats())

    def _set_timer(self, text: str) -> None:
        self._timer = _one_of(".timer", text, ("on", "off")) == "on"

    def _set_once(self, text: str) -> None:
        self._overwrite = text.partition(" ")[0] == "--force"
        file = text.removeprefix("--force").strip() if self._overwrite else text
        if not file:
            raise UsageError(".once: needs a file", ".once FILE.csv")
        self._once = Path(_unquoted(file))

    def query_names(self) -> list[str]:
        """Return the names of the saved queries."""
        return [query.name for query in self._saved()]

    def _saved(self) -> list[SavedQuery]:
        return saved_queries(queries_directory(self._queries))

    def _show_queries(self, _text: str) -> None:
        _show(*(wrapped(f"{query.name}  {query.title}", hanging=4) for query in self._saved()))

    def _help(self, name: str) -> None:
        from lakewriter.query.macros import MACROS

        name = name.partition("(")[0].lower()
        if not name:
            _show(
                *(wrapped(line, hanging=_HELP_INDENT if line[0] == "." else 0) for line in _HELP.split("\n"))
            )
            return
        macro = MACROS[_one_of(".help", name, tuple(MACROS))]
        _show(wrapped(macro.signature, hanging=8), _indented(macro.what), _indented(macro.columns))

    def _tables(self, _text: str) -> None:
        from lakewriter.query.macros import MACROS
        from lakewriter.query.statement.guard import TABLES

        _show(*TABLES, *self.tables)
        _show(*(line for macro in MACROS.values() for line in (macro.call, _indented(macro.what))))

    def _schema(self, table: str) -> None:
        from lakewriter.query.statement.guard import TABLES

        known = (*TABLES, *self.tables)
        for name in [_one_of(".schema", table, known)] if table else known:
            _show(f"{name}:")
            self._statement(f"SELECT column_name, column_type FROM (DESCRIBE {name})")  # noqa: S608 - a checked name

    def _table(self, text: str) -> None:
        from lakewriter.cli.table_files import read_table_file

        name, _, file = text.partition(" ")
        if not file.strip():
            raise UsageError(".table: needs a name and a file", ".table trades trades.csv")
        table = read_table_file(name, _unquoted(file.strip()))
        self.tables[name.lower()] = table
        _show(f"{name.lower()}: {table.num_rows:,} rows: {', '.join(table.column_names)}")

    def _run_saved(self, text: str) -> None:
        try:
            name, *written = shlex.split(text)
        except ValueError:
            raise UsageError(".run: needs the name of a saved query", ".run vwap symbol=ETHUSDT") from None
        query = saved_query(name, queries_directory(self._queries))
        self._statement(query.sql, query.values(parsed_params(written, ".run vwap symbol=ETHUSDT")))

    def _read(self, name: str) -> None:
        if not name:
            raise UsageError(".read: needs a file", ".read FILE.sql")
        if self._depth == _READ_DEPTH_MAX:
            raise UsageError(f".read: {name}: files are nested more than {_READ_DEPTH_MAX} deep")
        text = read_text(".read", _unquoted(name))
        self._depth += 1
        try:
            for part in read_statements(iter(text.splitlines(keepends=True))):
                self.run(part)
        finally:
            self._depth -= 1


def _show(*lines: str) -> None:
    with finished_report():
        print(*lines, sep="\n")


def _unquoted(file: str) -> str:
    """Return a path without the quotes around it. A path with spaces needs none, but may have them."""
    quote = file[:1]
    return file[1:-1] if quote in ("'", '"') and len(file) > 2 and file.endswith(quote) else file


def _one_of(command: str, given: str, known: tuple[str, ...]) -> str:
    if given not in known:
        raise UsageError(f"{command}: {given or 'nothing'} is not one of {', '.join(known)}")
    return given


def _indented(text: str) -> str:
    """Return a text with indented lines that fit the terminal's width."""
    return wrapped(text, 4, 4)


def read_statements(lines: Iterator[str]) -> Iterator[str]:
    """Yield each command and statement as soon as its last line is read."""
    pending = ""
    for line in lines:
        if is_blank(pending) and command_of(line):
            yield line
            continue
        pending += line
        statements, rest = split_statements(pending)
        if statements:
            yield from statements
            pending = rest
    if not is_blank(pending):
        yield pending


def run(no_pager: bool, table_files: tuple[str, ...], queries: str | None, lake: str | None) -> None:
    """Read statements and commands, and print their answers, until the user quits or the input ends."""
    shell = Shell(lake or DEFAULT_LAKE, paged=not no_pager, table_files=table_files, queries=queries)
    if all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout)):
        _run_interactively(shell)
        return
    with contextlib.suppress(_Quit):
        for part in read_statements(_lines(standard_input("shell", "lakewriter shell < FILE.sql"))):
            shell.run(part)


def _lines(file: BinaryIO) -> Iterator[str]:
    try:
        for line in file:
            yield line.decode()
    except UnicodeDecodeError:
        raise UsageError("shell: standard input is not UTF-8 text") from None


def _warm_up(shell: Shell) -> None:
    import lakewriter.cli.answer  # noqa: F401
    from lakewriter.query.session import make_engine

    make_engine(shell.store)


def _run_interactively(shell: Shell) -> None:
    from lakewriter.cli.shell.prompt import prompt_session

    # Import modules and create the engine while the user types the first statement.
    threading.Thread(target=_warm_up, args=(shell,), name="warm-up").start()
    print(f"lakewriter {__version__}: {shell.store.name}   .help for help, Ctrl-D quits")
    session: Any = prompt_session(shell.store, _COMMANDS, shell.tables, shell.query_names)
    while True:
        try:
            text = session.prompt()
        except KeyboardInterrupt:
            continue
        except EOFError:
            return
        try:
            shell.run(text)
        except _Quit:
            return
        except KeyboardInterrupt:
            click.echo("stopped", err=True)
        except LakewriterError as error:
            click.echo(error.what, err=True)
            if error.hint:
                click.echo(f"  {error.hint}", err=True)
