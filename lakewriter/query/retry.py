"""Files that change while they are read: list again, and try once more.

The one place that decides how often. Recorders, backfills and compaction
replace files at any time; whoever reads several of them starts over with a new
listing when one was replaced meanwhile.
"""

import os
import random
import time
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from lakewriter.errors import LakeError, LakewriterError
from lakewriter.query.errors import FileGoneError, FileReplacedError, UnreadableAsIsError

T = TypeVar("T")

# Each try that fails means that a file was replaced or folded meanwhile.
TRIES_MAX = 20

_PAUSE_S = 0.002


class RetryHints(NamedTuple):
    """What an attempt should know of those before it.

    Args:
        read_as_foreign: own files to read as foreign ones.
        files_replaced: whether files were replaced, so that all of them are held.
    """

    read_as_foreign: frozenset[str] = frozenset()
    files_replaced: bool = False


NO_HINTS = RetryHints()


def retry_while_files_move(attempt: Callable[[RetryHints], T]) -> T:
    """Return what an attempt to list and read files returns, once they hold still.

    Args:
        attempt: does it, told what came of those before it.

    Raises:
        LakeError: if they never hold still, or one is a link to nowhere.
        what an attempt raises otherwise.
    """
    hints = NO_HINTS
    for number in range(TRIES_MAX):
        try:
            return attempt(hints)
        except UnreadableAsIsError as error:
            if error.names <= hints.read_as_foreign:
                raise error.error from None
            hints = hints._replace(read_as_foreign=hints.read_as_foreign | error.names)
            last: LakewriterError = error.error
        except FileGoneError as error:
            if _leads_nowhere(error.path):
                raise LakeError(error.what, "it is a broken link; remove it") from None
            last, hints = error, hints._replace(files_replaced=True)
        except FileReplacedError as error:
            last, hints = error, hints._replace(files_replaced=True)
        time.sleep(random.uniform(0, _PAUSE_S * 2 ** min(number, 6)))  # noqa: S311 - jitter
    raise last


def _leads_nowhere(path: str) -> bool:
    return os.path.islink(path) and not os.path.exists(path)  # noqa: PTH114, PTH110 - text, maybe of an object
