"""Measure the batches of an Arrow stream before Arrow inflates them. Pure.

Arrow's reader inflates each batch without a limit. The inflated size precedes each
compressed buffer. The message's metadata holds the buffers' offsets. It is a Flatbuffer
with a fixed schema.

Source: format/Message.fbs of Apache Arrow.
"""

import struct
from collections.abc import Iterator

import pyarrow as pa

_RECORDS, _DICTIONARY = "record batch", "dictionary"

# Positions of the fields in their tables.
_MESSAGE_HEADER, _DICTIONARY_BATCH, _BUFFERS, _COMPRESSION = 2, 1, 2, 3
_SIZE_BYTES = 8
_UNCOMPRESSED = -1


def inflated_bytes(stream: pa.Buffer) -> Iterator[int]:
    """Yield the inflated bytes of each batch of an Arrow stream.

    Raises:
        pa.ArrowInvalid: if a message is damaged.
    """
    reader = pa.ipc.MessageReader.open_stream(pa.BufferReader(stream))
    while (message := _next(reader)) is not None:
        if message.type in (_RECORDS, _DICTIONARY):
            try:
                yield _message_bytes(message)
            except struct.error:
                raise pa.ArrowInvalid("a message's metadata is damaged") from None


def _next(reader: pa.ipc.MessageReader) -> pa.ipc.Message | None:
    try:
        return reader.read_next_message()
    except (StopIteration, EOFError):
        return None


def _message_bytes(message: pa.ipc.Message) -> int:
    metadata = _Flatbuffer(message.metadata)
    batch = metadata.table(metadata.root(), _MESSAGE_HEADER)
    if message.type == _DICTIONARY:
        batch = metadata.table(batch, _DICTIONARY_BATCH)
    compressed = metadata.has(batch, _COMPRESSION)
    total = 0
    for offset, length in metadata.pairs(batch, _BUFFERS):
        size = length
        if compressed and length:
            (size,) = struct.unpack_from("<q", message.body, offset)
        total += length - _SIZE_BYTES if size == _UNCOMPRESSED else max(size, 0)
    return total


class _Flatbuffer:
    """The tables of a Flatbuffer, read by the positions of their fields."""

    def __init__(self, data: pa.Buffer) -> None:
        self._data = data

    def _read(self, kind: str, at: int) -> int:
        if at < 0:
            raise struct.error
        (value,) = struct.unpack_from(kind, self._data, at)
        return int(value)

    def root(self) -> int:
        """Return the position of the root table."""
        return self._read("<I", 0)

    def _field(self, table: int, place: int) -> int:
        """Return the position of a field; 0 if the table does not have it."""
        places = table - self._read("<i", table)
        if 4 + 2 * place >= self._read("<H", places):
            return 0
        offset = self._read("<H", places + 4 + 2 * place)
        return table + offset if offset else 0

    def has(self, table: int, place: int) -> bool:
        """Return whether the table has the field."""
        return self._field(table, place) > 0

    def table(self, table: int, place: int) -> int:
        """Return the position of the table that a field refers to."""
        field = self._field(table, place)
        return field + self._read("<I", field)

    def pairs(self, table: int, place: int) -> Iterator[tuple[int, int]]:
        """Yield the pairs of integers in a vector field; an absent field has no pairs."""
        field = self._field(table, place)
        if not field:
            return
        first = field + self._read("<I", field)
        for number in range(self._read("<I", first)):
            at = first + 4 + 16 * number
            yield self._read("<q", at), self._read("<q", at + 8)
