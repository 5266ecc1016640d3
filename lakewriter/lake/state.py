"""Where this machine keeps what is no lake's own: below the state directory of the XDG rules."""

import os
from pathlib import Path

from lakewriter.errors import UsageError


def state_path(*parts: str) -> Path:
    """Return the path of what lakewriter keeps by these names; nothing need be there.

    Raises:
        UsageError: if this user has no home directory, as in some containers.
    """
    state = os.environ.get("XDG_STATE_HOME", "")
    try:
        # The rules have a relative path be ignored.
        home = Path(state) if state.startswith("/") else Path("~/.local/state").expanduser()
    except RuntimeError:
        raise UsageError(
            "state: this user has no home directory", "export XDG_STATE_HOME=/var/lib/lakewriter"
        ) from None
    return home.joinpath("lakewriter", *parts)
