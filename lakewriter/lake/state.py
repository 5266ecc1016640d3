"""Where this machine keeps what is no lake's own: below the state directory of the XDG rules."""

import os
from pathlib import Path


def state_path(*parts: str) -> Path:
    """Return the path of what lakewriter keeps by these names; nothing need be there."""
    state = os.environ.get("XDG_STATE_HOME", "")
    # The rules have a relative path be ignored.
    home = Path(state) if state.startswith("/") else Path("~/.local/state").expanduser()
    return home.joinpath("lakewriter", *parts)
