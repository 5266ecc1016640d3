"""Decide which candles of a file are closed. Pure.

Rule: a closed candle ended before now and before the file was written, and no column marks it open.
"""

import numpy as np
import pyarrow as pa

from lakewriter.candle import BoolArray, IntArray
from lakewriter.errors import LakewriterError
from lakewriter.evidence.columns import cells_as_text, normal_name

# Columns that mark a candle as closed, and columns that mark it as open.
_CLOSED = (
    "x", "is_closed", "isclosed", "closed", "is_final", "isfinal", "final", "complete", "completed",
    "is_complete", "iscomplete", "confirm", "confirmed", "finished", "is_finished", "candle_closed", "kline_closed",
    "bar_closed", "closed_candle",
)  # fmt: skip
_OPEN = (
    "is_open", "isopen", "in_progress", "inprogress", "partial", "is_partial", "ispartial", "unfinished", "incomplete",
)  # fmt: skip
# Columns that mark a candle in words. A column counts only if all of its words are known.
_STATES = ("status", "state", "candle_status", "bar_status")
_STATE_WORDS = {
    **dict.fromkeys(("closed", "close", "complete", "completed", "final", "finished", "done"), True),
    **dict.fromkeys(("open", "partial", "live", "incomplete", "unfinished", "in_progress", "ongoing"), False),
}
_WORDS = {
    **dict.fromkeys(("true", "t", "yes", "y", "1", "1.0"), True),
    **dict.fromkeys(("false", "f", "no", "n", "0", "0.0"), False),
}


def marked_closed(table: pa.Table) -> BoolArray | None:
    """Return whether each candle is marked closed; None if no column marks candles.

    An empty cell counts as closed.

    Raises:
        LakewriterError: if a cell is neither true nor false.
    """
    columns = {normal_name(name): table[place] for place, name in enumerate(table.column_names)}
    results = []
    for names, meaning in ((_CLOSED, True), (_OPEN, False)):
        for name in names:
            if name in columns:
                cells = cells_as_text(columns[name]).dictionary_encode(null_encoding="encode")
                texts = cells.dictionary.to_pylist()
                if len(name) == 1 and any(text and text.strip().lower() not in _WORDS for text in texts):
                    continue  # a one-letter column of another meaning
                marks = [_truth(name, text) for text in texts]
                holds = np.array([mark is None or mark is meaning for mark in marks], np.bool_)
                results.append(holds[cells.indices.to_numpy()])
    for name in _STATES:
        if name in columns:
            cells = cells_as_text(columns[name]).dictionary_encode(null_encoding="encode")
            words = [text and text.strip().lower() for text in cells.dictionary.to_pylist()]
            if any(words) and all(not word or word in _STATE_WORDS for word in words):
                holds = np.array([_STATE_WORDS.get(word or "", True) for word in words], np.bool_)
                results.append(holds[cells.indices.to_numpy()])
    return np.logical_and.reduce(results) if results else None


def _truth(name: str, text: str | None) -> bool | None:
    if text is None or not text.strip():
        return None
    if (truth := _WORDS.get(text.strip().lower())) is None:
        raise LakewriterError(f"{name} is {text!r}, neither true nor false")
    return truth


def closed_rows(ends: IntArray, marked: BoolArray | None, now_ms: int, written_ms: int) -> BoolArray:
    """Return whether each candle is closed.

    Args:
        ends: end times, exclusive.
        marked: whether each candle is marked closed; None without such marks.
        written_ms: the file's modification time in milliseconds.
    """
    closed: BoolArray = ends <= min(now_ms, written_ms)
    return closed if marked is None else closed & marked
