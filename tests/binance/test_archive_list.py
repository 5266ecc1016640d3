"""Pages of the archive's list: pages in S3's format are read, all others are refused in one line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakewriter.binance.archive_list import PAGE_BYTES_MAX, ArchivePage, parse_page
from lakewriter.errors import ExchangeError

HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'
NAMESPACE = ' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'


def page(inside: str, namespace: str = NAMESPACE) -> bytes:
    return f"{HEAD}<ListBucketResult{namespace}>{inside}</ListBucketResult>".encode()


def contents(key: str, size: object = 5) -> str:
    return f"<Contents><Key>{key}</Key><Size>{size}</Size><StorageClass>STANDARD</StorageClass></Contents>"


@pytest.mark.parametrize("namespace", [NAMESPACE, ""])
def test_a_page(namespace: str) -> None:
    """A page has keys with sizes, and directories with a slash, in its order."""
    inside = (
        "<Name>data.binance.vision</Name><Prefix>a/</Prefix><Marker></Marker><MaxKeys>1000</MaxKeys>"
        "<Delimiter>/</Delimiter><IsTruncated>false</IsTruncated>"
        f"{contents('a/b.zip', 72321)}{contents('a/b.zip.CHECKSUM', 91)}"
        "<CommonPrefixes><Prefix>a/龙虾USDT/</Prefix></CommonPrefixes>"
        "<CommonPrefixes><Prefix>a/x&amp;y/</Prefix></CommonPrefixes>"
    )
    assert parse_page(page(inside, namespace)) == ArchivePage(
        {"a/b.zip": 72321, "a/b.zip.CHECKSUM": 91}, ["a/龙虾USDT/", "a/x&y/"], ""
    )


def test_an_empty_page() -> None:
    """An absent directory is an empty page."""
    assert parse_page(page("<IsTruncated>false</IsTruncated>")) == ArchivePage({}, [], "")
    assert parse_page(page("")) == ArchivePage({}, [], "")


@pytest.mark.parametrize(
    ("inside", "marker"),
    [
        ("<NextMarker>a/b</NextMarker>", "a/b"),
        (contents("a/b") + contents("a/c"), "a/c"),
        (contents("a/c") + "<CommonPrefixes><Prefix>a/d/</Prefix></CommonPrefixes>", "a/d/"),
        ("<CommonPrefixes><Prefix>a/a/</Prefix></CommonPrefixes>" + contents("a/c"), "a/c"),
    ],
)
def test_where_to_go_on(inside: str, marker: str) -> None:
    """The next page begins after NextMarker, or else after the last name of the page."""
    assert parse_page(page(f"<IsTruncated>true</IsTruncated>{inside}")).marker == marker


BOMB = (
    '<!DOCTYPE lolz [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">'
    '<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">]><ListBucketResult><Name>&c;</Name></ListBucketResult>'
)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "no XML: no element found"),
        (b"<html><body><h1>403</h1></body></html>", "html instead of a ListBucketResult"),
        (b"<Error><Code>NoSuchBucket</Code></Error>", "Error instead of a ListBucketResult"),
        (page("")[:-3], "no XML: unclosed token"),
        (BOMB.encode(), "a page with declarations"),
        (BOMB.encode("utf-16"), "no XML: "),
        (HEAD.replace("UTF-8", "UTF-16").encode("utf-16"), "no XML: "),
        (page(contents("&undefined;")), "no XML: undefined entity"),
        (page(contents("", 5)), "a Contents without its Key"),
        (page(contents("k" * 1025, 5)), "a Contents without its Key"),
        (page("<Contents><Key>a</Key></Contents>"), "a Contents without its Size"),
        (page("<CommonPrefixes></CommonPrefixes>"), "a CommonPrefixes without its Prefix"),
        (page(contents("a", -1)), "a size of -1"),
        (page(contents("a", "٥")), "a size of"),
        (page(contents("a", "9" * 30)), "a size of"),
        (page("<IsTruncated>true</IsTruncated>"), "a page that is not the last, and empty"),
        (b" " * (PAGE_BYTES_MAX + 1), f"a page of more than {PAGE_BYTES_MAX} bytes"),
    ],
)
def test_what_is_no_page(body: bytes, said: str) -> None:
    """Other documents, torn ones, declarations in any encoding, and invalid sizes are refused."""
    with pytest.raises(ExchangeError) as refused:
        parse_page(body)
    assert refused.value.what.startswith(said)
    assert "\n" not in refused.value.what


def test_deep_nesting_is_harmless() -> None:
    """A page of deeply nested elements is read without recursion."""
    depth = 200_000
    assert parse_page(page("<a>" * depth + "</a>" * depth)) == ArchivePage({}, [], "")


@given(
    st.binary(max_size=200) | st.text('<>/&;![]"= KeySizContents', max_size=80).map(lambda text: page(text))
)
def test_any_bytes(body: bytes) -> None:
    """Any bytes give a page or an ExchangeError."""
    try:
        parse_page(body)
    except ExchangeError as error:
        assert "\n" not in error.what
