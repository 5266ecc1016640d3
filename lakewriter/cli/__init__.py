"""The command line, with two modules for each command.

`commands` has the declaration of a command: its options and its help. It imports no library
but click, so that `--help` is fast. `runs` has the work, and is imported when the command
runs. Options that several commands share are declared in modules whose names end with
`_options`, by the same rule.

Only this package imports click, prints, or exits. Data goes to stdout, and all other output
goes to stderr. The exit code is 0 for success, and 2 for wrong usage. It is 1 for a fault of
lakewriter or the data.
"""

import contextlib
import functools
import importlib
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import click
from click.shell_completion import CompletionItem

from lakewriter import __version__
from lakewriter.cli import stderr
from lakewriter.cli.default_lake import DEFAULT_LAKE as DEFAULT_LAKE
from lakewriter.cli.startup import check_machine, prepare_process, resource_shortage
from lakewriter.cli.state_dir import check_state_dir, state_dir_option
from lakewriter.errors import LakewriterError, UsageError, os_error_text, printable
from lakewriter.without_pandas import hide_pandas

# Command → its line in `lakewriter --help`, so that help imports no command.
COMMANDS = {
    "init": "Write a commented lakewriter.toml.",
    "doctor": "Check the machine, the lake and each endpoint.",
    "record": "Record closed candles until stopped.",
    "backfill": "Fetch history from the archive and REST.",
    "import": "Import files of candles into the lake.",
    "query": "Query the lake in SQL.",
    "follow": "Print each candle as soon as it is durable.",
    "shell": "Query the lake interactively, with history and completion.",
    "status": "Show the recorders, lag, gaps, size and disk; exit 1 if something needs you.",
    "serve": "Show a lake in a browser: candles, coverage, gaps, SQL.",
    "coverage": "Check that every candle is present or explained; made for cron.",
    "chart": "Draw the candles of a series, in the terminal or as a picture.",
    "gaps": "Show which candles are missing, and why.",
    "verify": "Check that the stored candles are right.",
    "copy": "Copy a lake into another one, or merge two; prove the copy.",
    "unsubscribe": "Unsubscribe series of an ended recorder on purpose.",
    "compact": "Fold, deduplicate and re-encode partitions; made for cron.",
    "forget": "Remove candles on purpose, and record it.",
    "flush": "Flush the journals of dead recorders into the lake.",
    "views": "Print statements that read the lake in other tools.",
    "completion": "Print a script for completion in bash, zsh or fish.",
    "sandbox": "Run a local server that speaks Binance's protocol.",
}


# The shell sets this variable to ask for completions.
COMPLETE_VARIABLE = "_LAKEWRITER_COMPLETE"

# Commands whose modules have another name; `import` is a keyword of Python.
_MODULES = {"import": "import_command"}


# The help imports no library that needs a check of the machine.
_HELP_OPTIONS = ("-h", "--help")


class _Commands(click.Group):
    """A group of commands that imports the declaration of a command when it is named."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"lakewriter.cli.commands.{_MODULES.get(cmd_name, cmd_name)}")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, and check the machine for it, unless its help is all that it prints.

        Raises:
            UsageError: if there is no such command; it names similar ones.
        """
        if not ctx.resilient_parsing and not args[0].startswith("-") and args[0] not in COMMANDS:
            raise UsageError(f"no such command: {args[0]}", _similar_commands(args[0]))
        name, command, rest = super().resolve_command(ctx, args)
        if not (ctx.resilient_parsing or any(each in _HELP_OPTIONS for each in rest)):
            check_machine()
        return name, command, rest

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
        """Complete a command's name, so that no command is imported for it."""
        if incomplete.startswith("-"):
            return click.Command.shell_complete(self, ctx, incomplete)
        return [
            CompletionItem(name, help=line) for name, line in COMMANDS.items() if name.startswith(incomplete)
        ]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _similar_commands(name: str) -> str:
    """Return a hint for a mistyped command."""
    import difflib

    similar = [each for each in COMMANDS if each.startswith(name)] or difflib.get_close_matches(
        name, COMMANDS
    )
    return f"did you mean {' or '.join(similar)}?" if similar else "lakewriter --help lists them"


def run_command(name: str, options: dict[str, Any]) -> None:
    """Import the work of a command, and run it.

    Args:
        name: the name of the command's module.
        options: the keyword arguments of its function `run`.
    """
    importlib.import_module(f"lakewriter.cli.runs.{name}").run(**options)


def lake_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--lake` and `--state-dir` to a command, and check that its lake uses the latter."""

    @functools.wraps(function)
    def checked(*arguments: Any, **options: Any) -> Any:
        check_state_dir(options["lake"] or DEFAULT_LAKE)
        return function(*arguments, **options)

    return lake_uri_option(state_dir_option(checked))


def lake_uri_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--lake` to a command, for use before or after the command's name.

    The command takes the lake's URI as the keyword argument `lake`.
    """

    def parse(ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
        global_value: str | None = ctx.find_root().obj
        chosen = global_value if value is None else value
        if chosen == "":
            raise UsageError("--lake: is empty", "give a directory, or leave it out for data")
        from lakewriter.cli.terminal import escape_stray_logs

        escape_stray_logs()
        return chosen

    return click.option(
        "--lake",
        metavar="URI",
        callback=parse,  # the group reads the environment
        help=f"The lake's root.  [default: {DEFAULT_LAKE}]",
    )(function)


@click.command(cls=_Commands, context_settings={"help_option_names": list(_HELP_OPTIONS)})
@click.version_option(__version__, prog_name="lakewriter")
@click.option("--lake", metavar="URI", envvar="LAKEWRITER_LAKE", help="The lake's root.  [default: data]")
@click.pass_context
def cli(ctx: click.Context, lake: str | None) -> None:
    """Record every closed Binance candle into a plain Parquet lake, and query it in SQL.

    \b
    lakewriter record spot:BTCUSDT,BNBUSDT:1m usdt_futures:BTCUSDT:1m
    lakewriter compact
    lakewriter query "SELECT symbol, max(high) FROM candles GROUP BY symbol"
    """
    ctx.obj = lake


def main() -> None:
    """Run the command line and exit with its code."""
    prepare_process()
    hide_pandas()
    if COMPLETE_VARIABLE in os.environ:
        from lakewriter.cli import completion

        completion.install()
    _leave(_run())


def _run() -> int:
    """Run the command line and return its exit code. Print an error as one line and a hint."""
    try:
        cli.main(prog_name="lakewriter", complete_var=COMPLETE_VARIABLE, standalone_mode=False)
        if sys.stdout is not None:  # the parent process may have closed it
            sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        click.echo("stopped", err=True)
        return 130
    except LakewriterError as error:
        _print_error(error.what, error.hint)
        return error.exit_code
    except OSError as error:
        _print_error(os_error_text(error))
        # Discard buffered output, because it cannot be written either.
        if sys.stdout is not None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (MemoryError, RuntimeError, ImportError) as error:
        shortage = resource_shortage(error)
        if shortage is None:
            raise
        _print_error(*shortage)
        return 1
    return 0


def _print_error(what: str, hint: str = "") -> None:
    click.echo(f"lakewriter: {printable(what)}", err=True)
    if hint:
        click.echo(f"  {hint}", err=True)


# Modules with threads. `has_pending` returns whether a thread is still running.
_WITH_THREADS = (
    "lakewriter.lake.prefetch",
    "lakewriter.query.engine",
    "lakewriter.query.execution",
    "lakewriter.cli.runs.doctor",
    "lakewriter.engines.spark",
    "lakewriter.web.page.readers",
)


def _leave(code: int) -> NoReturn:
    """Exit without waiting for abandoned threads of an object store or the engine."""
    # A module that is not imported has no threads.
    modules = map(sys.modules.get, _WITH_THREADS)
    has_abandoned = any(module is not None and module.has_pending() for module in modules)
    stderr.end()
    if has_abandoned:
        if sys.stdout is not None:
            with contextlib.suppress(OSError):
                sys.stdout.flush()
        os._exit(code)
    sys.exit(code)
