"""The metrics of a recorder: their names, their values, and the documents that name them."""

import asyncio
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from lakewriter.clock import Clock
from lakewriter.recording.listening.reopening import REASONS
from lakewriter.recording.recorder import Recorder
from lakewriter.sandbox.server import SandboxOptions, serve
from lakewriter.web.app import make_app
from lakewriter.web.metrics import RecorderMetrics
from lakewriter.web.recorder_routes import recorder_routes
from lakewriter.web.server import Address, bind, listening
from support.recording import OfflineRecorder, recording
from support.refusing_lake import refusing
from support.running import REPOSITORY, until
from support.side_by_side import side_by_side

PAGE = REPOSITORY / "docs" / "reference" / "metrics.md"
RULES = REPOSITORY / "deploy" / "prometheus" / "lakewriter.rules.yml"
DASHBOARD = REPOSITORY / "deploy" / "grafana" / "lakewriter.json"

FAST = SandboxOptions(speed=300.0, push_every_ms=100, symbols=8)

# A name in PromQL that is no function, keyword or label.
_NAMES = re.compile(r"\b(?:lakewriter|process)_\w+")


def text_of(recorder: Recorder) -> bytes:
    return RecorderMetrics(recorder.status, recorder.counters).text()


def families(text: bytes) -> dict[str, Metric]:
    """Parse the metrics; return the families by the name that the documents use."""
    found = {}
    for family in text_string_to_metric_families(text.decode()):
        suffix = {"counter": "_total"}.get(family.type, "")
        found[family.name + suffix] = family
    return found


def values(family: Metric, *labels: str) -> dict[tuple[str, ...], float]:
    """Return the values of a family's samples by some of their labels."""
    return {tuple(sample.labels[label] for label in labels): sample.value for sample in family.samples}


def documented() -> dict[str, set[str]]:
    """Return the labels of each metric in the page's table."""
    rows = re.findall(r"^\| `(lakewriter_\w+)` \|([^|]*)\|", PAGE.read_text(), re.MULTILINE)
    return {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows}


def expressions() -> list[str]:
    """Return each PromQL expression of the dashboard and the alerts."""
    dashboard = json.loads(DASHBOARD.read_text())
    shown = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    variables = [each["definition"] for each in dashboard["templating"]["list"] if "definition" in each]
    return [*shown, *variables, *re.findall(r"^ +expr: (.*)$", RULES.read_text(), re.MULTILINE)]


def promtool(*arguments: str, stdin: bytes = b"") -> None:
    """Run promtool, and fail if it finds anything; skip the test without it."""
    if shutil.which("promtool") is None:
        pytest.skip("needs promtool, for example of Debian's package prometheus")
    done = subprocess.run(["promtool", *arguments], input=stdin, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b""), done


@pytest.mark.slow
@side_by_side
async def test_metrics_of_a_recorder_at_work(tmp_path: Path) -> None:
    """The values agree with what happened, and each metric is in the documents, with its labels."""
    wanted = "spot:BTCUSDT,ETHUSDT:1m", "coin_futures:BTCUSD_PERP:1m"
    async with (
        serve(FAST) as sandbox,
        recording(sandbox, tmp_path / "lake", *wanted, flush_every_s=0.5) as running,
    ):
        recorder = running.recorder
        await until(lambda: recorder.stats.flushes >= 2 and recorder.stats.recorded >= 10)
        await sandbox.drop_connections()
        await until(
            lambda: all(each.stats.reopened["lost"] for each in running.supervisor.listeners.values())
        )
        # The second connection is open once its subscriptions are acknowledged.
        await until(
            lambda: all(each.stats.frames["reply"] >= 2 for each in running.supervisor.listeners.values())
        )
        await until(lambda: recorder.status().disk is not None)
        text = text_of(recorder)
        found = families(text)
        ours = {name: family for name, family in found.items() if name.startswith("lakewriter_")}

        absent = {"lakewriter_clock_offset_seconds"}  # the sandbox's clock is too fast for it
        assert {*ours} | absent == {*documented()}
        for name, family in ours.items():
            assert family.documentation.endswith("."), name
            labels = {label for sample in family.samples for label in sample.labels} - {"le"}
            assert labels == documented()[name] or (name in absent and not family.samples), name

        frames = values(found["lakewriter_frames_total"], "market", "kind")
        for market, listener in running.supervisor.listeners.items():
            received = sum(count for (of, _), count in frames.items() if of == market)
            assert received == recorder.counters().markets[market].frames == listener.frames
            assert frames[market, "closed_candle"] > 0
            assert frames[market, "open_candle"] > 0
            assert frames[market, "reply"] >= 2
        reconnects = values(found["lakewriter_reconnects_total"], "market", "reason")
        assert {reason for _, reason in reconnects} == {*REASONS}
        assert reconnects["spot", "lost"] >= 1
        assert reconnects["coin_futures", "lost"] >= 1

        assert values(found["lakewriter_candles_recorded_total"]) == {(): recorder.stats.recorded}
        assert values(found["lakewriter_series"], "state")[("live",)] == 3
        assert values(found["lakewriter_rest_weight_spent_total"], "pool")[("futures",)] > 0
        lag = {
            (sample.labels.get("le"), sample.labels["source"]): sample.value
            for sample in found["lakewriter_candle_lag_seconds"].samples
        }
        assert lag["+Inf", "stream"] == recorder.freshness.streamed.count > 0
        flushes = {each.name: each.value for each in found["lakewriter_flush_duration_seconds"].samples}
        assert flushes["lakewriter_flush_duration_seconds_count"] == recorder.stats.flushes

        names = {sample.name for family in found.values() for sample in family.samples} | absent
        for expression in expressions():
            used = set(_NAMES.findall(expression))
            assert used or expression.startswith("up{")
            assert used <= names, expression
        await asyncio.to_thread(promtool, "check", "metrics", stdin=text)


def test_names_follow_the_rules_of_prometheus() -> None:
    """Counters end in _total and others do not; units are base units; names have one prefix."""
    for name in documented():
        assert re.fullmatch(r"lakewriter_[a-z]+(_[a-z]+)*", name)
        assert not re.search(
            r"_(ms|us|millis\w*|micros\w*|minutes|hours|kb|mb|percent|count|sum|bucket)(_|$)", name
        )
    assert not {name for name in documented() if name.endswith(("_total_seconds", "_seconds_total_total"))}


def test_the_reasons_of_reconnects_are_documented() -> None:
    """The page explains each reason, and no other."""
    section = PAGE.read_text().partition("## Reasons of reconnects")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)`", section, re.MULTILINE)) == {*REASONS}


def test_expressions_are_valid(tmp_path: Path) -> None:
    """promtool accepts the alerts, and each expression of the dashboard as a rule."""
    promtool_rules = tmp_path / "rules.yml"
    rules = []
    for number, expression in enumerate(expressions()):
        if not expression.startswith("label_values"):
            plain = (
                re.sub(r"\$__rate_interval", "5m", expression)
                .replace("$job", ".*")
                .replace("$instance", ".*")
            )
            rules.append(f"  - record: test:{number}\n    expr: {json.dumps(plain)}\n")
    promtool_rules.write_text("groups:\n- name: test\n  rules:\n" + "".join(rules))
    for path in (promtool_rules, RULES):
        promtool("check", "rules", str(path))


def test_a_recorder_that_waits_for_its_first_candle_raises_no_alert(tmp_path: Path) -> None:
    """A new recorder of 1d is not healthy for a day and raises no alert; a failing one does."""
    unhealthy = "LakewriterUnhealthy"
    alert = {"exp_labels": {"severity": "page", "instance": "b"}, "exp_annotations": {
        "summary": "Candles are overdue on b.",
        "description": "curl -s http://b/healthz says why.",
    }}  # fmt: skip
    series = {
        'lakewriter_healthy{instance="a"}': "0x20",
        'lakewriter_starting{instance="a"}': "1x20",
        'lakewriter_healthy{instance="b"}': "0x20",
        'lakewriter_starting{instance="b"}': "0x20",
    }
    # JSON is YAML too.
    test = {
        "rule_files": [str(RULES)],
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": each} for name, each in series.items()],
                "alert_rule_test": [{"eval_time": "10m", "alertname": unhealthy, "exp_alerts": [alert]}],
            }
        ],
    }
    path = tmp_path / "test.yml"
    path.write_text(json.dumps(test))
    promtool("test", "rules", str(path))


@pytest.mark.slow
@side_by_side
async def test_a_flood_of_requests_costs_no_candle(tmp_path: Path) -> None:
    """While clients ask as fast as they can, each candle arrives by its stream and in time."""
    async with (
        serve(FAST) as sandbox,
        recording(sandbox, tmp_path / "lake", "spot:BTCUSDT,ETHUSDT:1m") as running,
    ):
        listeners = bind(Address("127.0.0.1", 0), "--http")
        port = listeners[0].getsockname()[1]

        async def flood() -> None:
            while True:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                try:
                    writer.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n" * 50)
                    await reader.read(100_000)
                finally:
                    writer.transport.abort()

        async with listening(make_app(recorder_routes(running.recorder, Clock())), listeners):
            clients = [asyncio.create_task(flood()) for _ in range(30)]
            before = running.recorder.stats.recorded
            await running.past(sandbox.now_ms() + 10 * 60_000)
            assert not any(client.done() for client in clients)
            for client in clients:
                client.cancel()
            await asyncio.gather(*clients, return_exceptions=True)
        assert running.recorder.stats.recorded >= before + 18
        assert running.supervisor.healer.stats.healed == 0


def test_answers_of_a_recorder(tmp_path: Path) -> None:
    """Without candles the probe fails; the other paths answer; an answer is used for half a second."""

    class ToldClock(Clock):
        now_s = 100.0

        def monotonic_s(self) -> float:
            return self.now_s

    async def main() -> None:
        clock = ToldClock()
        recorder = OfflineRecorder(refusing(tmp_path))
        handlers = {route.path: route.handler for route in recorder_routes(recorder, clock)}  # type: ignore[attr-defined]
        stop = asyncio.Event()
        running = asyncio.create_task(recorder.run(stop))
        health = await handlers["/healthz"](None)
        assert (health.status, json.loads(health.body)["reason"]) == (503, "no candle is recorded yet")
        status = json.loads((await handlers["/status.json"](None)).body)
        assert (status["recorded"], status["series"], status["markets"]) == (0, 0, [])
        metrics = await handlers["/metrics"](None)
        assert b"lakewriter_healthy 0.0\n" in metrics.body and b"lakewriter_starting 1.0\n" in metrics.body
        assert metrics.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert b"lakewriter_candles_recorded_total 0.0\n" in metrics.body
        recorder.stats.recorded = 7
        assert (await handlers["/metrics"](None)).body == metrics.body
        clock.now_s += 1
        assert b"lakewriter_candles_recorded_total 7.0\n" in (await handlers["/metrics"](None)).body
        stop.set()
        await running

    asyncio.run(main())
