"""The result of one check of `lakewriter doctor`."""

from typing import Literal

import msgspec

Level = Literal["ok", "warn", "fail"]


class Finding(msgspec.Struct, frozen=True):
    """The result of one check.

    Args:
        check: the name of the check, for programs and for sorting by eye.
        level: "fail" if lakewriter cannot work this way, "warn" if it can for now.
        what: the result in one line.
        advice: what to do; "" if nothing is to be done.
    """

    check: str
    level: Level
    what: str
    advice: str = ""
