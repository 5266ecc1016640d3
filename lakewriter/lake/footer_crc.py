"""The checksum of a Parquet footer, which is in the metadata of our files. No I/O."""

import zlib

# The footer's CRC-32 as eight hexadecimal digits. It is computed with zeros in their place.
# Parquet has no checksum of the footer, and some damaged footers make pyarrow abort the process:
# it does not catch C++ exceptions while it reads statistics.
FOOTER_CRC_KEY = "lakewriter.footer_crc"
NO_CRC = b"00000000"
# The last two bytes mean in Thrift's compact protocol that eight bytes of text follow.
_FOOTER_CRC_MARK = FOOTER_CRC_KEY.encode() + b"\x18\x08"


def with_footer_crc(data: bytes) -> bytes:
    """Return a file in which its footer's checksum replaces the placeholder NO_CRC."""
    at = _footer_crc_at(data)
    return b"%b%08x%b" % (data[:at], _footer_crc(data, at), data[at + len(NO_CRC) :])


def has_whole_footer(data: bytes) -> bool:
    """Return whether a file's footer matches its checksum. Foreign files have no checksum."""
    at = _footer_crc_at(data)
    return at > 0 and data[at : at + len(NO_CRC)] == b"%08x" % _footer_crc(data, at)


def _footer_crc_at(data: bytes) -> int:
    """Return the offset of the checksum's digits, or -1 if the footer has no checksum."""
    found = data.rfind(_FOOTER_CRC_MARK, _footer_at(data))
    return found if found < 0 else found + len(_FOOTER_CRC_MARK)


def _footer_crc(data: bytes, at: int) -> int:
    before = zlib.crc32(data[_footer_at(data) : at])
    return zlib.crc32(data[at + len(NO_CRC) : -8], zlib.crc32(NO_CRC, before))


def _footer_at(data: bytes) -> int:
    # The last eight bytes are the footer's length and the magic.
    return max(0, len(data) - 8 - int.from_bytes(data[-8:-4], "little"))
