"""`lakewriter init`, which writes a commented lakewriter.toml."""

import os
import shlex
from pathlib import Path

from lakewriter.cli.config_text import ConfigChoices, config_text
from lakewriter.config import FILE_NAME, load_config
from lakewriter.errors import LakewriterError, UsageError
from lakewriter.interval import INTERVALS
from lakewriter.subscription import parse_subscription

# What is recorded if no subscription is named.
DEFAULT_SUBSCRIPTION = "spot:BTCUSDT,ETHUSDT:1m"


def run(
    subscriptions: tuple[str, ...],
    config_path: str,
    since: str | None,
    exchange: str | None,
    force: bool,
    lake: str | None,
) -> None:
    """Write the config, and print the next commands."""
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
