"""The sources of S3 credentials, and what is never asked."""

import re
from pathlib import Path

import pytest
from obstore.store import S3Store

from lakewriter.errors import LakeError
from lakewriter.lake.remote.aws_credentials import Profile, find_provider, read_profile

ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "of environment", "AWS_SECRET_ACCESS_KEY": "secret"}
STATIC = {"aws_access_key_id": "of profile", "aws_secret_access_key": "secret", "aws_session_token": "token"}


def found(environment: dict[str, str], profile: dict[str, str], *, instance_role: bool = False) -> str | None:
    provider = find_provider("s3://b/lake", environment, Profile("p", profile), instance_role=instance_role)
    return None if provider is None else provider()["access_key_id"]


def test_order_of_sources() -> None:
    """Keys in the environment come first, then roles of containers, then the profile's keys."""
    role = {"AWS_WEB_IDENTITY_TOKEN_FILE": "/x"}
    assert found(ENVIRONMENT | role, STATIC) == "of environment"
    assert found(role, STATIC) is None
    assert found({}, STATIC) == "of profile"
    assert found({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, STATIC) == "of profile"


def test_session_token_belongs_to_its_keys() -> None:
    """A token is sent with the keys of its own source only."""
    provider = find_provider(
        "s3://b/lake", {"AWS_SESSION_TOKEN": "stale"}, Profile("p", STATIC), instance_role=False
    )
    assert provider is not None
    assert provider()["token"] == "token"


def test_metadata_address_is_asked_only_on_request() -> None:
    """Without any credentials an error is raised; only instance_role lets the store ask the machine."""
    with pytest.raises(LakeError, match="there are no credentials"):
        found({}, {})
    assert found({}, {}, instance_role=True) is None


def test_profile_without_credentials() -> None:
    """A profile that is named and has none is an error with its name."""
    with pytest.raises(LakeError, match="AWS's profile p does not exist"):
        found({"AWS_PROFILE": "p"}, {})
    with pytest.raises(LakeError, match="AWS's profile p has no credentials"):
        found({"AWS_PROFILE": "p"}, {"region": "x"})


def test_profile_files(tmp_path: Path) -> None:
    """The config file has other names of sections than the credentials file."""
    config, credentials = tmp_path / "config", tmp_path / "credentials"
    config.write_text(
        "[default]\nregion = one\n[profile lake]\nregion = two\nendpoint_url = http://x%20y\n[lake]\nregion = three\n"
    )
    credentials.write_text("[lake]\naws_access_key_id = k\n")
    environment = {"AWS_CONFIG_FILE": str(config), "AWS_SHARED_CREDENTIALS_FILE": str(credentials)}
    assert read_profile("u", environment) == Profile("default", {"region": "one"})
    values = {"region": "two", "endpoint_url": "http://x%20y", "aws_access_key_id": "k"}
    assert read_profile("u", environment | {"AWS_PROFILE": "lake"}) == Profile("lake", values)
    config.write_text("no section\n")
    with pytest.raises(LakeError, match=re.escape(f"lake: u: {config}: File contains no section headers")):
        read_profile("u", environment)
    missing = {"AWS_CONFIG_FILE": str(tmp_path / "x"), "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "x")}
    assert read_profile("u", missing).values == {}


def test_profile_that_boto3_resolves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program's credentials come through boto3; a program that fails is an error of one line."""
    pytest.importorskip("boto3")
    config = tmp_path / "config"
    program = """printf '{"Version": 1, "AccessKeyId": "of program", "SecretAccessKey": "s"}'"""
    (tmp_path / "program").write_text(f"#!/bin/sh\n{program}\n")
    (tmp_path / "program").chmod(0o755)
    config.write_text(
        f"[profile p]\ncredential_process = {tmp_path}/program\n[profile q]\ncredential_process = false\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    environment = {"AWS_CONFIG_FILE": str(config), "AWS_PROFILE": "p"}
    profile = read_profile("u", environment)
    provider = find_provider("u", environment, profile, instance_role=False)
    assert provider is not None
    assert provider()["access_key_id"] == "of program"
    S3Store("bucket", credential_provider=provider)
    with pytest.raises(LakeError, match=r"^lake: u: AWS's profile q: .*\n"):
        find_provider("u", environment, Profile("q", {"credential_process": "false"}), instance_role=False)
