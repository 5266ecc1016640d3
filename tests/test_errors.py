"""What can go wrong on purpose, and whose fault it is."""

import pytest

from lakewriter.errors import ExchangeError, FrameError, LakeError, LakewriterError, UsageError


@pytest.mark.parametrize(
    ("kind", "exit_code"), [(LakewriterError, 1), (LakeError, 1), (ExchangeError, 1), (UsageError, 2)]
)
def test_what_and_hint(kind, exit_code):
    """An error says its line, keeps its hint apart, and knows the exit code."""
    error = kind("lake: data is a file", "rm data")
    assert str(error) == error.what == "lake: data is a file"
    assert error.hint == "rm data"
    assert error.exit_code == exit_code
    assert isinstance(error, LakewriterError)
    assert kind("x").hint == ""


def test_frame_error():
    """A frame that is not what it claims is the exchange's fault, and has a kind to count it by."""
    error = FrameError("json", "frame: not JSON")
    assert isinstance(error, ExchangeError)
    assert (error.kind, str(error), error.exit_code) == ("json", "frame: not JSON", 1)
