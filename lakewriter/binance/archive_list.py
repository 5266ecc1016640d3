"""The parser of the archive's list, in the format of S3. Pure.

The list has keys with their sizes, directories, and the marker of the next page.

Contract: any other content raises an error with one line of text. A document with
declarations is refused, so entities are never expanded.

Source: Amazon S3 API reference, ListObjects (its first version).
"""

from typing import NamedTuple
from xml.etree import ElementTree

from lakewriter.binance.wire import quoted
from lakewriter.errors import ExchangeError

# A page has 1000 keys of about 400 bytes.
PAGE_BYTES_MAX = 4 * 1024 * 1024

# The limit of S3.
_KEY_BYTES_MAX = 1024

# The begin of XML declarations. A list has no declarations.
_DECLARATIONS = ("<!DOCTYPE", "<!ENTITY")


class ArchivePage(NamedTuple):
    """One page of the archive's list.

    Args:
        sizes: size in bytes by key.
        prefixes: directories, each with a slash at the end.
        marker: the key after which the next page begins; "" on the last page.
    """

    sizes: dict[str, int]
    prefixes: list[str]
    marker: str


def parse_page(body: bytes) -> ArchivePage:
    """Parse a page of the list.

    Raises:
        ExchangeError: if the page cannot be read.
    """
    if len(body) > PAGE_BYTES_MAX:
        raise ExchangeError(f"a page of more than {PAGE_BYTES_MAX} bytes")
    root = _root(body)
    if _local_name(root) != "ListBucketResult":
        raise ExchangeError(f"{quoted(_local_name(root))} instead of a ListBucketResult")
    sizes = {_text(element, "Key"): _size(element) for element in root.iterfind("{*}Contents")}
    prefixes = [_text(element, "Prefix") for element in root.iterfind("{*}CommonPrefixes")]
    if root.findtext("{*}IsTruncated", "false").strip() != "true":
        return ArchivePage(sizes, prefixes, "")
    # S3 omits NextMarker in lists without a delimiter. Their marker is the last key.
    marker = root.findtext("{*}NextMarker") or max([*sizes, *prefixes], default="")
    if not marker:
        raise ExchangeError("a page that is not the last, and empty")
    return ArchivePage(sizes, prefixes, marker)


def _root(body: bytes) -> ElementTree.Element:
    try:
        text = body.decode()
        if any(word in text for word in _DECLARATIONS):
            raise ExchangeError("a page with declarations")
        # Text without declarations has no entities to expand. The size is bounded, and
        # decoded text cannot hide declarations in another encoding.
        return ElementTree.fromstring(text)  # noqa: S314
    except (ElementTree.ParseError, ValueError) as error:
        raise ExchangeError(f"no XML: {quoted(str(error))}") from None


def _local_name(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _text(element: ElementTree.Element, name: str) -> str:
    text = element.findtext(f"{{*}}{name}")
    if not text or len(text.encode()) > _KEY_BYTES_MAX:
        raise ExchangeError(f"a {_local_name(element)} without its {name}")
    return text


def _size(element: ElementTree.Element) -> int:
    text = _text(element, "Size")
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise ExchangeError(f"a size of {quoted(text)}")
    return int(text)
