"""Files that change while they are read: list again, and try once more.

The one place that decides how often. Recorders, backfills and compaction
replace files at any time; whoever reads several of them starts over with a new
listing when one moved under it.
"""

import random
import time
from collections import Counter
from collections.abc import Callable
from typing import TypeVar

from lakewriter.errors import LakeError, LakewriterError
from lakewriter.query.failure import DoubtError, MovedError, VanishedError

T = TypeVar("T")

# Each try that fails means that a file was replaced or folded meanwhile.
TRIES_MAX = 20

# Compaction folds a foreign file once; one that is listed again and again and
# never there is a link to nowhere.
GONE_MAX = 3

_PAUSE_S = 0.002


def steadily(attempt: Callable[[frozenset[str]], T]) -> T:
    """Return what an attempt to list and read files returns, once they hold still.

    Args:
        attempt: does it, with the own files that are to be read as foreign ones.

    Raises:
        LakeError: if they never hold still, or one is listed but not there.
        what an attempt raises otherwise.
    """
    doubted: frozenset[str] = frozenset()
    gone: Counter[str] = Counter()
    for number in range(TRIES_MAX):
        try:
            return attempt(doubted)
        except DoubtError as error:
            if error.names <= doubted:
                raise error.error from None
            doubted |= error.names
            last: LakewriterError = error.error
        except VanishedError as error:
            gone[error.what] += 1
            if gone[error.what] == GONE_MAX:
                raise LakeError(
                    error.what, "it is listed but not there; remove it if it is a broken link"
                ) from None
            last = error
        except MovedError as error:
            last = error
        time.sleep(random.uniform(0, _PAUSE_S * 2 ** min(number, 6)))  # noqa: S311 - jitter
    raise last
