"""Warnings about unreadable files, lines and entries, which readers leave out."""

import contextlib
import logging
import threading
from collections.abc import Iterator
from functools import lru_cache

from lakewriter.errors import printable

log = logging.getLogger(__name__)

# The number of remembered warnings. A remembered warning is not logged again.
REPORTS_MAX = 1_000

# Temporary directories, and the names of what they are copies of.
_names: dict[str, str] = {}
_names_lock = threading.Lock()


@contextlib.contextmanager
def named_in_warnings(directory: str, name: str) -> Iterator[None]:
    """Write a name instead of a temporary directory in the warnings of this block.

    Otherwise each copy of the same files would repeat the warning, with a path that is gone.
    """
    with _names_lock:
        _names[directory] = name
    try:
        yield
    finally:
        with _names_lock:
            del _names[directory]


def warn_once(what: str) -> None:
    """Log a warning, once in this process.

    Args:
        what: the text of the warning: a thing's name, then the reason.
    """
    with _names_lock:
        for directory, name in _names.items():
            what = what.replace(directory, name)
    log_once(what)


@lru_cache(REPORTS_MAX)
def log_once(what: str) -> None:
    """Log a text as a warning, once in this process."""
    log.warning("%s", printable(what))
