"""A real Azure blob store on loopback: Azurite, with a container for each test.

It is the program `azurite-blob` of the npm package `azurite`. Tests that need it are
skipped where it is not on the PATH.
"""

import base64
import hashlib
import hmac
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from email.utils import formatdate
from itertools import count

import pytest

from support.ports import free_port
from support.running import PATIENCE_S

ACCOUNT = "devstoreaccount1"
# Microsoft publishes this key: every Azurite has it.
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
_VERSION = "2021-12-02"


class Container:
    """An empty container."""

    def __init__(self, url: str, name: str) -> None:
        self.url, self.name = url, name

    def uri(self, prefix: str) -> str:
        return f"az://{self.name}/{prefix}?account_name={ACCOUNT}&endpoint_override={self.url}"


@pytest.fixture(scope="session")
def azurite_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The endpoint of a server for all tests of this process."""
    program = shutil.which("azurite-blob")
    if program is None:
        pytest.skip("needs azurite-blob on the PATH: npm install azurite@3.37.0")
    pytest.importorskip("obstore")
    directory = tmp_path_factory.mktemp("azurite")
    port = free_port()
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                program, "--silent", "--skipApiVersionCheck", "--disableTelemetry", "--blobHost", "127.0.0.1",
                "--blobPort", str(port), "--location", str(directory),
            ],
            stdout=log, stderr=log,
        )  # fmt: skip
    url = f"http://127.0.0.1:{port}/{ACCOUNT}"
    until_s = time.monotonic() + PATIENCE_S
    while not _created(url, "ready"):
        assert process.poll() is None and time.monotonic() < until_s, (directory / "log").read_text()
        time.sleep(0.1)
    yield url
    process.terminate()
    process.wait(PATIENCE_S)


_NUMBERS = count(1)


@pytest.fixture
def container(azurite_url: str, monkeypatch: pytest.MonkeyPatch) -> Container:
    """A new container; the account's key is in the environment."""
    monkeypatch.setenv("AZURE_STORAGE_KEY", KEY)
    name = f"container-{next(_NUMBERS)}"
    assert _created(azurite_url, name)
    return Container(azurite_url, name)


def _created(url: str, name: str) -> bool:
    """Create a container by a signed request, since the client cannot; return whether the server answered."""
    date = formatdate(usegmt=True)
    signed = (
        "PUT" + "\n" * 12 + f"x-ms-date:{date}\nx-ms-version:{_VERSION}\n"
        f"/{ACCOUNT}/{ACCOUNT}/{name}\nrestype:container"
    )
    signature = hmac.new(base64.b64decode(KEY), signed.encode(), hashlib.sha256).digest()
    headers = {
        "x-ms-date": date,
        "x-ms-version": _VERSION,
        "Authorization": f"SharedKey {ACCOUNT}:{base64.b64encode(signature).decode()}",
    }
    request = urllib.request.Request(f"{url}/{name}?restype=container", method="PUT", headers=headers)
    try:
        urllib.request.urlopen(request, timeout=5).close()
    except urllib.error.HTTPError:
        raise
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False
    return True
