"""URIs of lakes on object stores."""

from pathlib import Path

import pytest
from obstore.store import AzureStore, GCSStore

from lakewriter.errors import UsageError
from lakewriter.lake.remote.location import locate
from support.object_store import environment

KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}


def test_bucket_and_prefix() -> None:
    """Extra slashes are ignored, a bucket alone is a location, and nothing else is decoded."""
    with environment(**KEYS):
        assert locate("s3://b/some//lake/").path == "b/some/lake"
        assert locate("s3://b/some//lake/").uri == "s3://b/some/lake"
        assert locate("S3://b").path == "b"
        assert locate("s3://b/币 %41@c").path == "b/币 %41@c"
        assert locate("s3://b/x").bucket == "b"


def test_secrets_are_not_in_the_name() -> None:
    """Errors name the lake without secrets."""
    with environment():
        there = locate("s3://key:se%2Fcret@b/lake?region=eu-west-1&endpoint_override=http://127.0.0.1:1")
    assert there.uri == "s3://b/lake"
    assert (there.region, there.endpoint) == ("eu-west-1", "http://127.0.0.1:1")
    assert "cret" not in repr(there)


def test_variables_of_aws_are_heeded() -> None:
    """The environment's endpoint and region apply, unless the URI has its own."""
    with environment(**KEYS, AWS_ENDPOINT_URL="http://127.0.0.1:1", AWS_DEFAULT_REGION="eu-west-1"):
        there = locate("s3://b/lake")
        assert (there.endpoint, there.region) == ("http://127.0.0.1:1", "eu-west-1")
        assert locate("s3://b/lake?region=us-west-2").region == "us-west-2"
    with environment(
        **KEYS, AWS_ENDPOINT_URL="http://one", AWS_ENDPOINT_URL_S3="http://two", AWS_REGION="eu-west-3"
    ):
        there = locate("s3://b/lake")
        assert (there.endpoint, there.region) == ("http://two", "eu-west-3")
        assert locate("s3://b/lake?endpoint_override=http://three").endpoint == "http://three"


def test_other_stores() -> None:
    """Google's and Azure's stores are opened by their URIs."""
    with environment(AZURE_STORAGE_ACCOUNT="somebody", AZURE_STORAGE_KEY="c2VjcmV0"):
        assert isinstance(locate("gs://b/lake?anonymous=true").store, GCSStore)
        assert isinstance(locate("az://b/lake").store, AzureStore)


def test_state_directory_is_local_and_its_own(tmp_path: Path) -> None:
    """Each lake has its own state directory, and opening a lake creates none."""
    uris = (
        "s3://b/lake", "s3://b/other", "gs://b/lake?anonymous=true",
        "s3://b/lake?endpoint_override=http://one:9000", "s3://b/lake?endpoint_override=http://one:9001",
        "az://b/lake?account_name=one", "az://b/lake?account_name=two",
    )  # fmt: skip
    with environment(**KEYS, AZURE_STORAGE_KEY="c2VjcmV0", XDG_STATE_HOME=str(tmp_path)):
        places = {locate(uri).state_dir for uri in uris}
        with_password = locate("s3://b/lake?endpoint_override=http://me:secret@two/path/").state_dir
    assert len(places) == len(uris)
    assert with_password == tmp_path / "lakewriter/lakes/s3@two_path/b/lake"
    assert all(place.is_relative_to(tmp_path) for place in places)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("uri", "what"),
    [
        ("s3://", "lake: s3:// names no bucket"),
        ("s3:///lake", "lake: s3:///lake names no bucket"),
        ("s3://b/../lake", "lake: s3://b/../lake: a path in a bucket has no . and .."),
        ("s3://b/lake?regoin=x", "lake: s3://b/lake: there is no parameter regoin"),
        ("s3://b/lake?instance_role=1", "lake: s3://b/lake: instance_role=1 is neither true nor false"),
        ("s3://b/lake?anonymous=yes", "lake: s3://b/lake: anonymous=yes is neither true nor false"),
        ("s3://key@b/lake", "lake: s3://b/lake: an access key and its secret go together"),
        ("az://b/lake", "lake: az://b/lake: names no account"),
        ("hdfs://b/lake", "lake: hdfs:// is no place for a lake"),
        ("http://b/lake", "lake: http:// is no place for a lake"),
        ("://b", "lake: :// is no place for a lake"),
    ],
)
def test_impossible_uris(uri: str, what: str) -> None:
    """An invalid URI is refused before the first request."""
    with environment(), pytest.raises(UsageError) as raised:
        locate(uri)
    assert raised.value.what.startswith(what)
    assert "\n" not in raised.value.what
