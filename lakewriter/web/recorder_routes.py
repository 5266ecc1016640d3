"""The routes of a running recorder: /healthz, /metrics and /status.json.

The answers are made from counts in memory, at most twice a second each.
So they cost the recorder little, however many clients ask.
"""

from typing import Protocol

from aiohttp import web

from lakewriter.clock import Clock
from lakewriter.errors import UsageError
from lakewriter.recording.health import judge
from lakewriter.recording.status import RecorderStatus
from lakewriter.recording.status_snapshot import RecorderCounters
from lakewriter.web.app import json_answer
from lakewriter.web.kept import Kept

# Time for which an answer is used. Scrapes are seconds apart.
KEPT_S = 0.5

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class StatusOwner(Protocol):
    """A recorder, as far as its routes need it."""

    def status(self) -> RecorderStatus:
        """Return the present counts."""

    def counters(self) -> RecorderCounters:
        """Return the counts in detail."""


def check_metrics(what: str) -> None:
    """Check that /metrics can be answered.

    Args:
        what: the option's name, for the error.

    Raises:
        UsageError: if prometheus_client is not installed.
    """
    try:
        import prometheus_client  # noqa: F401, PLC0415 - an optional dependency
    except ImportError:
        raise UsageError(
            f"{what}: prometheus-client is not installed", "pip install 'lakewriter[http]'"
        ) from None


def recorder_routes(recorder: StatusOwner, clock: Clock) -> list[web.AbstractRouteDef]:
    """Return the routes of a recorder, after `check_metrics`.

    Args:
        clock: measures the age of answers.
    """
    from lakewriter.web.metrics import RecorderMetrics  # noqa: PLC0415 - needs an optional dependency

    status = Kept(recorder.status, KEPT_S, clock.monotonic_s)
    metrics = Kept(RecorderMetrics(status, recorder.counters).text, KEPT_S, clock.monotonic_s)

    async def healthz(_: web.Request) -> web.Response:
        health = judge(status())
        return json_answer(health, 200 if health.status == "ok" else 503)

    async def metrics_text(_: web.Request) -> web.Response:
        return web.Response(body=metrics(), headers={"Content-Type": METRICS_TYPE})

    async def status_json(_: web.Request) -> web.Response:
        return json_answer(status())

    return [
        web.get("/healthz", healthz),
        web.get("/metrics", metrics_text),
        web.get("/status.json", status_json),
    ]
