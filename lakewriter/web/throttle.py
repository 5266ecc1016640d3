"""A limit of events per second, with bursts. Pure: the time is passed in."""


class Throttle:
    """A limit for events, which are delayed and never dropped.

    Args:
        per_s: maximum number of events per second in the long run.
        burst: number of events that may happen at once after a pause.
    """

    def __init__(self, per_s: float, burst: int) -> None:
        self._step_s = 1 / per_s
        self._burst_s = burst / per_s
        # The time at which all events so far are paid for.
        self._paid_s = float("-inf")

    def wait_s(self, now_s: float) -> float:
        """Count one event, and return the seconds to wait before it."""
        self._paid_s = max(self._paid_s, now_s) + self._step_s
        return max(0.0, self._paid_s - self._burst_s - now_s)
