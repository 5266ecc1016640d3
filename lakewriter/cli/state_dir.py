"""The option `--state-dir`: a lake on an object store keeps its journals and ledgers there, on this host."""

import os
from collections.abc import Callable
from typing import Any

import click

from lakewriter.errors import UsageError

_CHOSEN = "lakewriter.state_dir"


def state_dir_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--state-dir` to a command. It sets the environment variable that a lake's location reads.

    The command calls `check_state_dir` with its lakes; `lake_option` does so for `--lake`.
    """

    def set_state_dir(ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
        if value == "":
            raise UsageError("--state-dir: is empty", "give a directory")
        if value is not None:
            from lakewriter.lake.root import STATE_VARIABLE

            ctx.meta[_CHOSEN] = value
            os.environ[STATE_VARIABLE] = value

    return click.option(
        "--state-dir",
        metavar="DIR",
        expose_value=False,
        callback=set_state_dir,
        help="Local journals and ledgers of a lake on an object store.  [default: one for each lake]",
    )(function)


def check_state_dir(*lakes: str) -> None:
    """Raise if `--state-dir` names a directory, and all lakes are on a disk: they would not use it.

    The environment variable alone may be set for other lakes, so it is not checked.

    Args:
        lakes: the URIs of the lakes of the command.

    Raises:
        UsageError: if so. The root of a lake is no error, because its state is there.
    """
    chosen: str | None = click.get_current_context().meta.get(_CHOSEN)
    if chosen is None or any("://" in lake for lake in lakes):
        return
    from lakewriter.lake.root import local_root

    if local_root(chosen) not in [local_root(lake) for lake in lakes]:
        names, verb = (lakes[0], "is") if len(lakes) == 1 else (" and ".join(lakes), "are")
        raise UsageError(
            f"--state-dir: {names} {verb} on a disk, where a lake has its journals in itself",
            "leave --state-dir out; it is for a lake on s3://, gs:// or az://",
        )
