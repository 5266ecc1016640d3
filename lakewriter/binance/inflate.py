"""The inflation of a deflate stream of known size, in one call. Pure.

libdeflate (the package `deflate` of the extra `fast`) takes a third of the time of zlib.

Contract: both libraries refuse the same streams. A stream needs its final block, exactly the
claimed number of bytes, and their CRC-32. Bytes behind the final block are ignored, because
libdeflate does not report them. At most one byte more than claimed is inflated.
"""

import zlib
from typing import NamedTuple

try:
    import deflate
except ImportError:
    deflate = None

# zlib inflates larger data: libdeflate allocates all memory before it reads a byte.
LIBDEFLATE_BYTES_MAX = 1 << 26

# Raw deflate, without a header.
_RAW = -15


class Claim(NamedTuple):
    """The claim of a zip's directory on the inflated bytes."""

    size: int
    crc: int


def inflate(packed: memoryview, claim: Claim) -> bytes:
    """Return the inflated bytes.

    Raises:
        ValueError: if the stream is damaged, or the bytes do not match the claim.
    """
    # `deflate` does not read the stream of an empty file.
    if deflate is not None and 0 < claim.size <= LIBDEFLATE_BYTES_MAX:
        return inflate_by_libdeflate(packed, claim)
    return inflate_by_zlib(packed, claim)


def inflate_by_zlib(packed: memoryview, claim: Claim) -> bytes:
    """Return the inflated bytes, as for `inflate`."""
    stream = zlib.decompressobj(_RAW)
    try:
        # Without a byte of room, zlib would not read the end of the final block.
        data = stream.decompress(packed, claim.size + 1)
    except zlib.error:
        raise _damaged() from None
    if not stream.eof:
        raise _damaged()
    _check(claim, len(data), zlib.crc32(data))
    return data


def inflate_by_libdeflate(packed: memoryview, claim: Claim) -> bytes:
    """Return the inflated bytes, as for `inflate`. The claim is of at least one byte."""
    try:
        data = deflate.deflate_decompress(packed, claim.size)
    except deflate.DeflateError:
        raise _damaged() from None
    _check(claim, len(data), deflate.crc32(data))
    return bytes(data)


def _check(claim: Claim, size: int, crc: int) -> None:
    if size != claim.size:
        raise _damaged()
    if crc != claim.crc:
        raise ValueError("its data does not match its checksum")


def _damaged() -> ValueError:
    return ValueError("its data is damaged, or has another size than its directory says")
