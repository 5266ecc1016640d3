"""Which packages of the extra `fast` are used, and the event loop of a command."""

import asyncio
import sys
from pathlib import Path

import pytest

from lakewriter import event_loop
from lakewriter.errors import UsageError
from lakewriter.fast_packages import VARIABLE, fast_package, used_versions

NAMES = ("picows", "uvloop")


@pytest.fixture(autouse=True)
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put packages of known versions in place of the installed ones."""
    for name in NAMES:
        monkeypatch.setitem(sys.modules, name, None)
        del sys.modules[name]  # after the test the entry is as before, or absent
        (tmp_path / f"{name}.py").write_text(f"__version__ = {'2.9' if name == 'picows' else '0.9'!r}\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in (VARIABLE, *(f"{each}_proxy" for each in ("http", "https", "socks", "all"))):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("value", "used"),
    [
        ("", ["picows 2.9", "uvloop 0.9"]),
        ("off", []),
        ("picows", ["picows 2.9"]),
        ("uvloop, picows", ["picows 2.9", "uvloop 0.9"]),
    ],
)
def test_the_variable_chooses(value: str, used: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """All that are installed are used, or those that the variable names, or none."""
    monkeypatch.setenv(VARIABLE, value)
    assert used_versions() == used


@pytest.mark.parametrize("text", ["raise ImportError\n", "__version__ = '3.0'\n"])
def test_a_package_that_does_not_fit_is_not_used(text: str, packages: Path) -> None:
    """A package that cannot be imported, or has another interface, is as if it were absent."""
    packages.joinpath("picows.py").write_text(text)
    assert fast_package("picows") is None and used_versions() == ["uvloop 0.9"]


def test_an_unknown_name_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistyped name is told, with the known ones."""
    monkeypatch.setenv(VARIABLE, "picow")
    with pytest.raises(UsageError, match="LAKEWRITER_FAST: 'picow' is none of picows, uvloop"):
        used_versions()


def test_behind_a_proxy_no_more_is_claimed_than_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """uvloop is not used, and picows only for hosts that `no_proxy` names."""
    monkeypatch.setenv("no_proxy", "localhost")
    assert used_versions() == ["picows 2.9", "uvloop 0.9"]
    monkeypatch.setenv("all_proxy", "socks5h://127.0.0.1:1")
    assert used_versions() == ["picows 2.9 for hosts without a proxy"]


def test_a_command_runs_on_uvloop_unless_there_is_a_proxy(
    packages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With uvloop its loop is used; with a proxy, or without uvloop, asyncio's own."""
    packages.joinpath("uvloop.py").write_text(
        "import asyncio\n__version__ = '0.9'\n"
        "class Loop(asyncio.SelectorEventLoop): pass\ndef new_event_loop(): return Loop()\n"
    )

    async def loop_name() -> str:
        return type(asyncio.get_running_loop()).__name__

    assert event_loop.run(loop_name()) == "Loop"
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    assert event_loop.run(loop_name()) != "Loop"
    monkeypatch.delenv("https_proxy")
    monkeypatch.setenv(VARIABLE, "off")
    assert event_loop.run(loop_name()) != "Loop"
