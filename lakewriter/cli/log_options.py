"""The options of a recorder's log: its format, its lines of single candles and its summaries."""

import contextlib
import functools
import logging
from collections.abc import Callable, Iterator
from typing import Any

import click

from lakewriter.cli.json_log import log_other_modules, logged
from lakewriter.cli.recorder_line import ProgressLine
from lakewriter.cli.terminal import log_to_stderr, stderr_is_terminal
from lakewriter.config import LOG_FORMATS, Config
from lakewriter.errors import LakewriterError


class LogOptions:
    """The options of the command line. None leaves the choice to the config.

    Args:
        log_format: "text" or "json".
        log_candles: whether each recorded candle has a line.
        quiet: whether only warnings and errors are logged.
    """

    def __init__(self, log_format: str | None, log_candles: bool | None, quiet: bool) -> None:
        self._log_format = log_format or LOG_FORMATS[0]
        self._is_given = log_format is not None
        self._log_candles = log_candles
        self._quiet = quiet
        self._is_logging = False

    @property
    def is_json(self) -> bool:
        """Whether each line of the log is a JSON object."""
        return self._log_format == "json"

    def start(self, config: Config) -> ProgressLine | None:
        """Begin to log; return the progress line of a terminal, or None.

        Without a request single candles have no line. For 3,000 series of one minute
        these lines would take 298 MB a day.
        """
        if not self._is_given:
            self._log_format = config.log_format
        on_terminal = stderr_is_terminal() and not self._quiet and not self.is_json
        progress = ProgressLine() if on_terminal else None
        self._log_to(progress)
        with_candles = config.log_candles if self._log_candles is None else self._log_candles
        level = logging.INFO if with_candles and not self._quiet else logging.WARNING
        logging.getLogger("lakewriter.recorded").setLevel(level)
        return progress

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Log the error that ends the block, if the log is JSON. Else the command line prints it."""
        try:
            yield
        except (LakewriterError, OSError) as error:
            if not self.is_json:
                raise
            self._log_to(None)
            raise logged(error) from None

    def _log_to(self, progress: ProgressLine | None) -> None:
        if self._is_logging:
            return
        self._is_logging = True
        log_to_stderr(quiet=self._quiet, handler=progress, as_json=self.is_json)
        if self.is_json:
            log_other_modules()


def with_log_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of the log. The command takes them as the keyword argument `log_options`."""

    @functools.wraps(function)
    def with_choice(log_format: str | None, log_candles: bool | None, quiet: bool, **others: Any) -> Any:
        return function(log_options=LogOptions(log_format, log_candles, quiet), **others)

    for option in (
        click.option("-q", "--quiet", is_flag=True, help="Only warnings and errors."),
        click.option(
            "--log-candles/--no-log-candles",
            default=None,
            help="Also log a line for each recorded candle.  [default: no]",
        ),
        click.option(
            "--log-format",
            type=click.Choice(LOG_FORMATS),
            help="Lines of text, or JSON objects.  [default: text]",
        ),
    ):
        option(with_choice)
    return with_choice
