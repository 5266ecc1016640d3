"""`lakewriter record --http`: wrong addresses are one clear line, and its end waits for no page."""

import contextlib
import os
import signal
import socket
import sys
import urllib.request
from pathlib import Path

import pytest

from support.lakes import make_lake, rest_candle
from support.ports import free_port
from support.running import PATIENCE_S, child, python_child, run

RECORD = ("record", "spot:BTCUSDT:1m", "--exchange", "http://127.0.0.1:1", "--duration", "1s")


def refused(tmp_path: Path, *arguments: str) -> str:
    """Run a recorder that refuses its arguments; return what it says, after a look for its lake."""
    done = run(*RECORD, *arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert not (tmp_path / "data").exists()
    return done.stderr


@pytest.mark.parametrize("address", ["", "127.0.0.1", "::1:9464", "127.0.0.1:99999"])
def test_a_wrong_address(tmp_path: Path, address: str) -> None:
    """The line quotes the address, and the hint is one that works."""
    said = refused(tmp_path, "--http", address)
    assert said == f"lakewriter: --http: {address!r} is not HOST:PORT\n  --http 127.0.0.1:9464\n"


def test_a_wrong_address_in_the_config(tmp_path: Path) -> None:
    """The line names the key; the command line overrides it."""
    (tmp_path / "lakewriter.toml").write_text('http = "9464x"\n')
    said = refused(tmp_path)
    assert said == "lakewriter: http: '9464x' is not HOST:PORT\n  http = \"127.0.0.1:9464\"\n"
    assert "--http: 'y' is not" in refused(tmp_path, "--http", "y")


def test_a_port_in_use(tmp_path: Path) -> None:
    """Two recorders cannot have one port; the second one says so at its start."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refused(tmp_path, "--http", str(port))
    assert said.splitlines()[0] == f"lakewriter: --http 127.0.0.1:{port}: Address already in use"


def test_without_the_package(tmp_path: Path) -> None:
    """Without prometheus-client the line says what to install."""
    code = (
        "import sys; sys.modules['prometheus_client'] = None; sys.stderr = sys.stdout\n"
        "from lakewriter.cli import main; sys.argv[0] = 'lakewriter'; main()"
    )
    with python_child(code, *RECORD, "--lake", tmp_path / "data", "--http", "0") as recorder:
        said, _ = recorder.communicate()
    assert recorder.returncode == 2
    assert (
        said == "lakewriter: --http: prometheus-client is not installed\n  pip install 'lakewriter[http]'\n"
    )
    assert not (tmp_path / "data").exists()


def get(port: int, path: str) -> None:
    """Request a path of the recorder, and read the whole answer."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=PATIENCE_S) as answer:
        answer.read()


def children_of(pid: int) -> list[int]:
    """Return the process ids of a process's children."""
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds children in /proc")
def test_the_end_waits_for_no_read_of_the_page(tmp_path: Path) -> None:
    """A recorder ends although a read for its page hangs."""
    store = make_lake(tmp_path / "lake", [rest_candle(0)])
    port = free_port()
    options = ("--lake", str(store.root), "--exchange", "http://127.0.0.1:1", "--http", str(port))
    with child(tmp_path / "log", "record", "spot:BTCUSDT:1m", *options) as recorder:
        recorder.wait_for("http: ")
        get(port, "/page/series.json")  # starts the readers
        readers = children_of(recorder.process.pid)
        assert readers
        for pid in readers:
            os.kill(pid, signal.SIGSTOP)
        try:
            with socket.create_connection(("127.0.0.1", port)) as visitor:
                visitor.sendall(b"GET /page/gaps.json?days=30 HTTP/1.1\r\nHost: localhost\r\n\r\n")
                get(port, "/status.json")  # answered after the request before it began
                assert recorder.stop() == 0, recorder.logged()[-2000:]
        finally:
            for pid in readers:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
