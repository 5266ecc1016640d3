"""The delay in a Retry-After header, within limits. Pure.

Only a ban may block requests for days. Any other delay ends within an hour; the
next refusal may request another delay.

Source: 418 and 429 carry the seconds to wait. Bans last from 2 minutes to 3 days.
"""

import re

BANNED = 418

BAN_S_MAX = 3 * 86_400.0
WAIT_S_MAX = 3_600.0
WAIT_S_MIN = 1.0

_SECONDS = re.compile(r"[0-9]{1,15}(?:\.[0-9]{0,15})?").fullmatch


def retry_after_s(status: int, header: str | None) -> float | None:
    """Return the seconds to wait; None if the header is not a number of seconds."""
    if header is None or _SECONDS(header.strip()) is None:
        return None
    most_s = BAN_S_MAX if status == BANNED else WAIT_S_MAX
    return min(max(float(header), WAIT_S_MIN), most_s)
