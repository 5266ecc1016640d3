"""Sizes as people write and read them: `4GB`, `512MiB`. Pure."""

import re

from lakewriter.errors import UsageError

# A larger size is a typing error.
BYTES_MAX = 1 << 50

# A smaller number needs a unit, such as B.
UNITLESS_BYTES_MIN = 1_000_000

_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,6})?)\s?(?:([KMGT]i?)?B)?", re.IGNORECASE)
_UNITS = {"": 1} | {
    f"{letter}{binary}": base**power
    for power, letter in enumerate("KMGT", 1)
    for binary, base in (("", 1000), ("I", 1024))
}
_SHOWN = {"TB": 10**12, "GB": 10**9, "MB": 10**6, "kB": 10**3}


def parse_size(text: str, name: str, hint: str) -> int:
    """Parse a size such as "500MB", "2GB", "1.5GiB" or "0"; return bytes.

    Args:
        name, hint: of the error.

    Raises:
        UsageError: if the text is not a size, larger than BYTES_MAX, or a small number
            without a unit.
    """
    found = _SIZE.fullmatch(text.strip())
    size = int(float(found[1]) * _UNITS[(found[2] or "").upper()]) if found else BYTES_MAX + 1
    if size > BYTES_MAX:
        raise UsageError(f"{name}: {text!r} is no size", hint)
    # `5` means 5 GB more often than 5 bytes.
    if 0 < size < UNITLESS_BYTES_MIN and text.strip().isdecimal():
        raise UsageError(f"{name}: {text.strip()} has no unit", hint)
    return size


def size_text(count: int) -> str:
    """Return a number of bytes in its largest unit: "812 bytes", "3.1 MB"."""
    for unit, size in _SHOWN.items():
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count:,} {'byte' if count == 1 else 'bytes'}"
