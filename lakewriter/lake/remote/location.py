"""The location of a lake on an object store: the file system and the path of a URI.

    s3://bucket/prefix?region=eu-west-1&endpoint_override=http://127.0.0.1:9000
    gs://bucket/prefix
    az://container/prefix?account_name=…

Only this module knows the parameters, the environment variables and the timeouts
of each store.
"""

import os
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote

import pyarrow.fs as fs

from lakewriter.errors import UsageError
from lakewriter.lake.root import state_path

# The maximum number of attempts if a store does not answer, and the timeouts of an attempt.
ATTEMPTS_MAX = 3
CONNECT_S_MAX = 3.0
SILENCE_S_MAX = 5.0

# The environment variables of each parameter. The first variable that is set counts.
_VARIABLES = {
    "endpoint_override": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
    "region": ("AWS_REGION", "AWS_DEFAULT_REGION"),
}

_EXAMPLE = "a directory, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix"


class Location(NamedTuple):
    """A lake on an object store.

    Args:
        uri: the lake's name in errors. It lacks the parameters, which may be secret.
        path: the root in the file system: `bucket/prefix`.
        filesystem: Arrow's file system.
        state_dir: the local directory of a recorder's state, whose journals are read.
        endpoint, region: from the URI or the environment, or "" for the store's default.
    """

    uri: str
    path: str
    filesystem: fs.FileSystem
    state_dir: Path
    endpoint: str = ""
    region: str = ""

    @property
    def bucket(self) -> str:
        """The bucket, or container."""
        return self.path.partition("/")[0]


def locate(uri: str) -> Location:
    """Return the location of a URI. No request is sent.

    Raises:
        UsageError: if the URI is invalid, or has an unknown parameter.
    """
    scheme, _, rest = uri.partition("://")
    scheme = scheme.lower()
    if scheme not in _STORES:
        raise UsageError(f"lake: {scheme}:// is no place for a lake", _EXAMPLE)
    place, _, query = rest.partition("?")
    authority, *below = place.split("/")
    secret, at, bucket = authority.rpartition("@")
    below = [part for part in below if part]
    named = f"{scheme}://{'/'.join([bucket, *below])}"
    if not bucket:
        raise UsageError(f"lake: {named} names no bucket", f"{scheme}://bucket/prefix")
    if not {".", ".."}.isdisjoint(below):
        raise UsageError(f"lake: {named}: a path in a bucket has no . and ..", f"{scheme}://bucket/prefix")
    given = dict(parse_qsl(query, keep_blank_values=True))
    if at:
        user, _, password = secret.partition(":")
        given |= {"access_key": unquote(user), "secret_key": unquote(password)}
    known, make = _STORES[scheme]
    for name in given:
        if name not in known:
            raise UsageError(
                f"lake: {named}: there is no parameter {name}", f"parameters: {', '.join(known)}"
            )
    if scheme == "s3":
        given = _with_environment(given, os.environ)
    try:
        filesystem = make(given)
    except (ValueError, OSError) as error:
        raise UsageError(f"lake: {named}: {str(error).splitlines()[0]}") from None
    return Location(
        named,
        "/".join([bucket, *below]),
        filesystem,
        state_path("lakes", scheme, bucket, *below),
        given.get("endpoint_override", ""),
        given.get("region", ""),
    )


def _with_environment(given: dict[str, str], environment: Mapping[str, str]) -> dict[str, str]:
    """Return the parameters, with values of AWS's environment variables for missing ones.

    Arrow reads these variables only for a file system from a URI, and such a file
    system accepts no timeouts. Arrow itself finds credentials and profiles.
    """
    for name, variables in _VARIABLES.items():
        values = [environment[variable] for variable in variables if environment.get(variable)]
        if values and not given.get(name):
            given = given | {name: values[0]}
    return given


def _s3(given: Mapping[str, str]) -> fs.FileSystem:
    if bool(given.get("access_key")) != bool(given.get("secret_key")):
        raise ValueError("an access key and its secret go together")
    return fs.S3FileSystem(
        access_key=given.get("access_key"),
        secret_key=given.get("secret_key"),
        anonymous=_is_true(given.get("anonymous", "false")),
        region=given.get("region") or None,
        scheme=given.get("scheme"),
        endpoint_override=given.get("endpoint_override") or None,
        connect_timeout=CONNECT_S_MAX,
        request_timeout=SILENCE_S_MAX,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS_MAX),
    )


def _gs(given: Mapping[str, str]) -> fs.FileSystem:
    return fs.GcsFileSystem(
        anonymous=_is_true(given.get("anonymous", "false")),
        scheme=given.get("scheme"),
        endpoint_override=given.get("endpoint_override"),
        retry_time_limit=timedelta(seconds=ATTEMPTS_MAX * SILENCE_S_MAX),
    )


def _az(given: Mapping[str, str]) -> fs.FileSystem:
    account = given.get("account_name") or os.environ.get("AZURE_STORAGE_ACCOUNT")
    if not account:
        raise ValueError("names no account: ?account_name=…, or AZURE_STORAGE_ACCOUNT")
    return fs.AzureFileSystem(
        account,
        account_key=os.environ.get("AZURE_STORAGE_KEY") or None,
        blob_storage_authority=given.get("blob_storage_authority"),
        blob_storage_scheme=given.get("blob_storage_scheme"),
    )


_STORES: dict[str, tuple[tuple[str, ...], Callable[[Mapping[str, str]], fs.FileSystem]]] = {
    "s3": (("access_key", "secret_key", "anonymous", "endpoint_override", "region", "scheme"), _s3),
    "gs": (("anonymous", "endpoint_override", "scheme"), _gs),
    "az": (("account_name", "blob_storage_authority", "blob_storage_scheme"), _az),
}


def _is_true(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(f"anonymous={text} is neither true nor false")
    return text == "true"
