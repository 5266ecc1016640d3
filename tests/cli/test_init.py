"""`lakewriter init`: a config that names every option, and that never replaces another one unasked."""

import re
from pathlib import Path

import msgspec
import pytest

from lakewriter.cli.config_text import ConfigChoices, config_text
from lakewriter.config import Config, Endpoints, load_config
from lakewriter.market import MARKETS
from support.running import run, run_here

# Options that have no default value; the template shows an example.
EXAMPLES = {"lake", "subscriptions", "since", "exchange", "queries", "keep", "http"}


def uncommented(text: str) -> str:
    """Return the text with its options in effect."""
    return re.sub(r"^#(?=\w+ = |\[)", "", text, flags=re.MULTILINE)


def loaded(directory: Path, text: str) -> Config:
    path = directory / "any.toml"
    path.write_text(text)
    return load_config(path)


def test_the_template_has_every_option_with_its_default(tmp_path: Path) -> None:
    """With all options in effect each key of the config is there, and has its default value."""
    text = config_text(ConfigChoices(("spot:BTCUSDT:1m",)), "1m")
    config = loaded(tmp_path, uncommented(text))
    keys = set(re.findall(r"^(\w+) = ", uncommented(text), re.MULTILINE))
    assert keys == {*Config.__struct_fields__, *Endpoints.__struct_fields__} - {"markets"}
    default = Config()
    for name in set(Config.__struct_fields__) - EXAMPLES - {"markets"}:
        assert getattr(config, name) == getattr(default, name), name
    only_markets = msgspec.structs.replace(config, exchange=None)
    assert only_markets.market("spot") == MARKETS["spot"]
    assert all(getattr(config.markets["spot"], name) is not None for name in Endpoints.__struct_fields__)


def test_a_new_config_changes_nothing_but_what_was_said(tmp_path: Path) -> None:
    """As it is written a config equals the default one, except for the named options."""
    written = run_here("init", cwd=tmp_path)
    assert written.returncode == 0, written.stderr
    config = load_config(tmp_path / "lakewriter.toml")
    assert msgspec.structs.replace(config, subscriptions=()) == Config()
    assert config.subscriptions == ("spot:BTCUSDT,ETHUSDT:1m",)
    assert written.stdout.splitlines()[0] == "wrote lakewriter.toml: it records spot:BTCUSDT,ETHUSDT:1m"
    assert written.stdout.splitlines()[-1] == "  lakewriter record"


def test_each_choice_is_in_the_config(tmp_path: Path) -> None:
    """Subscriptions, lake, since and exchange of the command line are those of the config."""
    odd = 'a "lake" \\ of\x7f 币'
    done = run_here(
        "init", "usdt_futures:*USDT:1m,5m", "coin_futures:BTCUSD_PERP:1M", "--lake", odd, "--since", "30d",
        "--exchange", "http://127.0.0.1:9080", "--config", "sub dir.toml", cwd=tmp_path,
    )  # fmt: skip
    config = load_config(tmp_path / "sub dir.toml")
    assert config.subscriptions == ("usdt_futures:*USDT:1m,5m", "coin_futures:BTCUSD_PERP:1M")
    assert (config.lake, config.since, config.exchange) == (
        str(tmp_path / odd),
        "30d",
        "http://127.0.0.1:9080",
    )
    assert "lakewriter record --config 'sub dir.toml'" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["sub dir.toml"]


def test_a_relative_lake_is_the_same_directory_for_both(tmp_path: Path) -> None:
    """`--lake` means the directory seen from here, also in a config elsewhere."""
    (tmp_path / "etc").mkdir()
    run_here("init", "--lake", "candles", "--config", "etc/l.toml", cwd=tmp_path)
    assert load_config(tmp_path / "etc/l.toml").lake == str(tmp_path / "candles")


def test_a_config_is_replaced_only_with_force(tmp_path: Path) -> None:
    """An existing config stays to the byte; with --force it is replaced."""
    path = tmp_path / "lakewriter.toml"
    path.write_text("mine")
    refused = run_here("init", cwd=tmp_path)
    assert refused.returncode == 2 and path.read_text() == "mine"
    assert refused.stderr == (
        "lakewriter: init: lakewriter.toml exists\n"
        "  lakewriter init --force replaces it; lakewriter record uses it\n"
    )
    assert run_here("init", "--force", cwd=tmp_path).stdout.startswith("replaced lakewriter.toml: ")
    assert load_config(path).subscriptions


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["spot:BTCUSDT"], "lakewriter: subscription: 'spot:BTCUSDT' is not MARKET:SYMBOLS:INTERVALS"),
        (
            ["--exchange", "nowhere"],
            "lakewriter: init: exchange: 'nowhere' is not an http:// or https:// URL",
        ),
        (["--since", "soon"], "lakewriter: --since: 'soon' is not a day"),
        (["--config", "none/x.toml"], "lakewriter: init: none/x.toml: No such file or directory"),
        (["--lake", ""], "lakewriter: --lake: is empty"),
    ],
)
def test_a_mistake_writes_nothing(arguments: list[str], line: str, tmp_path: Path) -> None:
    """A wrong value is one line, and leaves no file."""
    refused = run_here("init", *arguments, cwd=tmp_path)
    assert refused.returncode in (1, 2)
    assert refused.stderr.splitlines()[0] == line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_config_is_used_by_the_next_command(tmp_path: Path) -> None:
    """`record` reads the new config; only the exchange is out of reach."""
    assert run("init", "--exchange", "http://127.0.0.1:9", cwd=tmp_path).returncode == 0
    recorded = run("record", "--duration", "100ms", cwd=tmp_path)
    assert recorded.returncode == 0 and f"recording 2 series into {tmp_path / 'data'}" in recorded.stderr
