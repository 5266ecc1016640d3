"""A recorder's log: its format, its lines of single candles, and the progress line beside it."""

import contextlib
import logging
from collections.abc import Iterator

from lakewriter.cli.json_log import log_other_modules, logged
from lakewriter.cli.log_options import LogOptions
from lakewriter.cli.recorder_line import ProgressLine
from lakewriter.cli.terminal import log_to_stderr, stderr_is_terminal
from lakewriter.config import LOG_FORMATS, Config
from lakewriter.errors import LakewriterError


class RecorderLog:
    """The log of a recorder.

    Args:
        options: the options of the command line, which override the config.
    """

    def __init__(self, options: LogOptions) -> None:
        self._log_format = options.log_format or LOG_FORMATS[0]
        self._is_given = options.log_format is not None
        self._log_candles = options.log_candles
        self._quiet = options.quiet
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
