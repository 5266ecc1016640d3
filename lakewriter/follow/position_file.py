"""The file that keeps a follower's position between its runs.

    {"lakewriter_position":1,…}
    {"output_bytes":123456}

The second line is there if the candles go into a file: so many of its bytes are lines of
handed-out candles. Lines after them were written after the position was saved.
"""

from pathlib import Path
from typing import NamedTuple

import msgspec

from lakewriter.errors import LakewriterError, UsageError
from lakewriter.follow.position import Position, parse_position
from lakewriter.lake.durable import write_durably
from lakewriter.regular_file import read_regular

# Pause between two saves while candles come without a pause.
SAVE_EVERY_S = 1.0

# A position of 10,000 series has some 600 KB.
FILE_BYTES_MAX = 256 * 1024 * 1024


class SavedPosition(NamedTuple):
    """The content of a position file.

    Args:
        position: the candles that were handed out.
        output_bytes: bytes of the output file that have these candles; 0 without such a file.
    """

    position: Position
    output_bytes: int


class _Output(msgspec.Struct, frozen=True):
    output_bytes: int


class PositionFile:
    """The position file at a path.

    Args:
        path: the file. Its directory exists.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()
        self._saved_s = float("-inf")

    def read(self) -> SavedPosition | None:
        """Return the content of the file, or None if it does not exist.

        Raises:
            UsageError: if the file cannot be read, or is no position.
        """
        if not self._path.parent.is_dir():
            raise UsageError(f"resume: {self._path.parent} is no directory", "create it first")
        try:
            first, _, second = read_regular(self._path, FILE_BYTES_MAX).partition(b"\n")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UsageError(f"resume: {self._path}: {error.strerror}") from None
        position = parse_position(first, f"resume: {self._path}")
        if not second.strip():
            return SavedPosition(position, 0)
        try:
            output = msgspec.json.decode(second, type=_Output)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UsageError(f"resume: {self._path}: {error}", "delete it to start anew") from None
        return SavedPosition(position, output.output_bytes)

    def due_in_s(self, now_s: float) -> float:
        """Return the seconds until the next save is due; 0 if it is."""
        return max(0.0, self._saved_s + SAVE_EVERY_S - now_s)

    def save(self, position: Position, now_s: float, output_bytes: int = 0) -> None:
        """Replace the file.

        Raises:
            LakewriterError: if the disk refuses.

        Crash: the old file or the new one is there, whole.
        """
        text = position.encode() + "\n"
        if output_bytes:
            text += msgspec.json.encode(_Output(output_bytes)).decode() + "\n"
        try:
            write_durably(self._path, text.encode())
        except OSError as error:
            raise LakewriterError(f"resume: {self._path}: {error.strerror}") from None
        self._saved_s = now_s
