"""The user of a command, for records in the lake."""

import getpass
import socket


def user_and_host() -> str:
    """Return the user and the host: "me@host". The user of a container may have no name."""
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (OSError, KeyError):
        return socket.gethostname()
