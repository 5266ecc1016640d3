"""The location of a lake on an object store: the store and the prefix of a URI.

    s3://bucket/prefix?region=eu-west-1&endpoint_override=http://127.0.0.1:9000
    gs://bucket/prefix
    az://container/prefix?account_name=…

Only this module knows the parameters, the environment variables and the timeouts
of each store. Credentials of S3 are those of `aws_credentials`.
"""

import hashlib
import os
import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote

import msgspec
from obstore.store import AzureStore, GCSStore, ObjectStore, S3Store

from lakewriter.errors import LakeError, UsageError
from lakewriter.lake.remote.aws_credentials import Profile, find_provider, read_profile, static_keys
from lakewriter.lake.root import remote_state_path

# The maximum number of attempts if a store does not answer, and the timeouts of an attempt.
ATTEMPTS_MAX = 3
CONNECT_S_MAX = 3.0
SILENCE_S_MAX = 5.0
REQUEST_S_MAX = 60.0
RETRY_S_MAX = 20.0

_BACKOFF = {"init_backoff": timedelta(milliseconds=50), "max_backoff": timedelta(seconds=2), "base": 2}

# The environment variables of each parameter. The first variable that is set counts.
_VARIABLES = {
    "endpoint_override": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
    "region": ("AWS_REGION", "AWS_DEFAULT_REGION"),
}
# The names of the same values in a profile.
_OF_PROFILE = {"endpoint_override": "endpoint_url", "region": "region"}

# Variables that give a store credentials.
_GOOGLE = (
    "GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_PATH", "GOOGLE_SERVICE_ACCOUNT_KEY",
    "GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_BEARER_TOKEN",
)  # fmt: skip
_GOOGLE_FILE = ".config/gcloud/application_default_credentials.json"
_GOOGLE_URL = "https://storage.googleapis.com"
_AZURE = (
    "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ACCESS_KEY", "AZURE_STORAGE_SAS_KEY", "AZURE_STORAGE_SAS_TOKEN",
    "AZURE_STORAGE_TOKEN", "AZURE_STORAGE_CLIENT_ID", "AZURE_CLIENT_ID", "AZURE_FEDERATED_TOKEN_FILE",
    "AZURE_USE_AZURE_CLI",
)  # fmt: skip

_EXAMPLE = "a directory, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix"


class Location(NamedTuple):
    """A lake on an object store.

    Args:
        uri: the lake's name in errors. It lacks the parameters, which may be secret.
        path: the root in the store: `bucket/prefix`.
        store: the bucket.
        state_dir: the local directory of a recorder's state, whose journals are read.
        endpoint, region: from the URI or the environment, or "" for the store's default.
        account: the account of an Azure store, or "".
    """

    uri: str
    path: str
    store: ObjectStore
    state_dir: Path
    endpoint: str = ""
    region: str = ""
    account: str = ""

    @property
    def identity(self) -> str:
        """A text that two different lakes never share. It has no credentials.

        An endpoint may have a password, so it is hashed.
        """
        where = "\n".join((self.endpoint, self.region, self.account))
        return f"{self.uri} {hashlib.blake2b(where.encode(), digest_size=16).hexdigest()}"

    @property
    def bucket(self) -> str:
        """The bucket, or container."""
        return self.path.partition("/")[0]

    @property
    def prefix(self) -> str:
        """The prefix of all keys, with its last slash, or "" for a lake in the bucket's root."""
        below = self.path.partition("/")[2]
        return f"{below}/" if below else ""


class _Named(NamedTuple):
    """A bucket, the lake's name in errors, the parameters of its store, and AWS's profile for S3."""

    uri: str
    bucket: str
    given: Mapping[str, str]
    profile: Profile


def locate(uri: str) -> Location:
    """Return the location of a URI. No request is sent, except by boto3 for some profiles.

    Raises:
        UsageError: if the URI is invalid, or has an unknown parameter.
        LakeError: if there are no credentials.
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
    profile = Profile("", {})
    if scheme == "s3":
        profile = read_profile(named, os.environ)
        given = _with_environment(given, profile, os.environ)
    endpoint, account = given.get("endpoint_override", ""), _account(given) if scheme == "az" else ""
    state_dir = remote_state_path(_directory_of_store(scheme, account, endpoint), bucket, *below)
    try:
        store = make(_Named(named, bucket, given, profile))
    except ValueError as error:
        raise UsageError(f"lake: {named}: {str(error).splitlines()[0]}") from None
    return Location(
        named,
        "/".join([bucket, *below]),
        store,
        state_dir,
        endpoint,
        given.get("region", ""),
        account,
    )


def _directory_of_store(scheme: str, account: str, endpoint: str) -> str:
    """Return the name of a directory for a store's lakes: other stores have buckets of the same names."""
    host = endpoint.partition("://")[2] or endpoint
    named = (scheme, account, host.rpartition("@")[2].rstrip("/"))  # without a password
    return "@".join(re.sub(r"[^\w.:-]", "_", part) for part in named if part)


def _with_environment(
    given: dict[str, str], profile: Profile, environment: Mapping[str, str]
) -> dict[str, str]:
    """Return the parameters, with values of AWS's variables and profile for missing ones."""
    for name, variables in _VARIABLES.items():
        values = [environment[variable] for variable in variables if environment.get(variable)]
        value = given.get(name) or next(iter(values), "") or profile.values.get(_OF_PROFILE[name], "")
        if value:
            given = given | {name: value}
    return given


def _s3(named: _Named) -> ObjectStore:
    given = named.given
    access_key, secret_key = given.get("access_key", ""), given.get("secret_key", "")
    if bool(access_key) != bool(secret_key):
        raise ValueError("an access key and its secret go together")
    instance_role = _is_true(given, "instance_role")
    options: dict[str, Any] = {"skip_signature": True} if _is_true(given, "anonymous") else {}
    if access_key:
        options["credential_provider"] = static_keys(access_key, secret_key)
    elif not options:
        provider = find_provider(named.uri, os.environ, named.profile, instance_role=instance_role)
        options |= {} if provider is None else {"credential_provider": provider}
    if endpoint := _endpoint(given):
        options["endpoint"] = endpoint
    if region := given.get("region"):
        options["region"] = region
    return S3Store(named.bucket, **options, **_client())


def _gs(named: _Named) -> ObjectStore:
    endpoint = _endpoint(named.given)
    options: dict[str, Any] = {"base_url": endpoint} if endpoint else {}
    is_anonymous = _is_true(named.given, "anonymous")
    if is_anonymous:
        # With skip_signature alone the client would still ask the metadata address for a token.
        account = {"client_email": "", "private_key": "", "private_key_id": "", "disable_oauth": True}
        account["gcs_base_url"] = endpoint or _GOOGLE_URL
        options = {"service_account_key": msgspec.json.encode(account).decode()}
    role = _is_true(named.given, "instance_role")
    known_file = Path(os.environ.get("HOME", "/"), _GOOGLE_FILE)
    if not (is_anonymous or role or any(map(os.environ.get, _GOOGLE)) or known_file.exists()):
        raise LakeError(
            f"lake: {named.uri}: there are no credentials",
            "gcloud auth application-default login, or set GOOGLE_APPLICATION_CREDENTIALS;"
            " ?instance_role=true asks the cloud machine",
        )
    return GCSStore(named.bucket, **options, **_client())


def _az(named: _Named) -> ObjectStore:
    given, environment = named.given, os.environ
    account = _account(given)
    if not account:
        raise ValueError("names no account: ?account_name=…, or AZURE_STORAGE_ACCOUNT")
    options: dict[str, Any] = {"skip_signature": True} if _is_true(given, "anonymous") else {}
    role = _is_true(given, "instance_role")
    if key := environment.get("AZURE_STORAGE_KEY"):
        options["account_key"] = key
    if not (options or role or any(map(environment.get, _AZURE))):
        raise LakeError(
            f"lake: {named.uri}: there are no credentials",
            "set AZURE_STORAGE_KEY, or AZURE_STORAGE_SAS_TOKEN; ?instance_role=true asks the cloud machine",
        )
    if endpoint := _endpoint(given):
        options["endpoint"] = endpoint
    return AzureStore(named.bucket, account_name=account, **options, **_client())


def _account(given: Mapping[str, str]) -> str:
    variables = ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT")
    return given.get("account_name") or next(filter(None, map(os.environ.get, variables)), "")


_STORES: dict[str, tuple[tuple[str, ...], Callable[[_Named], ObjectStore]]] = {
    "s3": (
        ("access_key", "secret_key", "anonymous", "instance_role", "endpoint_override", "region", "scheme"),
        _s3,
    ),
    "gs": (("anonymous", "instance_role", "endpoint_override", "scheme"), _gs),
    "az": (("account_name", "anonymous", "instance_role", "endpoint_override", "scheme"), _az),
}


def _client() -> dict[str, Any]:
    """Return the limits of requests, as each store takes them."""
    return {
        "client_options": {
            "allow_http": True,
            "connect_timeout": timedelta(seconds=CONNECT_S_MAX),
            "read_timeout": timedelta(seconds=SILENCE_S_MAX),
            "timeout": timedelta(seconds=max(REQUEST_S_MAX, SILENCE_S_MAX)),
        },
        "retry_config": {
            "max_retries": ATTEMPTS_MAX - 1,
            "retry_timeout": timedelta(seconds=RETRY_S_MAX),
            "backoff": _BACKOFF,
        },
    }


def _endpoint(given: Mapping[str, str]) -> str:
    """Return the endpoint with its scheme, or "" for the store's own."""
    endpoint = given.get("endpoint_override", "").rstrip("/")
    return (
        f"{given.get('scheme') or 'https'}://{endpoint}" if endpoint and "://" not in endpoint else endpoint
    )


def _is_true(given: Mapping[str, str], name: str) -> bool:
    text = given.get(name, "false")
    if text not in ("true", "false"):
        raise ValueError(f"{name}={text} is neither true nor false")
    return text == "true"
