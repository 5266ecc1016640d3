"""Reads from an object store, and the error of each failure."""

import contextlib
import multiprocessing
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from lakewriter.errors import LakeError
from lakewriter.lake.remote.location import ATTEMPTS_MAX, locate
from lakewriter.lake.remote.object_store import Object, ObjectStorage
from lakewriter.lake.storage import InvalidKeyError, Listing
from support.object_store import BUCKET, Request, Store, environment, refusal

WHOLE = b"PAR1 and so on PAR1"


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    started = Store()
    yield started
    started.close()


def storage(store: Store, prefix: str) -> ObjectStorage:
    return ObjectStorage(locate(store.uri(prefix)))


def test_entries_and_tree(store: Store) -> None:
    """One request lists the names directly below a directory, or all keys with their sizes and versions."""
    for name in ("a.txt", "d/b.txt", "d/币 %41#?.txt", "d/e/c.txt", "dd/x"):
        store.put(f"entries/{name}", b"12345")
    there = storage(store, "entries")
    store.requests.clear()
    version = there.version("a.txt") or ""
    store.requests.clear()
    assert there.entries("") == Listing(["d", "dd"], ["a.txt"], {"a.txt": version})
    assert there.entries("d")[:2] == (["e"], ["b.txt", "币 %41#?.txt"])
    assert there.entries("d/none") == Listing([], [])
    names = ("d/b.txt", "d/e/c.txt", "d/币 %41#?.txt")
    assert there.tree("d") == [Object(name, 5, version) for name in names]
    assert store.counted() == {"LIST": 4}


# As the error prints it: its client names no more of the first two.
INVALID_KEYS = {"../x": "../", "/x": "/", "a\x01b": "a\\u0001b", 'a\n"b': 'a\\n"b'}


def test_key_that_is_no_path(store: Store) -> None:
    """A listing with a key that no client can name is an error that says which key."""
    for number, (key, named) in enumerate(INVALID_KEYS.items()):
        store.put(f"paths{number}/d/{key}", b"")
        with pytest.raises(InvalidKeyError) as raised:
            storage(store, f"paths{number}").entries("d")
        what = f"lake: s3://{BUCKET}/paths{number}/d: the key paths{number}/d/{named} has an invalid name"
        assert raised.value.what == what
        assert raised.value.hint.startswith("delete or rename that key")


def test_key_that_is_listed_and_absent(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """A store may render a key otherwise than it is: it is left out after a second look, with a warning."""
    for name in ("x", "y"):
        store.put(f"rendered/d/{name}.ndjson", name.encode())
    odd = Request("GET", "rendered/d/y.ndjson")
    store.requests.clear()
    with (
        store.misbehaving(
            lambda request: refusal("404 Not Found", "NoSuchKey", "") if request == odd else None
        ),
        storage(store, "rendered").local_copy(["d"], ".ndjson") as root,
    ):
        assert [path.name for path in (root / "d").iterdir()] == ["x.ndjson"]
    assert store.counted() == {"LIST": 2, "GET": 4}
    assert caplog.messages == [
        "s3://bucket/rendered/d/y.ndjson: left out; the store lists this key, but does not have it"
    ]


def test_more_keys_than_one_listing_has(store: Store) -> None:
    """A directory with more than a thousand keys is listed whole."""
    for number in range(1001):
        store.put(f"many/{number:04}", b"")
    store.requests.clear()
    assert len(storage(store, "many").tree("")) == 1001
    assert store.counted() == {"LIST": 2}


def test_read_and_version(store: Store) -> None:
    """A read returns bytes and their version, which changes with them, by one request."""
    store.put("read/币 %41#?.txt", b"one\n")
    there = storage(store, "read")
    store.requests.clear()
    found = there.read("币 %41#?.txt")
    assert found is not None
    assert found.data == b"one\n"
    assert store.counted() == {"GET": 1}
    assert there.version("币 %41#?.txt") == found.version
    store.put("read/币 %41#?.txt", b"two")
    assert there.version("币 %41#?.txt") != found.version
    assert there.read("none") is None
    assert there.version("none") is None


def test_object_replaced_while_it_is_read(store: Store) -> None:
    """If a longer or a shorter object replaces one right before its bytes are sent, the read has one whole object."""
    there = storage(store, "torn")
    for new in (b"PAR1" + bytes(5000) + b"PAR1", b"PAR1PAR1"):
        store.put("torn/x.parquet", WHOLE)
        with store.before(
            Request("GET", "torn/x.parquet"), lambda new=new: store.put("torn/x.parquet", new)
        ) as left:
            found = there.read("x.parquet")
        assert left == []
        assert found is not None
        assert found[:2] == (new, there.version("x.parquet"))


def test_what_somebody_else_put_there_is_given_as_it_is(store: Store) -> None:
    """A file without Parquet's last bytes is returned unchanged."""
    store.put("odd/x.parquet", b"no such thing")
    found = storage(store, "odd").read("x.parquet")
    assert found is not None
    assert found.data == b"no such thing"


@pytest.mark.parametrize(
    ("answer", "what", "hint"),
    [
        (refusal("403 Forbidden", "AccessDenied", "Access Denied"), "Access Denied", "set AWS_PROFILE"),
        (refusal("403 Forbidden", "InvalidAccessKeyId", "No such key id."), "No such key id", "set AWS_PROFILE"),
        (refusal("403 Forbidden", "SignatureDoesNotMatch", "Does not match."), "Does not match", "set AWS_PROFILE"),
        (refusal("400 Bad Request", "ExpiredToken", "The token has expired."), "The token has expired", "set AWS_PROFILE"),
        (refusal("301 Moved Permanently", "PermanentRedirect", "Use another endpoint."),
         "incorrectly configured region", "AWS_REGION, or ?region=…, has to be the bucket's"),
        (refusal("400 Bad Request", "AuthorizationHeaderMalformed",
                 "the region 'us-east-1' is wrong; expecting 'eu-west-1'"),
         "the region 'us-east-1' is wrong; expecting 'eu-west-1'",
         "AWS_REGION=eu-west-1, or s3://bucket/lake?region=eu-west-1"),
        (refusal("503 Slow Down", "SlowDown", "Reduce your request rate."), "Reduce your request rate", "try again later"),
        (refusal("500 Internal Server Error", "InternalError", "We failed."), "We failed", "try again later"),
        (("404 Not Found", [], b""), "status code: 404 Not Found", "is the endpoint that of a store"),
        (("200 OK", [("Content-Type", "text/html")], b"<html>Welcome to the hotel"), "invalid list response", ""),
    ],
)  # fmt: skip
def test_refusals_are_one_line(
    store: Store, answer: tuple[str, list[tuple[str, str]], bytes], what: str, hint: str
) -> None:
    """Each refusal of the store is one line with the lake's name, and a hint."""
    there = storage(store, "lake")
    with store.misbehaving(lambda _: answer), pytest.raises(LakeError) as raised:
        there.entries("")
    assert raised.value.what.startswith(f"lake: s3://{BUCKET}/lake: ")
    assert what in raised.value.what
    assert "\n" not in raised.value.what
    assert raised.value.hint.startswith(hint)


def test_refusal_without_words(store: Store) -> None:
    """A refusal without a text, as for a key's length, is an error with the status."""
    there = storage(store, "lake")
    with (
        store.misbehaving(lambda _: refusal("403 Forbidden", "AccessDenied", "")),
        pytest.raises(LakeError, match=r"^lake: s3://bucket/lake/x: AccessDenied \(HTTP status 403\)(\n|$)"),
    ):
        there.read("x")
    with (
        store.misbehaving(lambda _: refusal("400 Bad Request", "Odd", "")),
        pytest.raises(LakeError, match=r"^lake: s3://bucket/lake/x: Odd \(HTTP status 400\)(\n|$)"),
    ):
        there.read("x")


def test_nobody_answers() -> None:
    """A closed port is an error after a few attempts."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(LakeError, match=r"cannot connect to the store") as raised:
        ObjectStorage(locate(f"s3://a:b@bucket/lake?endpoint_override=http://127.0.0.1:{port}")).entries("")
    assert "AWS_ENDPOINT_URL" in raised.value.hint


def test_an_endpoint_without_https(store: Store) -> None:
    """Without a scheme an endpoint is asked by https, and the error says what to write."""
    endpoint = store.url.removeprefix("http://")
    with pytest.raises(LakeError) as raised:
        ObjectStorage(locate(f"s3://a:b@bucket/lake?endpoint_override={endpoint}")).entries("")
    assert raised.value.what == "lake: s3://bucket/lake: the store does not speak https"
    assert raised.value.hint == "write http:// before the endpoint: AWS_ENDPOINT_URL=http://…"


def accepted(server: socket.socket) -> int:
    """Return the number of connections that wait to be accepted."""
    count = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            server.accept()[0].close()
            count += 1
    return count


@pytest.mark.slow
def test_somebody_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that accepts connections and never answers is an error after a few attempts."""
    monkeypatch.setattr("lakewriter.lake.remote.location.SILENCE_S_MAX", 0.5)
    with socket.create_server(("127.0.0.1", 0), backlog=50) as server:
        with pytest.raises(LakeError, match=r"^lake: s3://bucket/lake: .*no answer in time"):
            ObjectStorage(
                locate(f"s3://a:b@bucket/lake?endpoint_override=http://127.0.0.1:{server.getsockname()[1]}")
            ).entries("")
        server.setblocking(False)
        assert 1 <= accepted(server) <= ATTEMPTS_MAX


def test_without_credentials(store: Store, tmp_path: Path) -> None:
    """Without credentials no request is sent, and the hint names the ways to give them."""
    store.requests.clear()
    with environment(HOME=str(tmp_path)), pytest.raises(LakeError) as raised:
        locate(f"s3://bucket/lake?endpoint_override={store.url}")
    assert raised.value.what == "lake: s3://bucket/lake: there are no credentials"
    assert "AWS_ACCESS_KEY_ID" in raised.value.hint and "instance_role=true" in raised.value.hint
    assert store.requests == []


def test_anonymous_requests(store: Store) -> None:
    """Anonymous requests are sent without a signature, and the store's refusal is reported."""
    with (
        environment(),
        store.misbehaving(lambda _: refusal("403 Forbidden", "AccessDenied", "Access Denied")),
        pytest.raises(LakeError, match=r"^lake: s3://bucket/lake: Access Denied(\n|$)"),
    ):
        ObjectStorage(locate(f"s3://bucket/lake?endpoint_override={store.url}&anonymous=true")).entries("")


def test_missing_bucket(store: Store) -> None:
    """A listing or a read of a missing bucket is an error; a missing key is none."""
    there = ObjectStorage(locate(store.uri("lake").replace("@bucket/", "@nowhere/")))
    for ask in (lambda: there.entries(""), lambda: there.tree(""), lambda: there.read("x")):
        with pytest.raises(LakeError, match=r"^lake: s3://nowhere/lake: there is no bucket nowhere(\n|$)"):
            ask()


def test_forked_process(store: Store) -> None:
    """A process that was forked after the lake was opened gets an error instead of a wait without end."""
    there = storage(store, "forked")
    there.entries("")
    receiver, sender = multiprocessing.Pipe(duplex=False)
    child = os.fork()
    if not child:
        try:
            there.entries("")
            sender.send("no error")
        except LakeError as error:
            sender.send(error.hint)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert receiver.poll()
    assert "spawn" in receiver.recv()
