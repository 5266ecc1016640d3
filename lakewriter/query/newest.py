"""A mark in a statement: of this scan the newest candles of each series are enough.

A year of a series is hundreds of files, and its newest candle is in the last
one. The engine cannot know that; so a macro that wants no more says so with a
predicate that every candle passes, and that the engine pushes down to its scan
as it does any other. Who chooses the files sees it there. Wherever the mark is
lost, all files are read, and the answer is the same.
"""

import secrets
from datetime import UTC, datetime, timedelta

# A time that no candle has, and nobody can write by chance: it is another one in each process.
_MOMENT = datetime(9000, 1, 1, tzinfo=UTC) + timedelta(
    days=secrets.randbelow(300_000), milliseconds=secrets.randbelow(86_400_000)
)
_TEXT = _MOMENT.replace(tzinfo=None).isoformat(" ", "milliseconds")

# For a scan whose predicates are about its series, and from when on, and nothing else.
MARK_SQL = f"candle_begin_time < TIMESTAMPTZ '{_TEXT}+00'"


def is_marked(pushed: str) -> bool:
    """Tell whether a filter, as Arrow prints it, has the mark."""
    return _TEXT in pushed
