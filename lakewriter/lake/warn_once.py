"""Warnings about unreadable files, lines and entries, which readers leave out."""

import logging
from functools import lru_cache

from lakewriter.errors import printable

log = logging.getLogger(__name__)

# The number of remembered warnings. A remembered warning is not logged again.
REPORTS_MAX = 1_000


@lru_cache(REPORTS_MAX)
def warn_once(what: str) -> None:
    """Log a warning, once in this process.

    Args:
        what: the text of the warning: a thing's name, then the reason.
    """
    log.warning("%s", printable(what))
