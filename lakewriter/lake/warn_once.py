"""Warnings on files, lines and entries that a reader cannot read and leaves out."""

import logging
from functools import lru_cache

from lakewriter.errors import printable

log = logging.getLogger(__name__)

# So many warnings are remembered; none of them is logged twice.
REPORTS_MAX = 1_000


@lru_cache(REPORTS_MAX)
def warn_once(what: str) -> None:
    """Log a warning, once in this process.

    Args:
        what: names the thing first, then the reason.
    """
    log.warning("%s", printable(what))
