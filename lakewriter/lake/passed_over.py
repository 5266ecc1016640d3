"""One line in the log for each thing of the disk that a reader cannot understand, and leaves out."""

import logging
from functools import lru_cache

log = logging.getLogger(__name__)

# A process that reads a thing again does not report it again; so many are remembered.
REPORTS_MAX = 1_000


@lru_cache(REPORTS_MAX)
def report_passed_over(what: str) -> None:
    """Log that a reader left something out, once in this process.

    Args:
        what: the thing first, then why. Names of files are others' text: control
            characters in it are escaped.
    """
    shown = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in what)
    log.warning("%s", shown)
