"""The credentials of an S3 store: from the URI, the environment, a profile, or the machine's role.

Strategy: the order is that of AWS's own tools. One difference: the metadata address of a
cloud machine is asked only if the URI has `instance_role=true`. On other machines that
request waits for seconds, and another machine of the network may answer it.

A profile with keys is read here. Other profiles (SSO, roles, processes) need boto3.
This module sends no request; boto3 may, to renew credentials.
"""

import configparser
import importlib.util
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, TypedDict

from lakewriter.errors import LakeError

# The store itself reads these: roles of Kubernetes and of containers.
_ROLE_VARIABLES = (
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)

# A profile with one of these keys gets its credentials by a request or a program.
_INDIRECT = (
    "role_arn", "source_profile", "credential_source", "credential_process", "web_identity_token_file",
    "sso_session", "sso_start_url", "login_session",
)  # fmt: skip

_HINT = (
    "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY;"
    " ?instance_role=true asks the cloud machine, ?anonymous=true sends none"
)


class Keys(TypedDict):
    """An access key, as obstore takes it. The last two may be None."""

    access_key_id: str
    secret_access_key: str
    token: str | None
    expires_at: datetime | None


class Profile(NamedTuple):
    """A profile of AWS's two configuration files.

    Args:
        name: its name.
        values: its keys and values from both files; the credentials file has precedence.
    """

    name: str
    values: Mapping[str, str]


Provider = Callable[[], Keys]


def static_keys(access_key: str, secret_key: str, token: str = "") -> Provider:
    """Return a provider of keys that never change."""
    keys = Keys(access_key_id=access_key, secret_access_key=secret_key, token=token or None, expires_at=None)
    return lambda: keys


def find_provider(
    uri: str, environment: Mapping[str, str], profile: Profile, *, instance_role: bool
) -> Provider | None:
    """Return the provider of credentials, or None if the store finds them itself.

    Args:
        uri: the lake's name in errors.
        instance_role: whether the store may ask the metadata address.

    Raises:
        LakeError: if there are no credentials, or the profile needs boto3.
    """
    access_key, secret_key = (
        environment.get(name, "") for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    )
    if access_key and secret_key:
        return static_keys(access_key, secret_key, environment.get("AWS_SESSION_TOKEN", ""))
    if instance_role or any(environment.get(name) for name in _ROLE_VARIABLES):
        return None
    is_indirect = any(name in profile.values for name in _INDIRECT)
    access_key, secret_key = (
        profile.values.get(name, "") for name in ("aws_access_key_id", "aws_secret_access_key")
    )
    if access_key and secret_key and not is_indirect:
        return static_keys(access_key, secret_key, profile.values.get("aws_session_token", ""))
    if is_indirect:
        return _from_boto3(uri, profile)
    if environment.get("AWS_PROFILE"):
        why = "has no credentials" if profile.values else "does not exist"
        raise LakeError(f"lake: {uri}: AWS's profile {profile.name} {why}", "aws configure list-profiles")
    raise LakeError(f"lake: {uri}: there are no credentials", _HINT)


def read_profile(uri: str, environment: Mapping[str, str]) -> Profile:
    """Return the profile that the environment names, or the default one. It may have no values.

    Raises:
        LakeError: if one of the two files is damaged.
    """
    name = environment.get("AWS_PROFILE") or environment.get("AWS_DEFAULT_PROFILE") or "default"
    values: dict[str, str] = {}
    for variable, path, section in (
        ("AWS_CONFIG_FILE", "~/.aws/config", name if name == "default" else f"profile {name}"),
        ("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials", name),
    ):
        parser = configparser.RawConfigParser(default_section="", strict=False)
        try:
            file = Path(environment.get(variable) or path).expanduser()
            parser.read(file, encoding="utf-8")
        except RuntimeError:  # this user has no home directory
            continue
        except OSError as error:
            raise LakeError(f"lake: {uri}: {file}: {error.strerror}") from None
        except (configparser.Error, UnicodeDecodeError) as error:
            raise LakeError(f"lake: {uri}: {file}: {str(error).splitlines()[0]}") from None
        if parser.has_section(section):
            values |= parser.items(section)
    return Profile(name, values)


def _from_boto3(uri: str, profile: Profile) -> Provider:
    """Return boto3's provider for a profile, without its last resort, the metadata address.

    Raises:
        LakeError: if boto3 is not installed, or finds no credentials.
    """
    if importlib.util.find_spec("boto3") is None:
        raise LakeError(f"lake: {uri}: AWS's profile {profile.name} needs boto3", "pip install boto3")
    # boto3 takes half a second to import, and is optional.
    import botocore.exceptions  # noqa: PLC0415
    import botocore.session  # noqa: PLC0415
    from obstore.auth.boto3 import Boto3CredentialProvider  # noqa: PLC0415

    session = botocore.session.Session(profile=profile.name)
    try:
        session.get_component("credential_provider").remove("iam-role")
        provider = Boto3CredentialProvider(session)
        provider()
    except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError, ValueError) as error:
        what = str(error).splitlines()[0].rstrip(".")
        raise LakeError(
            f"lake: {uri}: AWS's profile {profile.name}: {what}", f"aws sso login --profile {profile.name}"
        ) from None

    def renew() -> Keys:
        found = provider()
        return Keys(
            access_key_id=found["access_key_id"],
            secret_access_key=found["secret_access_key"],
            token=found.get("token"),
            expires_at=found["expires_at"],
        )

    return renew
