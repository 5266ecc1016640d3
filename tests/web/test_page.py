"""The page in a real browser: candles move, gaps have reasons, SQL answers, and it comes back."""

import contextlib
import json
import re
import socket
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from lakewriter.partition import partition_at
from lakewriter.sandbox import Sandbox, SandboxOptions, serve
from lakewriter.sandbox.faults.table import Fault
from lakewriter.web.lake_server import LakeServerOptions, serving
from lakewriter.web.page.assets import assets
from lakewriter.web.server import Address, bind, url_of
from lakewriter.web.statements import StatementLimits
from support.browser import beside, chromium, visiting
from support.lakes import make_lake, rest_candle
from support.recording import recording
from support.running import PATIENCE_S, child, wait_until
from support.truth_lakes import BTC, MONDAY_MS, truth_lake

pytestmark = pytest.mark.slow

TOKEN = "a-token-of-24-characters"
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
WAIT = {"timeout": PATIENCE_S * 1000}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


def options(lake: Path, token: str | None = None) -> LakeServerOptions:
    return LakeServerOptions(str(lake), token, StatementLimits(), None)


@contextlib.contextmanager
def lake_served(lake: Path, port: int = 0, token: str | None = None) -> Iterator[str]:
    """Serve a lake beside the test; yield the URL."""
    sockets: list[socket.socket] = bind(Address("127.0.0.1", port), "--http")
    url = url_of(sockets[0])
    with beside(serving(sockets, options(lake, token))):
        yield url


class Live(NamedTuple):
    """A recorder of a sandbox."""

    sandbox: Sandbox
    lake: Path


@contextlib.asynccontextmanager
async def sandbox_recorded(lake: Path) -> AsyncIterator[Live]:
    """Record three series of a sandbox, whose clock begins now, 60 times as fast as ours."""
    now_ms = time.time_ns() // 1_000_000
    async with (
        serve(SandboxOptions(speed=60, start_ms=now_ms, push_every_ms=0)) as sandbox,
        recording(sandbox, lake, "spot:BTCUSDT,ETHUSDT:1m", "coin_futures:BTCUSD_PERP:3m"),
    ):
        yield Live(sandbox, lake)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with beside(sandbox_recorded(tmp_path_factory.mktemp("live") / "lake")) as started:
        yield started


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a lake without a recorder: two days of one series, and a gap in another one."""
    root = tmp_path_factory.mktemp("quiet") / "lake"
    truth_lake(root, [(BTC, 2)])
    make_lake(root, [rest_candle(number, symbol="ETHUSDT") for number in range(60) if number not in (20, 21)])
    with lake_served(root) as url:
        yield url


def newest(page: Any) -> int:
    """Return the begin time of the newest candle in the chart."""
    return int(page.get_attribute("#chart", "data-newest") or 0)


def wait_for_newer(page: Any, than_ms: int) -> int:
    page.wait_for_function("ms => Number(document.getElementById('chart').dataset.newest) > ms", arg=than_ms)
    return newest(page)


def test_candles_move_and_a_gap_has_its_reason(browser: Any, live: Live) -> None:
    """Under a recorder the chart follows. A halt of the exchange is empty in the chart, and named in the list."""
    now_ms = live.sandbox.now_ms()
    minute_ms = now_ms - now_ms % 60_000
    live.sandbox.add_fault(
        Fault(
            "exchange_halt",
            market="spot",
            symbols=["BTCUSDT"],
            start_ms=minute_ms + 120_000,
            stop_ms=minute_ms + 300_000,
        )
    )
    with lake_served(live.lake) as url, visiting(browser, url, "/#spot:BTCUSDT:1m") as visitor:
        page = visitor.page
        page.wait_for_selector("#connection[data-state=good]", **WAIT)
        first_ms = wait_for_newer(page, 0)
        second_ms = wait_for_newer(page, first_ms)
        assert wait_for_newer(page, second_ms) > second_ms
        page.wait_for_selector("#gaps tr[data-reason=exchange_halt]", **WAIT)
        row = page.inner_text("#gaps tr[data-reason=exchange_halt]")
        assert "BTCUSDT 1m" in row and "exchange halt" in row
        page.wait_for_function("() => Number(document.getElementById('chart').dataset.missing) >= 3")
        page.wait_for_function("() => document.getElementById('heatmap').dataset.rows === '3'")
        assert page.inner_text("#tiles").split("\n")[:2] == ["Series", "3"]
        assert "spot" in page.inner_text("#markets")


def test_the_page_goes_on_after_a_restart(browser: Any, live: Live) -> None:
    """Without its server the page says so, and keeps what it has. It goes on by itself afterwards."""
    first = contextlib.ExitStack()
    url = first.enter_context(lake_served(live.lake))
    with first, visiting(browser, url, "/#spot:ETHUSDT:1m") as visitor:
        page = visitor.page
        visitor.expects_failures = True
        shown_ms = wait_for_newer(page, 0)
        first.close()
        page.wait_for_selector("#connection[data-state=bad]", **WAIT)
        assert page.inner_text("#connection") == "disconnected, retrying"
        assert newest(page) >= shown_ms
        shown_ms = newest(page)
        with lake_served(live.lake, int(url.rpartition(":")[2])):
            page.wait_for_selector("#connection[data-state=good]", **WAIT)
            wait_for_newer(page, shown_ms)


def children_of(pid: int) -> set[int]:
    """Return the processes that a process started."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == pid:
                found.add(int(stat.parent.name))
    return found


@pytest.mark.long
def test_the_page_of_a_recorder_outlives_it(browser: Any, live: Live, tmp_path: Path) -> None:
    """A recorder is killed while its page is open, and the page goes on with the next recorder.

    The process that reads for the page ends with its recorder.
    """
    with bind(Address("127.0.0.1", 0), "--http")[0] as free:
        url = url_of(free)
    options = ["--exchange", live.sandbox.url, "--lake", str(tmp_path / "lake"), "--flush-every", "1s"]
    command = ["record", "spot:BTCUSDT:1m", *options, "--http", url.removeprefix("http://")]
    with child(tmp_path / "log", *command) as first:
        first.wait_for("http: ")
        with visiting(browser, url) as visitor:
            page = visitor.page
            visitor.expects_failures = True
            page.wait_for_selector("#connection[data-state=good]", **WAIT)
            shown_ms = wait_for_newer(page, 0)
            shown_ms = wait_for_newer(page, shown_ms)
            assert page.is_hidden("#sql-card")
            readers = children_of(first.process.pid)
            assert readers
            first.kill()
            page.wait_for_selector("#connection[data-state=bad]", **WAIT)
            wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in readers))
            with child(tmp_path / "log", *command) as second:
                page.wait_for_selector("#connection[data-state=good]", **WAIT)
                wait_for_newer(page, shown_ms)
                page.wait_for_function(
                    "() => document.getElementById('chart').dataset.missing === '0'", **WAIT
                )
                readers = children_of(second.process.pid)
                assert second.stop() == 0, second.logged()[-2000:]
                wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in readers))


def run_sql(page: Any, sql: str) -> str:
    """Run a statement with the keyboard, and return what the box says."""
    page.fill("#sql-text", sql)
    page.press("#sql-text", "Control+Enter")
    page.wait_for_function(
        "() => document.getElementById('sql-stop').disabled"
        " && document.getElementById('sql-state').textContent.trim() !== ''"
        " && document.getElementById('sql-state').textContent !== 'running …'"
    )
    said: str = page.inner_text("#sql-state")
    return said


def test_the_sql_box_answers_and_refuses(browser: Any, quiet: str) -> None:
    """Answers are a table, a chart or a file. Writes and reads of files are refused in one line."""
    with visiting(browser, quiet) as visitor:
        page = visitor.page
        visitor.expects_failures = True  # a refusal is an answer with the status 400
        page.wait_for_selector("#sql-card:not([hidden])")
        assert "2 rows" in run_sql(page, "SELECT symbol, count(*) AS n FROM candles GROUP BY 1 ORDER BY 1")
        cells = page.locator("#sql-answer tbody td").all_inner_texts()
        assert cells == ["BTCUSDT", "2880", "ETHUSDT", "58"]
        assert "sql: DELETE is not allowed" in run_sql(page, "DELETE FROM candles")
        assert page.is_hidden("#sql-answer")  # it belongs to the statement before
        assert "sql: there is no table /etc/passwd" in run_sql(page, "FROM '/etc/passwd'")
        assert "not available here" in run_sql(page, "FROM read_text('/etc/passwd')")
        assert "sql: one statement at a time" in run_sql(page, "SELECT 1; SELECT 2")
        run_sql(page, "SELECT '<img src=x onerror=alert(1)>' AS html")
        assert page.inner_text("#sql-answer tbody td") == "<img src=x onerror=alert(1)>"
        run_sql(
            page,
            "SELECT candle_begin_time, open, high, low, close FROM candles WHERE symbol = 'BTCUSDT' ORDER BY 1 LIMIT 50",
        )
        page.click("#sql-views [data-view=chart]")
        page.wait_for_selector("#sql-chart canvas")
        with page.expect_download() as download:
            page.click("#sql-csv")
        assert (
            Path(download.value.path())
            .read_text()
            .startswith('candle_begin_time,open,high,low,close\n"2024-06-03T')
        )


def test_a_statement_can_be_stopped(browser: Any, quiet: str) -> None:
    """The button Stop ends a statement that would take hours."""
    with visiting(browser, quiet) as visitor:
        page = visitor.page
        page.wait_for_selector("#sql-card:not([hidden])")
        page.fill("#sql-text", "SELECT sum(a.range * b.range) FROM range(100000000) a, range(100000000) b")
        page.click("#sql-run")
        page.click("#sql-stop:not([disabled])")
        page.wait_for_function("() => document.getElementById('sql-state').textContent === 'stopped'")
        assert "1 row in" in run_sql(page, "SELECT 42 AS answer")


def test_the_keyboard_suffices(browser: Any, quiet: str) -> None:
    """Series, chart and heat map obey the keyboard, and say what they show."""
    with visiting(browser, quiet, "/#spot:BTCUSDT:1m") as visitor:
        page = visitor.page
        wait_for_newer(page, 0)
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        page.focus("#series-input")
        page.keyboard.type("eth")
        assert page.get_attribute("#series-input", "aria-expanded") == "true"
        page.keyboard.press("Enter")
        page.wait_for_function("() => location.hash === '#spot:ETHUSDT:1m'")
        page.wait_for_function("() => document.getElementById('chart').dataset.missing === '2'")
        assert page.get_attribute("#chart", "aria-label") == "Candles of ETHUSDT 1m, spot"
        page.focus("#series-input")
        for key in ("ArrowDown", "ArrowDown", "Escape"):
            page.keyboard.press(key)
        assert page.get_attribute("#series-input", "aria-expanded") == "false"
        page.focus("#chart")
        for key in ("ArrowLeft", "+", "-", "PageUp", "Home", "End"):
            page.keyboard.press(key)
        page.wait_for_function("() => document.getElementById('heatmap').dataset.rows === '2'")
        page.focus("#heatmap")
        page.keyboard.press("ArrowDown")
        assert page.inner_text("#heatmap-cell").startswith("ETHUSDT 1m, spot")
        page.keyboard.press("ArrowUp")
        page.keyboard.press("Enter")
        page.wait_for_function("() => location.hash === '#spot:BTCUSDT:1m'")


@pytest.mark.long
def test_older_candles_are_fetched_on_the_way_back(browser: Any, quiet: str) -> None:
    """A move to the left shows all candles, to the first one."""
    with visiting(browser, quiet, "/#spot:BTCUSDT:1m") as visitor:
        page = visitor.page
        wait_for_newer(page, 0)
        page.focus("#chart")
        page.wait_for_function(
            "() => { document.getElementById('chart').dispatchEvent(new KeyboardEvent('keydown', {key: 'Home'}));"
            " return document.getElementById('chart').dataset.candles === '2880'; }",
            polling=100,
        )


@pytest.mark.long
def test_what_cannot_be_read_is_said(browser: Any, tmp_path: Path) -> None:
    """A damaged file is named beside the chart, and the page goes on once it is whole again."""
    store = truth_lake(tmp_path, [(BTC, 1)])
    path = store.root / partition_at(BTC, MONDAY_MS).file
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with lake_served(tmp_path) as url, visiting(browser, url, "/#spot:BTCUSDT:1m") as visitor:
        page = visitor.page
        visitor.expects_failures = True  # an answer with the status 500
        page.wait_for_function(
            "() => document.getElementById('chart-note').textContent.includes('candles.parquet')"
        )
        path.write_bytes(whole)
        wait_for_newer(page, 0)


@pytest.mark.long
def test_a_damaged_address_shows_the_usual_series(browser: Any, quiet: str) -> None:
    """An address that no text can be read from is no error."""
    with visiting(browser, quiet, "/#%") as visitor:
        page = visitor.page
        page.wait_for_function("() => location.hash === '#spot:BTCUSDT:1m'", **WAIT)
        page.evaluate("location.hash = '#%'")
        wait_for_newer(page, 0)


@pytest.mark.long
def test_the_pill_is_green_only_if_nothing_is_wrong(browser: Any, live: Live) -> None:
    """It says that a recorder hangs, that something needs a person, and that the status is unknown."""
    findings: list[dict[str, str]] = []
    refusal: dict[str, str] | None = None

    def answer(route: Any) -> None:
        if refusal is not None:
            route.fulfill(status=500, content_type="application/json", body=json.dumps(refusal))
            return
        fetched = route.fetch()
        route.fulfill(response=fetched, json={**fetched.json(), "attention": findings})

    with lake_served(live.lake) as url, visiting(browser, url) as visitor:
        page = visitor.page
        visitor.expects_failures = True  # an answer with the status 500
        page.wait_for_selector("#connection[data-state=good]", **WAIT)
        page.route("**/page/status.json", answer)
        findings = [{"kind": "hanging_recorder", "sentence": "it hangs", "command": ""}]
        page.wait_for_selector("#connection[data-state=bad]", **WAIT)
        assert page.inner_text("#connection") == "recording is hindered"
        findings = [{"kind": "clock_off", "sentence": "the clock is off", "command": ""}]
        page.wait_for_selector("#connection[data-state=warn]", **WAIT)
        assert page.inner_text("#connection") == "recording, needs you"
        refusal = {"error": "status: damaged", "hint": ""}
        page.wait_for_selector("#connection[data-state=bad]", **WAIT)
        assert page.inner_text("#connection") == "status unknown"
        assert page.inner_text("#attention-list") == "the status cannot be read: status: damaged"
        findings, refusal = [], None
        page.wait_for_selector("#connection[data-state=good]", **WAIT)


@pytest.mark.parametrize(
    ("width", "scheme"),
    [
        (360, "dark"),
        (1280, "light"),
        pytest.param(360, "light", marks=pytest.mark.long),
        pytest.param(1280, "dark", marks=pytest.mark.long),
    ],
)
def test_the_page_fits_its_window(browser: Any, quiet: str, scheme: str, width: int) -> None:
    """Nothing is wider than the window, on a phone and on a desk, in the dark and in the light."""
    window = PHONE if width == 360 else {}
    with visiting(browser, quiet, color_scheme=scheme, **window) as visitor:
        page = visitor.page
        wait_for_newer(page, 0)
        page.wait_for_function("() => document.getElementById('heatmap').dataset.rows === '2'")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", ground)[:3])) < 200) == (scheme == "dark")
        assert page.locator("a#tv-attr-logo").count() == 1


@pytest.mark.long
def test_people_log_in(browser: Any, tmp_path: Path) -> None:
    """The form asks for the token; a wrong one is said; the right one shows the page, until the log-out."""
    make_lake(tmp_path, [rest_candle(0)])
    with lake_served(tmp_path, token=TOKEN) as url, visiting(browser, url) as visitor:
        page = visitor.page
        visitor.expects_failures = True  # a wrong token is an answer with the status 401
        assert page.url.endswith("/login")
        page.fill("#token", "wrong")
        page.keyboard.press("Enter")
        page.wait_for_selector(".failed:visible")
        page.fill("#token", TOKEN)
        page.keyboard.press("Enter")
        page.wait_for_selector("#sql-card:not([hidden])")
        assert "1 row in" in run_sql(page, "SELECT 42 AS answer")
        page.click("#logout button")
        page.wait_for_url("**/login")


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _contrast(one: str, other: str) -> float:
    high, low = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_colours_can_be_told_apart(theme: int) -> None:
    """Texts have the contrast that WCAG asks for; kinds of cells differ in lightness, for every eye."""
    style = assets()["style.css"].body.decode()
    block = re.findall(r":root \{(.*?)\}", style, re.DOTALL)[theme]
    colour = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", block))
    for ground in ("ground", "card"):
        for ink in ("ink", "quiet", "accent", "bad", "warn"):
            assert _contrast(colour[ink], colour[ground]) >= 4.5, (ink, ground)
    for soft, ink in (("bad-soft", "bad"), ("warn-soft", "warn"), ("accent", "accent-ink")):
        assert _contrast(colour[soft], colour[ink]) >= 4.5, soft
    kinds = [_luminance(colour[f"heat-{kind}"]) for kind in ("full", "part", "none")]
    assert kinds == sorted(kinds, reverse=theme == 1)
    assert all(_contrast(colour["heat-full"], colour[f"heat-{kind}"]) >= 1.5 for kind in ("part", "none"))
