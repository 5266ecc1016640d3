"""The line editor of `lakewriter shell`, with its keys, colours, completion and history."""

import contextlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import pyarrow as pa
from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app
from prompt_toolkit.auto_suggest import AutoSuggestFromHistory
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, ThreadedCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.lexers import PygmentsLexer
from prompt_toolkit.styles import Style
from pygments.lexers.sql import SqlLexer  # type: ignore[import-untyped]

from lakewriter.cli.shell.statements import (
    command_of,
    completions,
    innermost_call,
    is_blank,
    split_statements,
)
from lakewriter.errors import LakeError, UsageError
from lakewriter.interval import INTERVALS
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.root import state_path
from lakewriter.market import MARKETS
from lakewriter.partition import level_value
from lakewriter.query.macros import MACROS
from lakewriter.query.schema import COLUMNS
from lakewriter.query.statement.guard import TABLES
from lakewriter.regular_file import open_lock

PROMPT = "lake> "

# Maximum size of the history, which the editor reads as a whole. No typed history is larger.
HISTORY_BYTES_MAX = 16 * 1024 * 1024
MORE = "   .. "

_KEYWORDS = """ALL AND AS ASC ASOF JOIN BETWEEN BY CASE CAST CROSS DATE DESC DESCRIBE DISTINCT ELSE END EXCEPT
EXCLUDE EXISTS EXPLAIN ANALYZE FALSE FILTER FROM FULL GROUP HAVING IN INNER INTERSECT INTERVAL IS LEFT LIKE LIMIT
NOT NULL OFFSET ON OR ORDER OVER PARTITION PIVOT QUALIFY RIGHT SELECT SHOW SUMMARIZE THEN TIMESTAMPTZ TRUE UNION
UNPIVOT USING VALUES WHEN WHERE WINDOW WITH"""


def sql_words() -> list[tuple[str, str]]:
    """Return the names and then the keywords of SQL, each with its kind."""
    return [
        *((name, "table") for name in TABLES),
        *((name, kind.lower()) for name, kind in COLUMNS.items()),
        *((f"{name}(", "function") for name in MACROS),
        *((name, "") for name in _KEYWORDS.split()),
    ]


class _SqlCompleter(Completer):
    """A completer of commands, and of SQL with names from the lake.

    Args:
        store: the lake's store.
        commands: the commands, with their dots.
        own_tables: the tables of the user's files, by name.
        query_names: returns the names of the saved queries.
    """

    def __init__(
        self,
        store: LakeStore,
        commands: list[str],
        own_tables: Mapping[str, pa.Table],
        query_names: Callable[[], Iterable[str]],
    ) -> None:
        self._store = store
        self._commands = commands
        self._own_tables = own_tables
        self._query_names = query_names
        self._words = sql_words()

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterator[Completion]:  # noqa: ARG002
        before = document.text_before_cursor
        if before.startswith("."):
            name, space, typed = before.rpartition(" ")
            known = self._arguments(name)
            yield from (
                Completion(each, -len(typed))
                for each in (known if space else self._commands)
                if each.startswith(typed)
            )
            return
        own = [(name, "table") for name in self._own_tables]
        own += [(name, "column") for table in self._own_tables.values() for name in table.column_names]
        for found in completions(before, [*self._words, *own], self._values()):
            yield Completion(found.text, -found.typed, display_meta=found.what)

    def _arguments(self, command: str) -> Iterable[str]:
        """Return the names that a command takes. An unreadable directory must not disturb typing."""
        if command == ".help":
            return MACROS
        if command == ".schema":
            return (*TABLES, *self._own_tables)
        with contextlib.suppress(UsageError):
            return self._query_names() if command == ".run" else ()
        return ()

    def _values(self) -> Iterator[str]:
        """Yield values for quoted text. The lake's directories are listed on demand."""
        symbols: set[str] = set()
        # An unreadable lake must not disturb typing.
        with contextlib.suppress(LakeError, OSError):
            symbols = {
                symbol
                for market in self._store.storage.entries("").directories
                if level_value("market", market) is not None
                for name in self._store.storage.entries(market).directories
                if (symbol := level_value("symbol", name)) is not None
            }
        yield from sorted(symbols)
        yield from MARKETS
        yield from INTERVALS


def history_path() -> Path:
    """Return the path of the history's file."""
    return state_path("history")


class _QuietHistory(FileHistory):
    """A history that ignores errors when its file is written."""

    def store_string(self, string: str) -> None:
        try:
            super().store_string(string)
        except OSError:
            return


def _history() -> History:
    path = history_path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fd = open_lock(path)
        size = os.fstat(fd).st_size
        os.close(fd)
    except OSError:
        return InMemoryHistory()
    if size > HISTORY_BYTES_MAX:
        return InMemoryHistory()
    return _QuietHistory(str(path))


def is_complete(text: str) -> bool:
    """Return whether Enter runs the text instead of starting a new line."""
    statements, rest = split_statements(text)
    return bool(command_of(text)) or is_blank(text) or (bool(statements) and is_blank(rest))


def toolbar_text(before: str) -> str:
    """Return the signature of the function whose arguments surround the cursor, or general help."""
    macro = MACROS.get(innermost_call(before))
    if macro:
        # The defaults of since and until would take the space of the other parameters.
        return re.sub(r"'\d{4}-\d\d-\d\d'", "…", macro.signature)
    return r"times are UTC   \G instead of ; shows one value on each line   .help"


def _keys() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("enter")
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.complete_state and buffer.complete_state.current_completion:
            buffer.complete_state = None
        elif is_complete(buffer.text):
            buffer.validate_and_handle()
        else:
            buffer.insert_text("\n")

    @keys.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    return keys


def prompt_session(
    store: LakeStore,
    commands: list[str],
    own_tables: Mapping[str, pa.Table],
    query_names: Callable[[], Iterable[str]],
) -> "PromptSession[str]":
    """Return the line editor for statements and commands.

    Args:
        own_tables: the tables of the user's files, by name. They may change meanwhile.
        query_names: returns the names of the saved queries.
    """
    return PromptSession(
        PROMPT,
        multiline=True,
        prompt_continuation=MORE,
        lexer=PygmentsLexer(SqlLexer),
        completer=ThreadedCompleter(_SqlCompleter(store, commands, own_tables, query_names)),
        auto_suggest=AutoSuggestFromHistory(),
        history=_history(),
        key_bindings=_keys(),
        bottom_toolbar=lambda: toolbar_text(get_app().current_buffer.document.text_before_cursor),
        style=Style.from_dict({"bottom-toolbar": "noreverse fg:ansibrightblack"}),
    )
