"""The classes of errors: their exit codes, texts and hints."""

import logging

import pytest

from lakewriter.cli.terminal import escape_stray_logs, log_to_stderr
from lakewriter.errors import ExchangeError, FrameError, LakeError, LakewriterError, UsageError, printable


@pytest.mark.parametrize(
    ("kind", "exit_code"), [(LakewriterError, 1), (LakeError, 1), (ExchangeError, 1), (UsageError, 2)]
)
def test_what_and_hint(kind, exit_code):
    """An error has one line, a separate hint and an exit code."""
    error = kind("lake: data is a file", "rm data")
    assert str(error) == error.what == "lake: data is a file"
    assert error.hint == "rm data"
    assert error.exit_code == exit_code
    assert isinstance(error, LakewriterError)
    assert kind("x").hint == ""


def test_frame_error():
    """A FrameError is an ExchangeError, and has a kind for the counts."""
    error = FrameError("json", "frame: not JSON")
    assert isinstance(error, ExchangeError)
    assert (error.kind, str(error), error.exit_code) == ("json", "frame: not JSON", 1)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://KEY:SECRET@b/x?region=r", "s3://…@b/x?region=r"),
        ("s3:/KEY:SECRET@b/x", "s3:/…@b/x"),
        ("a //KEY:SECRET@b", "a //…@b"),
        (
            "'s3://b/x?access_key=KEY&region=r&secret_key=SECRET'",
            "'s3://b/x?access_key=…&region=r&secret_key=…'",
        ),
        ("az://b?sas_token=SECRET#x", "az://b?sas_token=…#x"),
        ("me@host: /home/me@b", "me@host: /home/me@b"),
    ],
)
def test_secrets_of_a_url_are_not_shown(text: str, shown: str) -> None:
    """Neither the error nor the hint has a user name, a password or a secret option."""
    error = LakewriterError(text, text)
    assert (error.what, error.hint) == (shown, shown)


def test_control_characters_of_others_are_spelled_out():
    """Errors escape control characters, changes of direction and undecodable bytes of names and rows."""
    error = LakewriterError("a\x1b[2J\r\n\x9b31m\u202e\x00\udce9.csv: 币安 é\u00a0x", "rm 'a\x07'")
    assert error.what == r"a\u001b[2J\r\n\u009b31m\u202e\u0000\udce9.csv: 币安 é\u00a0x"
    assert str(error) == error.what
    assert error.hint == r"rm 'a\u0007'"
    assert printable(error.what) == error.what


def test_control_characters_in_a_log_line(capfd):
    """A log line stays one line, for any control characters in its values."""
    logger = logging.getLogger("lakewriter")
    log_to_stderr()
    try:
        logger.warning("%s: gone", "x\x1b]0;title\x07\ny")
    finally:
        logger.removeHandler(logger.handlers[-1])
        logger.propagate = True
    line = capfd.readouterr().err
    assert line.endswith(r" WARNING x\u001b]0;title\u0007\ny: gone" + "\n")
    assert line.count("\n") == 1


def test_control_characters_where_no_command_has_a_log():
    """Log lines outside any command reach standard error with control characters escaped."""
    before = logging.lastResort.formatter
    try:
        escape_stray_logs()
        record = logging.LogRecord(
            "lakewriter.lake", logging.WARNING, "", 0, "%s: gone", ("x\x1b[2J\n",), None
        )
        assert logging.lastResort.format(record) == r"x\u001b[2J\n: gone"
    finally:
        logging.lastResort.setFormatter(before)
