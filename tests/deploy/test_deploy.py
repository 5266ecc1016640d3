"""The files of deploy/: systemd, cron, launchd and the Dockerfile are valid, and run commands that exist."""

import plistlib
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from lakewriter.cli import COMMANDS, cli
from lakewriter.recording.recorder import STOP_PATIENCE_S
from lakewriter.subscription import parse_subscription
from support.running import REPOSITORY

DEPLOY = REPOSITORY / "deploy"
UNITS = sorted((DEPLOY / "systemd").iterdir())
INSTALLED = "/opt/lakewriter/bin/lakewriter"


def parse_command(words: list[str]) -> dict[str, object]:
    """Parse the arguments of `lakewriter`; return the parameters of its command."""
    context = cli.make_context("lakewriter", list(words))
    name = next(word for word in words if word in COMMANDS)
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    parsed = command.make_context(name, words[words.index(name) + 1 :], parent=context).params
    for subscription in parsed.get("subscriptions", ()):
        parse_subscription(subscription)
    return parsed


def settings(unit: Path) -> dict[str, str]:
    """Return the settings of a unit; of a repeated one, the last."""
    return dict(re.findall(r"^(\w+)=(.*)$", unit.read_text(), re.MULTILINE))


def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    """`systemd-analyze verify` finds nothing, once the programs exist."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    copies = []
    for unit in UNITS:
        copies.append(tmp_path / unit.name)
        copies[-1].write_text(unit.read_text().replace(INSTALLED, sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *map(str, copies)], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_systemd_finds_the_service_hardened() -> None:
    """`systemd-analyze security` rates the exposure of each service as low."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    for unit in DEPLOY.glob("systemd/*.service"):
        done = subprocess.run(
            ["systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager", str(unit)],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout[-300:] + done.stderr


def test_the_service_agrees_with_the_recorder() -> None:
    """The recorder notifies, so the type is notify; a stop has time; a wrong config is not tried again."""
    service = settings(DEPLOY / "systemd" / "lakewriter.service")
    assert (service["Type"], service["NotifyAccess"]) == ("notify", "main")
    assert service["TimeoutStartSec"] == "infinity"
    assert int(service["TimeoutStopSec"]) > STOP_PATIENCE_S
    assert service["RestartPreventExitStatus"] == "2"
    # Both services have the same user, so that they may write the same lake.
    compact = settings(DEPLOY / "systemd" / "lakewriter-compact.service")
    assert service.get("User", "lakewriter") == compact["User"] == "lakewriter"


@pytest.mark.parametrize(
    "unit", [unit for unit in UNITS if unit.suffix == ".service"], ids=lambda unit: unit.name
)
def test_services_run_commands_that_exist(unit: Path) -> None:
    """The command line accepts ExecStart."""
    program, *words = shlex.split(settings(unit)["ExecStart"])
    assert program == INSTALLED
    parse_command(words)


def test_cron_runs_commands_that_exist() -> None:
    """The command line accepts each line; each has five times and a user."""
    lines = [
        line
        for line in (DEPLOY / "cron" / "lakewriter").read_text().splitlines()
        if not line.startswith(("#", "MAILTO"))
    ]
    assert len(lines) == 3
    for line in lines:
        found = re.fullmatch(r"(?:\S+ ){5} *lakewriter +" + INSTALLED + r" (.*?)(?: *>.*)?", line)
        assert found, line
        parse_command(shlex.split(found[1]))


def test_launchd_reads_the_agent() -> None:
    """The property list is valid, and its command exists."""
    agent = plistlib.loads((DEPLOY / "launchd" / "lakewriter.plist").read_bytes())
    assert agent["Label"] == "lakewriter"
    assert agent["ExitTimeOut"] > STOP_PATIENCE_S
    _, *words = agent["ProgramArguments"]
    parse_command(words)


def test_the_image_records_as_another_user() -> None:
    """The Dockerfile's entry point is a command that exists; its files exist; it does not run as root."""
    text = (DEPLOY / "docker" / "Dockerfile").read_text().replace("\\\n", " ")
    [entry] = re.findall(r"^ENTRYPOINT (\[.*\])$", text, re.MULTILINE)
    program, *words = re.findall(r'"([^"]*)"', entry)
    assert program == "lakewriter"
    assert parse_command([*words, "spot:BTCUSDT:1m"])["http"] == "0.0.0.0:9464"
    assert re.findall(r"^USER (.*)$", text, re.MULTILINE) == ["10001:10001"]
    assert re.search(r"^HEALTHCHECK .*/healthz", text, re.MULTILINE)
    for copied in re.findall(r"^COPY (?!--)(.*) \S+$", text, re.MULTILINE):
        for name in copied.split():
            assert (REPOSITORY / name).exists()
