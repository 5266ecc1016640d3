"""Files of lines: each complete line is found among damaged ones, and none exceeds the limit."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from lakewriter.lake.lines import LINE_BYTES_MAX, LineCodec, Lines, read_lines

CODEC = LineCodec("thing")

lengths = st.sampled_from([0, 1, 5, LINE_BYTES_MAX - 1, LINE_BYTES_MAX, LINE_BYTES_MAX + 1, 3_000_000])


@given(st.lists(lengths, max_size=5), st.one_of(st.just(0), lengths))
def test_lines_are_those_of_the_file(
    tmp_path_factory: object, line_bytes: list[int], rest_bytes: int
) -> None:
    """Lines up to the limit are returned unchanged, longer ones as None, and an unended last one is torn."""
    path = Path(tmp_path_factory.getbasetemp()) / "lines"  # type: ignore[attr-defined]
    lines = [bytes([65 + number]) * length for number, length in enumerate(line_bytes)]
    path.write_bytes(b"".join(line + b"\n" for line in lines) + b"z" * rest_bytes)
    expected: list[bytes | None] = [line if len(line) <= LINE_BYTES_MAX else None for line in lines]
    size = path.stat().st_size
    assert read_lines(path, size) == Lines(expected, torn=rest_bytes > 0, cut=False, size=size - rest_bytes)
    if size:
        read = read_lines(path, size - 1)
        assert read.cut
        assert read.whole == expected[: len(read.whole)]
        assert read.size == sum(len(line) + 1 for line in lines[: len(read.whole)])


@given(st.binary(max_size=200))
def test_any_line_is_as_it_was_written_or_none(line: bytes) -> None:
    """Any other line gives None."""
    assert CODEC.decode(line) is None
    assert CODEC.decode(None) is None


@given(st.text(max_size=20), st.integers(0, 300), st.integers(1, 255))
def test_a_changed_byte_is_seen(text: str, place: int, flip: int) -> None:
    """A line decodes to its value; with a changed byte it decodes to None or the same value."""
    body = b'"%b"' % text.encode("unicode_escape").replace(b"\\", b"/").replace(b'"', b"'")
    line = bytearray(CODEC.encode(body)[:-1])
    assert value(line) == body
    line[place % len(line)] ^= flip
    assert value(line) in (None, body)


def value(line: bytearray) -> bytes | None:
    found = CODEC.decode(bytes(line))
    return None if found is None else bytes(found)
