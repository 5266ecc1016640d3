"""`lakewriter completion`: real shells complete commands, options, subscriptions and saved queries."""

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lakewriter.cli import COMMANDS, COMPLETE_VARIABLE
from support.running import PATIENCE_S, run
from support.warm_program import write_program

pytestmark = pytest.mark.slow

SYMBOLS = ("BTCUSDT", "ETHUSDT", "币安人生USDT")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Return a working directory whose `data` has the directories of a lake, and saved queries."""
    for symbol in SYMBOLS:
        (tmp_path / f"data/market=spot/symbol={symbol}").mkdir(parents=True)
    (tmp_path / "data/market=usdt_futures/symbol=BTCUSDT_260327").mkdir(parents=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/zebra.sql").write_text("-- Stripes.\nSELECT 1")
    (tmp_path / "lakewriter.toml").write_text('queries = "mine"')
    return tmp_path


@pytest.fixture(scope="module")
def path_with_command(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a PATH on which `lakewriter` is this package."""
    directory = tmp_path_factory.mktemp("bin")
    write_program(directory / "lakewriter")
    return f"{directory}:{os.environ['PATH']}"


def completed(line: str, cwd: Path, **environment: str) -> list[str]:
    """Return what the command line offers for a line, by click's protocol with fish."""
    last = "" if line.endswith(" ") else line.rpartition(" ")[2]
    asked = {COMPLETE_VARIABLE: "fish_complete", "COMP_WORDS": line, "COMP_CWORD": last, **environment}
    done = run(cwd=cwd, environment=os.environ | asked)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return [item.split("\t")[0].partition(",")[2] for item in done.stdout.splitlines() if item]


def test_each_command_is_offered_without_its_import(directory: Path) -> None:
    """The names of commands come from the table; none is imported for them."""
    assert completed("lakewriter ", directory) == list(COMMANDS)
    assert completed("lakewriter re", directory) == [name for name in COMMANDS if name.startswith("re")]
    imported = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "lakewriter"],
        env=os.environ | {COMPLETE_VARIABLE: "bash_complete", "COMP_WORDS": "lakewriter ", "COMP_PART": ""},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "lakewriter.cli.completion" in imported.stderr and "lakewriter.cli.commands" not in imported.stderr


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("lakewriter record s", ["spot:"]),
        ("lakewriter record spot:", [f"spot:{symbol}:" for symbol in SYMBOLS]),
        ("lakewriter record spot:e", ["spot:ETHUSDT:"]),
        ("lakewriter record spot:BTCUSDT,E", ["spot:BTCUSDT,ETHUSDT:"]),
        ("lakewriter record coin_futures:", ["coin_futures:BTCUSD_PERP:"]),
        (
            "lakewriter record usdt_futures:BTCUSDT:1m",
            ["usdt_futures:BTCUSDT:1m", "usdt_futures:BTCUSDT:1mo"],
        ),
        ("lakewriter record usdt_futures:BTCUSDT:1m,5", ["usdt_futures:BTCUSDT:1m,5m"]),
        ("lakewriter record forex:", []),
        ("lakewriter record spot:A:1m:", []),
        ("lakewriter coverage --market c", ["coin_futures"]),
        ("lakewriter coverage --market usdt_futures --symbol ", ["BTCUSDT_260327"]),
        ("lakewriter --lake none coverage --symbol ", []),
        ("lakewriter coverage --interval 1m", ["1m", "1mo"]),
        ("lakewriter query zeb", ["zebra"]),
        ("lakewriter query --queries none vw", []),
        ("lakewriter record --log-format ", ["text", "json"]),
        ("lakewriter completion f", ["fish"]),
    ],
)
def test_values_are_offered(line: str, offered: list[str], directory: Path) -> None:
    """Each kind of value is completed from tables, the lake's directories and the queries; errors offer none."""
    assert completed(line, directory) == offered


def test_a_lake_of_the_environment_or_config_is_used(directory: Path, tmp_path: Path) -> None:
    """The symbols are those of the lake that the command would use."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    here = {"LAKEWRITER_LAKE": str(directory / "data")}
    assert completed("lakewriter forget spot:E", elsewhere, **here) == ["spot:ETHUSDT:"]
    (elsewhere / "lakewriter.toml").write_text(f'lake = "{directory / "data"}"')
    assert completed("lakewriter record spot:E", elsewhere) == ["spot:ETHUSDT:"]
    (elsewhere / "lakewriter.toml").write_text("broken")
    assert completed("lakewriter record spot:E", elsewhere) == []


class Shell:
    """An interactive shell on a terminal of its own."""

    def __init__(self, words: list[str], cwd: Path, path: str) -> None:
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.chdir(cwd)
            environment = os.environ | {
                "PATH": path,
                "TERM": "dumb",
                "PS1": "$ ",
                "HISTFILE": "/dev/null",
            }
            if "UTF-8" not in os.environ.get("LC_ALL", os.environ.get("LANG", "")):
                environment["LC_ALL"] = "C.UTF-8"
            os.execvpe(words[0], words, environment)

    def type(self, text: str, until: str) -> str:
        """Type a text, and return what the shell shows up to a pattern."""
        os.write(self._fd, text.encode())
        shown, deadline_s = b"", time.monotonic() + PATIENCE_S
        while not re.search(until, shown.decode(errors="replace")):
            assert time.monotonic() < deadline_s, shown
            if select.select([self._fd], [], [], 0.2)[0]:
                shown += os.read(self._fd, 4096)
        return shown.decode(errors="replace")

    def end(self) -> None:
        os.close(self._fd)
        os.waitpid(self.pid, 0)


@pytest.fixture(params=["bash", pytest.param("zsh", marks=pytest.mark.long)])
def shell(request: pytest.FixtureRequest, directory: Path, path_with_command: str) -> Iterator[Shell]:
    """Start a shell without the user's files, which has loaded the script."""
    name = request.param
    if shutil.which(name) is None:
        pytest.skip(f"needs {name}")
    words = {"bash": ["bash", "--norc", "--noprofile", "-i"], "zsh": ["zsh", "-f", "-i"]}[name]
    started = Shell(words, directory, path_with_command)
    before = "autoload -Uz compinit && compinit -u -D; " if name == "zsh" else ""
    started.type(f"{before}source <(lakewriter completion {name}); echo rea''dy\n", "ready\r?\n")
    yield started
    started.end()


def test_a_real_shell_completes(shell: Shell) -> None:
    """A whole word gets a space, a part gets none, also after colons and commas and in an option."""
    shell.type("lakewriter cove\t", r"lakewriter coverage ")
    shell.type(
        "--mar\tspo\t--inter\t1h\t\x01echo <\x05>\n", r"<lakewriter coverage --market spot --interval 1h ?>"
    )
    shell.type("lakewriter record sp\t", r"spot:")
    shell.type("e\t1d\t\x01echo '<\x05>'\n", r"<lakewriter record spot:ETHUSDT:1d ?>")
    shell.type(
        "lakewriter record spot:BTCUSDT,e\t15\t\x01echo '<\x05>'\n",
        r"<lakewriter record spot:BTCUSDT,ETHUSDT:15m ?>",
    )


@pytest.mark.skipif(shutil.which("fish") is None, reason="needs fish")
def test_fish_completes(directory: Path, path_with_command: str) -> None:
    """Fish offers values with commas whole, and commands with their line."""
    script = (
        "lakewriter completion fish | source; complete -C 'lakewriter record spot:BTCUSDT,'; "
        "complete -C 'lakewriter unsub'"
    )
    done = subprocess.run(
        ["fish", "--no-config", "-c", script],
        cwd=directory, env=os.environ | {"PATH": path_with_command}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    *symbols, command = done.stdout.splitlines()
    assert symbols == [f"spot:BTCUSDT,{symbol}:" for symbol in SYMBOLS[1:]]
    assert command == f"unsubscribe\t{COMMANDS['unsubscribe']}"


def test_an_unknown_shell_is_refused(tmp_path: Path) -> None:
    """Another shell is wrong usage, with the known ones."""
    refused = run("completion", "tcsh", cwd=tmp_path)
    assert refused.returncode == 2 and "'bash', 'zsh', 'fish'" in refused.stderr
