"""Retries of a read whose files were replaced.

Recorders, backfills and compaction replace files at any time. A read of several
files starts again with a new listing if one of them was replaced meanwhile. Only
this module decides the number of attempts.
"""

import os
import random
import time
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from lakewriter.errors import LakeError, LakewriterError
from lakewriter.query.errors import FileGoneError, FileReplacedError, UnreadableAsIsError

T = TypeVar("T")

# Maximum number of attempts. Each failure means that a file was replaced or compacted.
TRIES_MAX = 20

_PAUSE_S = 0.002


class RetryHints(NamedTuple):
    """The findings of failed attempts, for the next attempt.

    Args:
        read_as_foreign: own files that have to be read as foreign files.
        files_replaced: whether files were replaced, so that all files have to be held.
    """

    read_as_foreign: frozenset[str] = frozenset()
    files_replaced: bool = False


NO_HINTS = RetryHints()


def retry_while_files_move(attempt: Callable[[RetryHints], T]) -> T:
    """Return the result of the first attempt during which no file was replaced.

    Args:
        attempt: lists and reads files.

    Raises:
        LakeError: if files were replaced in every attempt, or a file is a broken link.
        the other errors of an attempt.
    """
    hints = NO_HINTS
    for number in range(TRIES_MAX):
        try:
            return attempt(hints)
        except UnreadableAsIsError as error:
            if error.names <= hints.read_as_foreign:
                raise error.error from None
            hints = hints._replace(read_as_foreign=hints.read_as_foreign | error.names)
            last_error: LakewriterError = error.error
        except FileGoneError as error:
            if _is_broken_link(error.path):
                raise LakeError(error.what, "it is a broken link; remove it") from None
            last_error, hints = error, hints._replace(files_replaced=True)
        except FileReplacedError as error:
            last_error, hints = error, hints._replace(files_replaced=True)
        time.sleep(random.uniform(0, _PAUSE_S * 2 ** min(number, 6)))  # noqa: S311 - jitter
    raise last_error


def _is_broken_link(path: str) -> bool:
    return os.path.islink(path) and not os.path.exists(path)  # noqa: PTH114, PTH110 - a text, which may name an object
