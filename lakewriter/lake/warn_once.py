"""One line in the log for each thing of the disk that a reader cannot understand, and leaves out."""

import logging
from functools import lru_cache

from lakewriter.errors import printable

log = logging.getLogger(__name__)

# A process that reads a thing again does not report it again; so many are remembered.
REPORTS_MAX = 1_000


@lru_cache(REPORTS_MAX)
def warn_once(what: str) -> None:
    """Log that a reader left something out, once in this process.

    Args:
        what: the thing first, then why.
    """
    log.warning("%s", printable(what))
