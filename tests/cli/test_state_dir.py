"""`--state-dir` with a lake on a disk: it has its journals in itself, so the option is refused."""

from pathlib import Path

import pytest

from lakewriter.cli import COMMANDS
from support.lakes import make_lake, rest_candle
from support.running import run, run_here

# What a command needs beside --lake; the others take no lake, or need nothing.
ARGUMENTS = {
    "record": ["spot:BTCUSDT:1m"],
    "backfill": ["spot:BTCUSDT:1m"],
    "import": ["."],
    "query": ["SELECT 1"],
    "follow": ["spot:BTCUSDT:1m"],
    "views": ["--for", "duckdb"],
    "chart": ["spot:BTCUSDT:1m"],
    "unsubscribe": ["spot:BTCUSDT:1m"],
    "forget": ["spot:BTCUSDT:1m"],
}
WITHOUT = {"init", "copy", "completion", "sandbox"}
HINT = "  leave --state-dir out; it is for a lake on s3://, gs:// or az://\n"


def refusal(lakes: str) -> str:
    return f"lakewriter: --state-dir: {lakes} on a disk, where a lake has its journals in itself\n{HINT}"


@pytest.mark.parametrize("command", sorted(COMMANDS.keys() - WITHOUT))
def test_a_lake_on_a_disk(tmp_path: Path, command: str) -> None:
    """Every command refuses a state directory that it would not use, and changes nothing."""
    more = ARGUMENTS.get(command, [])
    done = run_here(command, *more, "--lake", "here", "--state-dir", "elsewhere", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", refusal("here is"))
    done = run_here(command, *more, "--state-dir", "elsewhere", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", refusal("data is"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["record", "backfill", "doctor"])
def test_the_lake_of_the_config(tmp_path: Path, command: str) -> None:
    """The lake may be the config's."""
    (tmp_path / "lakewriter.toml").write_text('lake = "there"\nsubscriptions = ["spot:BTCUSDT:1m"]\n')
    done = run_here(command, "--state-dir", "elsewhere", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, refusal("there is"))


def test_a_copy_between_disks(tmp_path: Path) -> None:
    """A copy needs a state directory if one of the two lakes is on a store."""
    make_lake(tmp_path / "a", [rest_candle(0)])
    done = run_here("copy", "a", "b", "--state-dir", "elsewhere", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, refusal("a and b are"))
    done = run_here("copy", "a", "s3://x:y@bucket/b?nonsense=1", "--state-dir", "elsewhere", cwd=tmp_path)
    assert "nonsense" in done.stderr


def test_the_place_where_the_state_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lake's own root is right. So is the environment variable, which other lakes may need."""
    make_lake(tmp_path / "a", [rest_candle(0)])
    ask = ("gaps", "--lake", "a")
    done = run(*ask, "--state-dir", str(tmp_path / "a"), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    monkeypatch.setenv("LAKEWRITER_STATE_DIR", str(tmp_path / "elsewhere"))
    done = run(*ask, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_config_has_no_state_directory(tmp_path: Path) -> None:
    """`init` writes a config, which cannot name a state directory: the option does not exist there."""
    done = run("init", "--lake", "s3://bucket/lake", "--state-dir", "elsewhere", cwd=tmp_path)
    assert done.returncode == 2 and "No such option" in done.stderr
    assert list(tmp_path.iterdir()) == []
