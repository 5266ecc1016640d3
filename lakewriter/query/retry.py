"""Files that change while they are read: list again, and try once more.

The one place that decides how often. Recorders, backfills and compaction
replace files at any time; whoever reads several of them starts over with a new
listing when one moved under it.
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
        doubted: own files to read as foreign ones.
        moved: whether files moved, and are to be held.
    """

    doubted: frozenset[str] = frozenset()
    moved: bool = False


FIRST = RetryHints()


def steadily(attempt: Callable[[RetryHints], T]) -> T:
    """Return what an attempt to list and read files returns, once they hold still.

    Args:
        attempt: does it, told what came of those before it.

    Raises:
        LakeError: if they never hold still, or one is a link to nowhere.
        what an attempt raises otherwise.
    """
    trial = FIRST
    for number in range(TRIES_MAX):
        try:
            return attempt(trial)
        except UnreadableAsIsError as error:
            if error.names <= trial.doubted:
                raise error.error from None
            trial = trial._replace(doubted=trial.doubted | error.names)
            last: LakewriterError = error.error
        except FileGoneError as error:
            if _leads_nowhere(error.path):
                raise LakeError(error.what, "it is a broken link; remove it") from None
            last, trial = error, trial._replace(moved=True)
        except FileReplacedError as error:
            last, trial = error, trial._replace(moved=True)
        time.sleep(random.uniform(0, _PAUSE_S * 2 ** min(number, 6)))  # noqa: S311 - jitter
    raise last


def _leads_nowhere(path: str) -> bool:
    return os.path.islink(path) and not os.path.exists(path)  # noqa: PTH114, PTH110 - text, maybe of an object
