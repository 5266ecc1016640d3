"""Tests of `binance.inflate`, and of the zips that `unzip` reads with it: both libraries refuse the same ones."""

import io
import random
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterator

import pytest

import lakewriter.binance.inflate as inflation
from lakewriter.binance.archive_csv import CsvError, unzip
from lakewriter.binance.inflate import Claim, inflate, inflate_by_libdeflate, inflate_by_zlib

TEXT = b"".join(b"%d,1.5,%d.25,0\n" % (number, number * 7919 % 1000) for number in range(300))
KILOBYTE = 1024
BYTES_MAX = 64 * KILOBYTE

Inflate = Callable[[memoryview, Claim], bytes]


def packed(text: bytes, level: int = 6) -> bytes:
    stream = zlib.compressobj(level, zlib.DEFLATED, -15)
    return stream.compress(text) + stream.flush()


def answer(by: Inflate, stream: bytes, claim: Claim) -> bytes | None:
    """Return the inflated bytes, or None for a refusal."""
    try:
        return by(memoryview(stream), claim)
    except ValueError:
        return None


def both(stream: bytes, claim: Claim) -> bytes | None:
    """Return the answer of both libraries, which is the same."""
    pytest.importorskip("deflate", reason="needs the extra fast")
    one, other = (answer(by, stream, claim) for by in (inflate_by_zlib, inflate))
    assert one == other
    if claim.size:
        assert answer(inflate_by_libdeflate, stream, claim) == one
    return one


@pytest.mark.parametrize(
    "text", [b"", b"x", TEXT, bytes(200_000), random.Random(1).randbytes(5000)], ids=range(5)
)
@pytest.mark.parametrize("level", [0, 1, 9])
def test_streams_of_any_level(text: bytes, level: int) -> None:
    """Stored, fixed and dynamic blocks are inflated to the claimed bytes."""
    assert both(packed(text, level), Claim(len(text), zlib.crc32(text))) == text


def test_a_stream_that_is_cut_off_or_damaged() -> None:
    """A stream that is cut off or changed anywhere is refused, or gives the same bytes."""
    whole, claim = packed(TEXT), Claim(len(TEXT), zlib.crc32(TEXT))
    for length in range(len(whole)):
        assert both(whole[:length], claim) is None
    for place in range(len(whole)):
        for bit in range(8):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << bit
            assert both(bytes(damaged), claim) in (None, TEXT)


def test_a_wrong_claim() -> None:
    """Bytes of another number or checksum than claimed are refused, also if a prefix matches."""
    stream = packed(TEXT)
    for size in (0, 1, len(TEXT) - 1, len(TEXT) + 1, len(TEXT) * 100):
        assert both(stream, Claim(size, zlib.crc32(TEXT))) is None
        assert both(stream, Claim(size, zlib.crc32(TEXT[:size]))) is None
    assert both(stream, Claim(len(TEXT), zlib.crc32(TEXT) ^ 1)) is None


def test_a_stream_without_its_final_block() -> None:
    """All bytes without a final block are refused."""
    stream = zlib.compressobj(6, zlib.DEFLATED, -15)
    unfinished = stream.compress(TEXT) + stream.flush(zlib.Z_FULL_FLUSH)
    assert both(unfinished, Claim(len(TEXT), zlib.crc32(TEXT))) is None


def test_bytes_behind_the_final_block_are_ignored() -> None:
    """Surplus bytes change nothing: libdeflate does not report them."""
    assert both(packed(TEXT) + b"surplus", Claim(len(TEXT), zlib.crc32(TEXT))) == TEXT


@pytest.mark.parametrize("by", [inflate_by_zlib, inflate_by_libdeflate])
def test_a_bomb_is_inflated_to_its_claim_only(by: Inflate) -> None:
    """A stream of 100 MB takes no more memory than its claim of a kilobyte."""
    pytest.importorskip("deflate", reason="needs the extra fast")
    bomb = memoryview(packed(bytes(100_000_000)))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="another size"):
            by(bomb, Claim(KILOBYTE, 0))
        assert tracemalloc.get_traced_memory()[1] < 1000 * KILOBYTE
    finally:
        tracemalloc.stop()


def test_zlib_inflates_large_data() -> None:
    """A large claim goes to zlib, which allocates no memory for it in advance."""
    size = inflation.LIBDEFLATE_BYTES_MAX + 1
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="damaged"):
            inflate(memoryview(packed(TEXT)), Claim(size, 0))
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def zips() -> Iterator[bytes]:
    """Yield zips of every kind that `zipfile` can read or refuses."""
    for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED, zipfile.ZIP_BZIP2):
        yield made({"a.csv": TEXT}, method)
    yield made({"a.csv": TEXT, "readme.txt": b"?", "__MACOSX/._a.csv": b"?"})
    yield made({"a.csv": b""})
    yield made({"é币安.csv": TEXT})
    yield streamed()
    yield b"in front" + made({"a.csv": TEXT})
    yield made({"a.csv": TEXT}) + b"behind"
    whole = made({"a.csv": TEXT})
    yield whole.replace(
        b"PK\x01\x02\x14\x03\x14\x00\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01\x00"
    )  # encrypted
    yield whole.replace(b"a.csv", b"b.csv", 1)  # another name in the header than in the directory
    at = whole.index(b"PK\x01\x02")
    for place, size in ((16, 4), (20, 4), (24, 4), (42, 4)):  # the checksum, both sizes and the offset
        number = int.from_bytes(whole[at + place : at + place + size], "little")
        for wrong in (0, 1, number | 1, number | 64, 2**32 - 1, 2**31):
            yield whole[: at + place] + struct.pack("<I", wrong) + whole[at + place + size :]


def made(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return file.getvalue()


def streamed() -> bytes:
    """Return a zip whose sizes stand behind the data, with the records of zip64."""

    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def tell(self) -> int:
            raise OSError

    file = Pipe()
    with (
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("a.csv", "w", force_zip64=True) as member,
    ):
        member.write(TEXT)
    return file.getvalue()


def read_by_zipfile(data: bytes) -> bytes | None:
    """Return the CSV as `zipfile` reads it; None for a refusal."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            member = next(each for each in archive.infolist() if each.filename.endswith(".csv"))
            text = archive.read(member)
            return text if len(text) == member.file_size <= BYTES_MAX else None
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError):
        return None


def read_by_unzip(data: bytes) -> bytes | None:
    try:
        return unzip(data, "f.zip", BYTES_MAX).text
    except CsvError:
        return None


@pytest.mark.parametrize("library", ["zlib", "libdeflate"])
def test_unzip_reads_what_zipfile_reads(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each zip gives the bytes that `zipfile` gives, or is refused by both."""
    if library == "zlib":
        monkeypatch.setattr(inflation, "deflate", None)
    else:
        pytest.importorskip("deflate", reason="needs the extra fast")
    for number, data in enumerate(zips()):
        expected = None if b"BZh" in data else read_by_zipfile(data)
        assert read_by_unzip(data) == expected, f"zip {number}"
        for length in range(0, len(data), 97):
            assert read_by_unzip(data[:length]) is None


def test_a_zip_with_an_unfinished_stream() -> None:
    """A CSV whose stream is cut off after its last byte is refused; `zipfile` would read it."""
    stream = packed(TEXT)
    whole = made({"a.csv": TEXT})
    assert whole.count(struct.pack("<I", len(stream))) >= 2, "both headers have the size of this stream"
    at = whole.index(b"PK\x01\x02") + 20
    cut = whole[:at] + struct.pack("<I", len(stream) - 1) + whole[at + 4 :]
    assert read_by_zipfile(cut) in (TEXT, None)
    assert read_by_unzip(cut) is None
