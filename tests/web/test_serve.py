"""`lakewriter serve`: SQL with limits, the token, and what no visitor can do."""

import asyncio
import base64
import contextlib
import hashlib
import json
import re
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from lakewriter.web.lake_server import LakeServerOptions, serving
from lakewriter.web.page.assets import CHART_STYLE_HASH, CONTENT_SECURITY_POLICY, assets
from lakewriter.web.server import Address, bind, url_of
from lakewriter.web.statements import (
    DOWNLOADS_MAX,
    JSON_ROWS_MAX,
    RUNNING_MAX,
    WAITING_MAX,
    StatementLimits,
)
from support.lakes import files_and_bytes, make_lake, rest_candle
from support.running import PATIENCE_S, run, until

TOKEN = "a-token-of-24-characters"
LONG = "SELECT sum(a.range * b.range) FROM range(100000000) a, range(100000000) b"
LIMITS = StatementLimits(timeout_s=PATIENCE_S)

Scenario = Callable[[str, aiohttp.ClientSession], Awaitable[None]]


def visit(
    root: Path, scenario: Scenario, *, token: str | None = None, limits: StatementLimits = LIMITS
) -> None:
    """Serve a lake of two candles, and run a scenario with the server's URL and a client."""
    if not root.joinpath("_lakewriter").exists():
        make_lake(root, [rest_candle(0), rest_candle(1)])

    async def main() -> None:
        sockets = bind(Address("127.0.0.1", 0), "--http")
        options = LakeServerOptions(str(root), token, limits, None)
        cookies = aiohttp.CookieJar(unsafe=True)  # of addresses, too
        async with (
            asyncio.timeout(PATIENCE_S),
            aiohttp.ClientSession(cookie_jar=cookies) as client,
            serving(sockets, options),
        ):
            await scenario(url_of(sockets[0]), client)

    asyncio.run(main())


async def ask(client: aiohttp.ClientSession, url: str, sql: str, **fields: Any) -> tuple[int, dict[str, Any]]:
    async with client.post(f"{url}/sql", json={"sql": sql, **fields}) as answer:
        found: dict[str, Any] = json.loads(await answer.read())
        return answer.status, found


def test_a_statement_is_answered(tmp_path: Path) -> None:
    """Rows, columns and types are there, and numbers that JavaScript would round are text."""

    async def scenario(url: str, client: aiohttp.ClientSession) -> None:
        status, answer = await ask(
            client,
            url,
            "SELECT symbol, count(*) AS n, 9007199254740993 AS large, 'NaN'::DOUBLE AS x FROM candles GROUP BY 1",
        )
        assert status == 200
        assert answer["rows"] == [["BTCUSDT", 2, "9007199254740993", "nan"]]
        assert [name for name, _ in answer["columns"]] == ["symbol", "n", "large", "x"]
        assert answer["cut"] is False
        status, answer = await ask(client, url, "vwap")  # a saved query
        assert status == 200 and "vwap" in json.dumps(answer["columns"])
        async with client.get(f"{url}/sql/saved.json") as saved:
            assert {"name": "vwap"}.items() <= next(
                each for each in (await saved.json())["saved"] if each["name"] == "vwap"
            ).items()

    visit(tmp_path, scenario)


@pytest.mark.parametrize(
    ("sql", "error"),
    [
        ("DELETE FROM candles", "sql: DELETE is not allowed"),
        ("CREATE TABLE x AS FROM candles", "sql: CREATE is not allowed"),
        ("COPY candles TO '/tmp/x.csv'", "sql: COPY is not allowed"),
        ("ATTACH '/tmp/x.db'", "sql: ATTACH is not allowed"),
        ("SET memory_limit='90GB'", "sql: SET is not allowed"),
        ("FROM '/etc/passwd'", "sql: there is no table /etc/passwd"),
        ("FROM read_text('/etc/passwd')", "sql: FROM read_text(…) is not available here"),
        ("FROM read_csv('/etc/passwd')", "sql: FROM read_csv(…) is not available here"),
        ("FROM glob('/**')", "sql: FROM glob(…) is not available here"),
        ("SELECT getenv('HOME')", "sql: function getenv is not available here"),
        ("SELECT 1; SELECT 2", "sql: one statement at a time, not 2"),
        ("", "sql: there is no statement"),
        ("SELECT nope FROM candles", 'sql: Referenced column "nope" not found in FROM clause!'),
    ],
)
def test_what_is_more_than_reading_the_lake_is_refused(tmp_path: Path, sql: str, error: str) -> None:
    """A write, a file, a setting or a second statement is refused in one line, and changes nothing."""

    async def scenario(url: str, client: aiohttp.ClientSession) -> None:
        before = files_and_bytes(tmp_path)
        for form in ("json", "csv"):
            status, answer = await ask(client, url, sql, format=form)
            assert status == 400 and answer["error"].startswith(error), answer
            assert "\n" not in answer["error"]
        assert files_and_bytes(tmp_path) == before

    visit(tmp_path, scenario)


def test_rows_are_limited_and_csv_has_more(tmp_path: Path) -> None:
    """A table has the first rows and says so; the CSV of the same statement has all of them."""
    rows = JSON_ROWS_MAX + 7

    async def scenario(url: str, client: aiohttp.ClientSession) -> None:
        sql = f"SELECT range AS n FROM range({rows})"
        status, answer = await ask(client, url, sql)
        assert status == 200 and answer["cut"] is True
        assert [row[0] for row in answer["rows"]] == list(range(JSON_ROWS_MAX))
        async with client.post(f"{url}/sql", json={"sql": sql, "format": "csv"}) as csv:
            assert csv.status == 200 and csv.content_type == "text/csv"
            assert "attachment" in csv.headers["Content-Disposition"]
            assert "X-Lakewriter-Cut" not in csv.headers
            assert (await csv.text()).splitlines() == ["n", *map(str, range(rows))]
        async with client.post(
            f"{url}/sql", json={"sql": "SELECT 1 FROM range(1000001)", "format": "csv"}
        ) as csv:
            assert csv.headers["X-Lakewriter-Cut"] == "1000000"
            assert (await csv.read()).count(b"\n") == 1_000_001

    visit(tmp_path, scenario)


def test_large_answers_are_one_line(tmp_path: Path) -> None:
    """An answer above the limit of bytes is refused, before it fills the memory."""

    async def scenario(url: str, client: aiohttp.ClientSession) -> None:
        status, answer = await ask(client, url, "SELECT repeat('x', 100000) FROM range(5000)")
        assert status == 400 and answer["error"] == "sql: the answer is larger than 16 MiB"
        assert "lakewriter query" in answer["hint"]

    visit(tmp_path, scenario)


def test_time_and_memory_are_limited(tmp_path: Path) -> None:
    """A statement that takes too long, or too much memory, ends with one line."""

    async def scenario(url: str, client: aiohttp.ClientSession) -> None:
        status, answer = await ask(client, url, LONG)
        assert status == 400 and answer["error"] == "sql: not done after 0.3 s"

    async def hungry(url: str, client: aiohttp.ClientSession) -> None:
        status, answer = await ask(client, url, "SELECT len(list(range)) FROM range(100000000)")
        assert status == 400 and "failed to allocate" in answer["error"], answer

    visit(tmp_path, scenario, limits=StatementLimits(timeout_s=0.3))
    visit(tmp_path, hungry, limits=StatementLimits(timeout_s=PATIENCE_S, memory="64MB"))


def test_a_client_that_goes_away_ends_its_statement(tmp_path: Path) -> None:
    """Its thread is free at once, so the next statement is answered. Others wait, up to a limit."""

    async def scenario(url: str, client: aiohttp.ClientSession) -> None:
        endless = [asyncio.create_task(ask(client, url, LONG)) for _ in range(RUNNING_MAX)]
        await until(
            lambda: sum(thread.name.startswith("query") for thread in threading.enumerate()) >= RUNNING_MAX
        )
        waiting = [asyncio.create_task(ask(client, url, f"SELECT {n} AS n")) for n in range(WAITING_MAX)]
        await asyncio.sleep(0.5)
        assert not any(task.done() for task in waiting)
        status, answer = await ask(client, url, "SELECT 1")
        assert status == 503 and answer["error"] == "sql: too many statements wait"
        began_s = time.monotonic()
        for task in endless:
            task.cancel()
        answers = await asyncio.gather(*waiting)
        assert [answer["rows"] for _, answer in answers] == [[[n]] for n in range(WAITING_MAX)]
        assert time.monotonic() - began_s < PATIENCE_S / 4  # the statements would take hours

    visit(tmp_path, scenario)


@contextlib.contextmanager
def paused_download(url: str) -> Iterator[socket.socket]:
    """Ask for a CSV file that fills the buffers of a connection, and read nothing."""
    body = json.dumps({"sql": "SELECT repeat('x', 1000) FROM range(30000)", "format": "csv"}).encode()
    head = f"POST /sql HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as client:
        client.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n" + body)
        client.setblocking(False)
        yield client


def has_answer(client: socket.socket) -> bool:
    with contextlib.suppress(BlockingIOError):
        return client.recv(1, socket.MSG_PEEK) != b""
    return False


def test_paused_downloads_hold_no_statement(tmp_path: Path) -> None:
    """A file that its client does not take leaves the turn to other statements. Their number is limited."""

    async def scenario(url: str, client: aiohttp.ClientSession) -> None:
        with contextlib.ExitStack() as stack:
            paused = [stack.enter_context(paused_download(url)) for _ in range(DOWNLOADS_MAX)]
            await until(lambda: all(map(has_answer, paused)))
            status, answer = await ask(client, url, "SELECT 1 AS one")
            assert status == 200 and answer["rows"] == [[1]]
            status, answer = await ask(client, url, "SELECT 1 AS one", format="csv")
            assert status == 503 and answer["error"] == "sql: too many downloads at once"

    visit(tmp_path, scenario)


def test_a_client_that_takes_nothing_is_left(tmp_path: Path) -> None:
    """The connection of a paused download ends, and another one has its place."""

    async def scenario(url: str, client: aiohttp.ClientSession) -> None:
        with paused_download(url) as paused:
            await until(lambda: has_answer(paused))
            paused.settimeout(PATIENCE_S)
            await asyncio.sleep(1)  # the server waits for half a second
            received = 0
            with contextlib.suppress(ConnectionResetError):
                while chunk := await asyncio.to_thread(paused.recv, 1 << 20):
                    received += len(chunk)
            assert received < 30_000_000

    visit(tmp_path, scenario, limits=StatementLimits(timeout_s=PATIENCE_S, send_s=0.5))


def test_a_proxy_on_this_machine_passes_its_name_on(tmp_path: Path) -> None:
    """With a token a server answers to any name, but not to the page of another site."""

    async def scenario(url: str, client: aiohttp.ClientSession) -> None:
        proxied = {"Host": "lake.example", "Origin": "https://lake.example"}
        form = {"url": f"{url}/login", "data": {"token": TOKEN}, "allow_redirects": False}
        async with client.get(f"{url}/page/about.json", headers=proxied) as answer:
            assert answer.status == 401
        async with client.post(**form, headers=proxied) as answer:
            assert answer.status == 303
        async with client.post(**form, headers={"Origin": "https://lake.example"}) as answer:
            assert answer.status == 400
            assert "must pass on the header Host" in (await answer.json())["hint"]
        headers = {**proxied, "Authorization": f"Bearer {TOKEN}"}
        async with client.post(f"{url}/sql", json={"sql": "SELECT 1"}, headers=headers) as answer:
            assert answer.status == 200

    visit(tmp_path, scenario, token=TOKEN)


def test_requests_of_other_sites_are_refused(tmp_path: Path) -> None:
    """A page of another site can neither send a statement nor use a name for this machine."""

    async def scenario(url: str, client: aiohttp.ClientSession) -> None:
        body = json.dumps({"sql": "SELECT 1"})
        json_type = {"Content-Type": "application/json"}
        for headers in (
            {"Origin": "http://evil.example", **json_type},
            {"Origin": "null", **json_type},
            {"Sec-Fetch-Site": "cross-site", **json_type},
            {"Content-Type": "text/plain"},  # a form can send it without asking
        ):
            async with client.post(f"{url}/sql", data=body, headers=headers) as answer:
                assert answer.status == 400, headers
        async with client.post(f"{url}/sql", data=body, headers={"Origin": url, **json_type}) as answer:
            assert answer.status == 200
        async with client.get(url, headers={"Host": "evil.example"}) as answer:
            assert answer.status == 421
        for method in ("PUT", "DELETE", "PATCH"):
            async with client.request(method, f"{url}/sql") as answer:
                assert answer.status == 405

    visit(tmp_path, scenario)


@pytest.mark.parametrize(
    "body",
    ["", "[]", "{}", '{"sql": 1}', '{"sql": "x", "y": 1}', '{"sql": "x", "format": "exe"}', "{" * 5000],
)
def test_wrong_bodies_are_one_line(tmp_path: Path, body: str) -> None:
    """A body that is no request is refused with an example."""

    async def scenario(url: str, client: aiohttp.ClientSession) -> None:
        headers = {"Content-Type": "application/json"}
        async with client.post(f"{url}/sql", data=body, headers=headers) as answer:
            assert answer.status == 400
            assert (await answer.json())["error"].startswith("sql: the body")

    visit(tmp_path, scenario)


@pytest.mark.parametrize(
    "path",
    [
        "candles.json",
        "candles.json?market=spot&symbol=BTCUSDT&interval=1m&count=-1",
        "candles.json?market=spot&symbol=*&interval=1m",
        "candles.json?market=spot&symbol=BTCUSDT&interval=1m&before_ms=9999999999999999",
        "coverage.json?series=nonsense",
        "coverage.json?" + "&".join(["series=spot:BTCUSDT:1m"] * 61),
        "gaps.json?days=x",
    ],
)
def test_wrong_questions_are_one_line(tmp_path: Path, path: str) -> None:
    """A wrong parameter is refused in one line; it never reaches a path of the lake."""

    async def scenario(url: str, client: aiohttp.ClientSession) -> None:
        async with client.get(f"{url}/page/{path}") as answer:
            assert answer.status == 400
            said = await answer.json()
            assert said["error"] and "\n" not in said["error"]

    visit(tmp_path, scenario)


def test_the_token_is_needed_everywhere(tmp_path: Path) -> None:
    """Without the token there is the login form alone. A header or the form's cookie opens all."""

    async def scenario(url: str, client: aiohttp.ClientSession) -> None:
        for path in (
            "page/about.json",
            "page/series.json",
            "page/gaps.json",
            "page/status.json",
            "sql/saved.json",
            "none",
        ):
            async with client.get(f"{url}/{path}") as answer:
                assert answer.status == 401 and "token" in (await answer.json())["error"]
        assert (await ask(client, url, "SELECT 1"))[0] == 401
        async with client.get(url, allow_redirects=False) as answer:
            assert (answer.status, answer.headers["Location"]) == (303, "/login")
        for wrong in ("Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer ", "Bearer ü"):
            async with client.get(f"{url}/page/about.json", headers={"Authorization": wrong}) as answer:
                assert answer.status == 401
        async with client.get(
            f"{url}/page/about.json", headers={"Authorization": f"Bearer {TOKEN}"}
        ) as answer:
            assert answer.status == 200
        async with client.post(f"{url}/login", data={"token": "wrong"}) as answer:
            assert answer.status == 401 and 'data-failed="yes"' in await answer.text()
        async with client.post(
            f"{url}/login", data={"token": TOKEN}, headers={"Origin": "http://evil.example"}
        ) as answer:
            assert answer.status == 400
        async with client.post(f"{url}/login", data={"token": TOKEN}, allow_redirects=False) as answer:
            assert (answer.status, answer.headers["Location"]) == (303, "/")
            cookie = answer.headers["Set-Cookie"]
            assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and TOKEN not in cookie
        assert (await ask(client, url, "SELECT 1"))[0] == 200
        async with client.get(f"{url}/page/about.json") as answer:
            assert (await answer.json())["login"] is True
        async with client.post(f"{url}/logout", allow_redirects=False) as answer:
            assert answer.status == 303
        assert (await ask(client, url, "SELECT 1"))[0] == 401

    visit(tmp_path, scenario, token=TOKEN)


def test_a_login_outlasts_a_restart_and_ends_with_another_token(tmp_path: Path) -> None:
    """The cookie belongs to the token, not to the process."""
    kept: dict[str, str] = {}

    async def log_in(url: str, client: aiohttp.ClientSession) -> None:
        async with client.post(f"{url}/login", data={"token": TOKEN}, allow_redirects=False) as answer:
            kept.update({name: each.value for name, each in answer.cookies.items()})

    def comes_back(status: int) -> Scenario:
        async def scenario(url: str, client: aiohttp.ClientSession) -> None:
            async with client.get(f"{url}/page/about.json", cookies=kept) as answer:
                assert answer.status == status

        return scenario

    visit(tmp_path, log_in, token=TOKEN)
    visit(tmp_path, comes_back(200), token=TOKEN)
    visit(tmp_path, comes_back(401), token=TOKEN[::-1])


def test_no_network_without_a_token(tmp_path: Path) -> None:
    """An address that other machines reach needs a token of some length."""
    make_lake(tmp_path / "data")
    done = run("serve", "--http", "0.0.0.0:0", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "lakewriter: serve: 0.0.0.0:0 can be reached from other machines, and has no token",
        "  export LAKEWRITER_TOKEN=$(openssl rand -hex 16)",
    ]
    done = run("serve", "--http", "0.0.0.0:0", "--token", "short", cwd=tmp_path)
    assert done.returncode == 2 and "at least 16 characters" in done.stderr


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--lake", "none"], "lakewriter: lake: none does not exist"),
        (["--timeout", "soon"], "lakewriter: duration: 'soon' is not a duration"),
        (["--memory-limit", "lots"], "lakewriter: memory limit: 'lots' is no size"),
        (["--http", "nowhere"], "lakewriter: --http: 'nowhere' is not HOST:PORT"),
    ],
)
def test_wrong_options_are_one_line(tmp_path: Path, options: list[str], error: str) -> None:
    """The server does not begin with a lake or an option that cannot be."""
    make_lake(tmp_path / "data")
    done = run("serve", "--http", "127.0.0.1:0", *options, cwd=tmp_path)
    assert done.returncode != 0 and done.stdout == ""
    assert done.stderr.splitlines()[0].startswith(error), done.stderr


def test_the_page_loads_nothing_from_elsewhere() -> None:
    """No file of the page has inline script or style, and all that it names is shipped."""
    files = assets()
    for name in ("index.html", "login.html"):
        html = files[name].body.decode()
        assert not re.search(r"<script(?![^>]*src=)|<style|\son\w+=|\sstyle=|javascript:", html)
        for path in re.findall(r'(?:src|href)="(/[^"]*)"', html):
            assert path.removeprefix("/page/static/") in files, path
    for name, asset in files.items():
        if name.startswith("js/"):
            for path in re.findall(r'from "\./([^"]+)"', asset.body.decode()):
                assert f"js/{path}" in files
            assert not re.search(r"innerHTML|insertAdjacentHTML|eval\(|https?://", asset.body.decode()), name
    assert "unsafe" not in CONTENT_SECURITY_POLICY and "default-src 'none'" in CONTENT_SECURITY_POLICY


def test_the_chart_library_is_the_published_one() -> None:
    """The library is unchanged, its licence is beside it, and its one style is allowed."""
    files = assets()
    library = files["vendor/lightweight-charts.standalone.production.js"].body
    digest = hashlib.sha256(library).hexdigest()
    assert digest == "e21cc5caa0226ef30bd8549c50b9ef926615f2a4ee6b4e486353477a55f598cf"
    assert b"Apache License" in files["vendor/lightweight-charts.LICENSE"].body
    assert "TradingView Lightweight Charts™" in files["vendor/lightweight-charts.NOTICE"].body.decode()
    style = re.search(rb'createElement\("style"\),this\.\w+\.innerText="([^"]*)"', library)
    assert style is not None
    assert "sha256-" + base64.b64encode(hashlib.sha256(style[1]).digest()).decode() == CHART_STYLE_HASH
    notice = "TradingView Lightweight Charts™, Copyright (с) 2025 TradingView, Inc."
    assert notice in files["index.html"].body.decode()


def test_files_are_sent_once(tmp_path: Path) -> None:
    """A browser that has a file gets 304, and files are compressed."""

    async def scenario(url: str, client: aiohttp.ClientSession) -> None:
        path = f"{url}/page/static/vendor/lightweight-charts.standalone.production.js"
        async with client.get(path) as answer:
            etag = answer.headers["ETag"]
            assert (
                answer.headers["Content-Encoding"] == "gzip"
                and int(answer.headers["Content-Length"]) < 80_000
            )
        async with client.get(path, headers={"If-None-Match": etag}) as answer:
            assert answer.status == 304 and await answer.read() == b""
        async with client.get(path, headers={"Accept-Encoding": "identity"}) as answer:
            assert len(await answer.read()) > 150_000
        for wrong in ("../assets.py", "%2e%2e/assets.py", "js", "js/none.js"):
            async with client.get(f"{url}/page/static/{wrong}") as answer:
                assert answer.status == 404

    visit(tmp_path, scenario)
