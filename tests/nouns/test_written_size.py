"""Sizes as people write and read them."""

import pytest

from lakewriter.config import parse_journal_limit
from lakewriter.errors import UsageError
from lakewriter.written_size import size_text


@pytest.mark.parametrize(
    ("text", "size"),
    [("4GB", 4 * 10**9), ("1.5 TB", 1_500_000_000_000), ("512MiB", 512 << 20), ("1kb", 1000), (" 7B ", 7)],
)
def test_a_limit_is_parsed(text: str, size: int) -> None:
    """A number and a unit are bytes."""
    assert parse_journal_limit(text) == size


@pytest.mark.parametrize("text", ["", "4 G", "-1GB", "0MB", "four GB", "1e3GB", "2000TB"])
def test_what_is_no_limit_is_refused(text: str) -> None:
    """Anything else is one clear line."""
    with pytest.raises(UsageError, match=r"^journal limit: ") as raised:
        parse_journal_limit(text)
    assert "4GB" in raised.value.hint


@pytest.mark.parametrize("text", ["5", " 500 ", "999999"])
def test_a_small_number_needs_a_unit(text: str) -> None:
    """`5` is rather 5 GB than 5 bytes, so it is refused."""
    with pytest.raises(UsageError) as raised:
        parse_journal_limit(text)
    assert raised.value.what == f"journal limit: {text.strip()} has no unit"
    assert parse_journal_limit("1000000") == 1_000_000


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 bytes"), (1, "1 byte"), (999, "999 bytes"), (4 * 10**9, "4.0 GB")]
)
def test_a_size_is_shown(size: int, text: str) -> None:
    """A size is shown in its largest unit."""
    assert size_text(size) == text
