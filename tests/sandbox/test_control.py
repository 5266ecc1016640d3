"""The sandbox's control endpoint, and the syntax of faults."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
import websockets

from lakewriter.errors import UsageError
from lakewriter.interval import HOUR_MS, MINUTE_MS
from lakewriter.sandbox import FAULTS, Fault, Sandbox, SandboxOptions
from lakewriter.sandbox.faults.fault_syntax import load_faults, parse_argument, parse_json, parse_moment
from support.piped import Piped
from support.running import PATIENCE_S
from support.running import run as run_command
from support.sandboxes import QUIET, START_MS, call, closed_candles, dial, get, run

STILL = SandboxOptions(speed=0.001, start_ms=START_MS)
NOON_MS = START_MS + 12 * HOUR_MS


async def post(sandbox: Sandbox, body: Any) -> tuple[int, Any]:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    status, answer, _ = await call(sandbox, "POST", "/control/faults", data=content)
    return status, answer


@pytest.mark.slow
def test_the_state_is_told() -> None:
    """The state has the counts, the active faults and the possible ones."""

    async def scenario(sandbox: Sandbox) -> None:
        async with dial(sandbox, "spot", "/ws/btcusdt@kline_1m/x"):
            await get(sandbox, "/spot/api/v3/ping")
            fault = sandbox.add_fault(Fault("late_close", "spot", ("BTCUSDT",), value=3))
            status, state, _ = await get(sandbox, "/control")
        assert status == 200
        assert START_MS <= state["now_ms"] <= sandbox.now_ms()
        assert (state["speed"], state["connections"], state["streams"]) == (0.001, 1, 2)
        assert (state["requests"], state["violations"]) == ({"ping": 1}, {})
        assert list(state["faults"]) == [str(fault)]
        assert state["faults"][str(fault)]["symbols"] == ["BTCUSDT"]
        assert set(state["names"]) == set(FAULTS)
        assert state["names"]["late_close"] == {
            "description": "closing frames come later",
            "value": "simulated seconds",
            "default": 10,
        }

    run(scenario, STILL)


@pytest.mark.slow
def test_faults_come_and_go() -> None:
    """A POST adds a fault and a DELETE removes it; both change the frames."""

    async def scenario(sandbox: Sandbox) -> None:
        status, answer = await post(sandbox, {"name": "missing_close", "market": "spot", "in_s": 0})
        assert (status, answer) == (200, {"id": 1})
        assert (await post(sandbox, {"name": "duplicate_close", "symbols": ["BTCUSDT"]}))[1] == {"id": 2}
        async with dial(sandbox, "spot", "/ws/btcusdt@kline_1m") as ws:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await ws.recv()
            assert (await call(sandbox, "DELETE", "/control/faults/1"))[0] == 200
            events = await closed_candles(ws, 2)
            assert events[0] == events[1]
            assert (await call(sandbox, "DELETE", "/control/faults"))[0] == 200
            assert not sandbox.faults.all()

    run(scenario, QUIET)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{", "fault: not a JSON object"),
        (b"[]", "fault: not a JSON object"),
        ({}, "required field `name`"),
        ({"name": "nothing"}, "fault: 'nothing' is unknown"),
        ({"name": "late_close", "colour": "red"}, "unknown field `colour`"),
        ({"name": "late_close", "value": "much"}, "fault: Expected `float`"),
        ({"name": "late_close", "start": "soon"}, "time: 'soon' is not like"),
        ({"name": "late_close", "start": [1]}, "time: [1] is not like"),
        ({"name": "late_close", "start_ms": 1, "in_s": 1}, "fault: its start is given twice"),
        ({"name": "late_close", "for_s": -1}, "fault: for_s: -1 is not a number of seconds"),
        ({"name": "late_close", "market": "moon"}, "market: 'moon' is unknown"),
    ],
)
def test_nonsense_is_a_400_with_one_line(body: Any, said: str) -> None:
    """An invalid request is answered with one line, and changes nothing."""

    async def scenario(sandbox: Sandbox) -> None:
        status, answer = await post(sandbox, body)
        assert status == 400
        assert said in answer.decode()
        assert answer.decode().count("\n") == 1
        assert not sandbox.faults.all()

    run(scenario, STILL)


@pytest.mark.slow
def test_what_is_expected_can_be_asked() -> None:
    """The endpoint returns the begin times of existing candles, for times as text or milliseconds."""

    async def scenario(sandbox: Sandbox) -> None:
        sandbox.add_fault(Fault("exchange_halt", start_ms=START_MS, stop_ms=START_MS + 5 * MINUTE_MS))
        asked = {"market": "spot", "symbol": "BTCUSDT", "interval": "1m", "start": START_MS}
        status, begins, _ = await get(
            sandbox, "/control/expected", **{**asked, "stop": "2026-01-01T00:10:00Z"}
        )
        assert (status, begins) == (200, [START_MS + n * MINUTE_MS for n in range(5, 10)])
        for wrong, said in (
            (asked, "expected: stop is missing"),
            ({**asked, "stop": "later"}, "time: 'later' is not like"),
            ({**asked, "stop": NOON_MS, "interval": "7m"}, "interval: '7m'"),
        ):
            status, answer, _ = await get(sandbox, "/control/expected", **wrong)
            assert status == 400
            assert said in answer.decode()
        assert (await call(sandbox, "DELETE", "/control/faults/77"))[0] == 400

    run(scenario, STILL)


@pytest.mark.slow
def test_connections_can_be_dropped() -> None:
    """All connections are cut without a close frame."""

    async def scenario(sandbox: Sandbox) -> None:
        async with dial(sandbox, "spot", "/ws") as ws:
            assert (await call(sandbox, "POST", "/control/drop"))[0] == 200
            with pytest.raises(websockets.ConnectionClosed):
                await ws.recv()
            assert ws.close_code == 1006
            assert sandbox.connections == 0

    run(scenario, STILL)


def test_a_fault_is_the_same_however_it_is_written(tmp_path: Path) -> None:
    """A fault is the same as an argument, as JSON and as a TOML table."""
    expected = Fault("late_close", "spot", ("BTCUSDT", "ETHUSDT"), "1mo", NOON_MS, NOON_MS + 90_000, value=30)
    file = tmp_path / "faults.toml"
    file.write_text(
        """
        [[fault]]
        name = "late_close"
        market = "spot"
        symbols = ["BTCUSDT", "ETHUSDT"]
        interval = "1M"
        in_s = 43200
        for_s = 90
        value = 30

        [[fault]]
        name = "exchange_halt"
        start = 2026-01-01T12:00:00Z
        stop = 2026-01-02
        """
    )
    late, halt = load_faults(file, START_MS)
    assert late == expected
    assert (halt.start_ms, halt.stop_ms) == (NOON_MS, START_MS + 24 * HOUR_MS)
    text = (
        "late_close:market=spot,symbols=btcusdt,ETHUSDT,interval=1mo,start=2026-01-01T12:00,for_s=90,value=30"
    )
    assert parse_argument(text, 0) == expected
    assert parse_argument("missing_close", 0) == Fault("missing_close")
    said = {"name": "late_close", "market": "spot", "symbols": "BTCUSDT,ETHUSDT", "interval": "1M"}
    said |= {"start_ms": NOON_MS, "stop_ms": NOON_MS + 90_000, "value": 30}
    assert parse_json(json.dumps(said).encode(), 0) == expected


def test_a_share_of_days() -> None:
    """Dates select days of the archive, and a number selects a share of their files."""
    text = (
        "archive_corrupt_zip:symbols=BTCUSDT,interval=1m,start=2026-01-01,stop=2026-01-02,value=1,share=0.25"
    )
    expected = Fault(
        "archive_corrupt_zip", "", ("BTCUSDT",), "1m", START_MS, START_MS + 24 * HOUR_MS, 1, share=0.25
    )
    assert parse_argument(text, 0) == expected


def test_without_a_start_a_duration_counts_from_now() -> None:
    """`for_s` without a start counts from now."""
    fault = parse_argument("silent_stream:for_s=5", START_MS)
    assert (fault.start_ms, fault.stop_ms) == (None, START_MS + 5_000)


@pytest.mark.parametrize("said", ["2026-01-01", "2026-01-01T00:00Z", str(START_MS), START_MS])
def test_moments(said: object) -> None:
    """Text without an offset is UTC; digits are milliseconds."""
    assert parse_moment(said) == START_MS


@pytest.mark.parametrize("said", ["", "x", -1, True, 1.5, None, "9999-12-31T23:59-23:59", "9" * 30])
def test_what_is_no_moment(said: object) -> None:
    """An invalid moment is refused with an example."""
    with pytest.raises(UsageError, match="is not like 2026-11-22T12:30"):
        parse_moment(said)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"fault = 1", "Expected `array`"),
        (b"[[fault]", "faults: "),
        (b"\xff", "faults: "),
        (b"[[faults]]\nname='late_close'", "unknown field `faults`"),
        (b"[[fault]]\nname='late'", "fault: 'late' is unknown"),
    ],
)
def test_a_file_that_is_none(tmp_path: Path, content: bytes, said: str) -> None:
    """The error has the file's path and its defect."""
    file = tmp_path / "faults.toml"
    file.write_bytes(content)
    with pytest.raises(UsageError) as refused:
        load_faults(file, 0)
    assert str(file) in refused.value.what
    assert said in refused.value.what
    with pytest.raises(UsageError, match="No such file"):
        load_faults(tmp_path / "absent.toml", 0)


@pytest.mark.slow
def test_the_command_lists_what_can_go_wrong() -> None:
    """Standard output has the name and description of each fault."""
    listed = run_command("sandbox", "--list-faults")
    assert listed.returncode == 0
    assert [line.split()[0] for line in listed.stdout.splitlines()] == list(FAULTS)
    assert "--list-faults" in run_command("sandbox", "--help").stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nothing", "fault: 'nothing' is unknown"),
        ("late_close:soon", "fault: 'late_close:soon': 'soon' is not"),
    ],
)
def test_the_command_refuses_what_cannot_be(text: str, said: str) -> None:
    """An invalid fault exits 2 with one line and the command that lists the names."""
    refused = run_command("sandbox", "--port", "0", "--fault", text)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith(f"lakewriter: {said}")
    assert "lakewriter sandbox --list-faults" in refused.stderr


@pytest.mark.slow
def test_the_command_stages_faults(tmp_path: Path) -> None:
    """The faults of the file and of the arguments are active from the start."""
    file = tmp_path / "faults.toml"
    file.write_text('[[fault]]\nname = "rest_lag"\nin_s = 60\n')
    arguments = ["--port", "0", "--start", "2026-01-01", "--faults", str(file), "--fault", "rest_status"]
    with Piped("sandbox", *arguments) as process:
        url = process.stdout.readline().decode().strip()

        async def state() -> Any:
            reader, writer = await asyncio.open_connection(*re.sub("http://", "", url).split(":"))
            writer.write(b"GET /control HTTP/1.0\r\n\r\n")
            content = await reader.read()
            writer.close()
            await writer.wait_closed()
            return json.loads(content.split(b"\r\n\r\n", 1)[1])

        faults = asyncio.run(state())["faults"]
        process.terminate()
        process.communicate(timeout=PATIENCE_S)
    assert [(fault["name"], fault["start_ms"]) for fault in faults.values()] == [
        ("rest_lag", START_MS + 60_000),
        ("rest_status", None),
    ]
