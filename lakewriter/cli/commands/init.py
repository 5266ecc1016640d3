"""`lakewriter init`, which writes a commented lakewriter.toml."""

import os
import shlex
from pathlib import Path

import click

from lakewriter.cli import lake_uri_option
from lakewriter.cli.config_text import ConfigChoices, config_text
from lakewriter.cli.subscription_options import exchange_option, subscriptions_argument
from lakewriter.config import FILE_NAME, load_config
from lakewriter.errors import LakewriterError, UsageError
from lakewriter.interval import INTERVALS
from lakewriter.subscription import parse_subscription

# What is recorded if no subscription is named.
DEFAULT_SUBSCRIPTION = "spot:BTCUSDT,ETHUSDT:1m"


@click.command(name="init", short_help="Write a commented lakewriter.toml.")
@subscriptions_argument()
@click.option(
    "--config", "config_path", metavar="FILE", default=FILE_NAME, show_default=True, help="The file to write."
)
@click.option(
    "--since", metavar="DATE|AGE", help="Also fetch the history from this day on: 2024-06-30, or 30d."
)
@exchange_option
@click.option("--force", is_flag=True, help="Replace a file that exists.")
@lake_uri_option
def command(
    subscriptions: tuple[str, ...],
    config_path: str,
    since: str | None,
    exchange: str | None,
    force: bool,
    lake: str | None,
) -> None:
    """Write a lakewriter.toml with every option, its meaning and its default.

    The named subscriptions and options are set; all others are commented out.
    Without a subscription it records two symbols of spot. An existing file stays
    as it is without --force.

    \b
    lakewriter init
    lakewriter init 'usdt_futures:*USDT:1m,5m' --lake /srv/candles --since 2024-01-01
    lakewriter init spot:BTCUSDT:1m --exchange http://127.0.0.1:9080 --force
    """
    path = Path(config_path).expanduser()
    chosen = subscriptions or (DEFAULT_SUBSCRIPTION,)
    for text in chosen:
        parse_subscription(text)
    choices = ConfigChoices(chosen, _seen_from(path, lake), since, exchange)
    is_new = not path.exists()
    if not is_new and not force:
        raise UsageError(
            f"init: {path} exists", f"lakewriter init --force replaces it; {_record(path)} uses it"
        )
    _write(path, config_text(choices, " ".join(INTERVALS)), since)
    print(f"{'wrote' if is_new else 'replaced'} {path}: {_described(chosen)}")
    print("next, check this machine, then record:\n")
    print(f"  lakewriter doctor{_flag(path)}\n  {_record(path)}")


def _seen_from(path: Path, lake: str | None) -> str | None:
    """Return the lake as the config must name it: a relative path there starts at the config's directory."""
    if lake is None or "://" in lake or lake.startswith("~") or path.parent.resolve() == Path.cwd():
        return lake
    return str(Path(lake).absolute())


def _write(path: Path, text: str, since: str | None) -> None:
    """Write the config to a file beside it, check it there, and rename it."""
    from lakewriter.cli.moment import parse_day

    parse_day(since, "--since")
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        temporary.write_text(text)
        load_config(temporary)
        temporary.replace(path)
    except UsageError as error:
        raise UsageError(error.what.replace(str(temporary), "init"), error.hint) from None
    except OSError as error:
        raise LakewriterError(f"init: {path}: {error.strerror}", "lakewriter init --config FILE") from None
    except UnicodeEncodeError:
        raise UsageError("init: a name is not UTF-8 text") from None
    finally:
        temporary.unlink(missing_ok=True)


def _described(subscriptions: tuple[str, ...]) -> str:
    """Return the subscriptions in a few words."""
    more = f" and {len(subscriptions) - 3} more" if len(subscriptions) > 3 else ""
    return f"it records {', '.join(subscriptions[:3])}{more}"


def _flag(path: Path) -> str:
    return "" if path == Path(FILE_NAME) else f" --config {shlex.quote(str(path))}"


def _record(path: Path) -> str:
    return f"lakewriter record{_flag(path)}"
