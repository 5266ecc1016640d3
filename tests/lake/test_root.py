"""The directories that are lakes, and the hint of the error for those that are not."""

from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner

from lakewriter import open_lake
from lakewriter.cli import cli
from lakewriter.errors import EmptyAnswerWarning, LakeError, UsageError
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.root import STATE_DIRECTORY
from support.lakes import make_lake, rest_candle

READING = [
    ["query", "SELECT 1"],
    ["coverage"],
    ["gaps"],
    ["verify"],
    ["compact"],
    ["flush"],
    ["views", "--for", "pandas"],
    ["shell"],
]


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """A lake of one candle, beside an empty directory."""
    root = tmp_path / "here/data"
    make_lake(root, [rest_candle(0)])
    (tmp_path / "empty").mkdir()
    return root


def refused(root: Path | str) -> tuple[str, str]:
    """Return a refusal's line and hint."""
    with pytest.raises(LakeError) as caught:
        LakeStore.open(str(root))
    return caught.value.what, caught.value.hint


@pytest.mark.parametrize("arguments", READING, ids=lambda arguments: arguments[0])
def test_no_command_takes_a_directory_for_an_empty_lake(arguments: list[str], lake: Path) -> None:
    """Each reading command refuses any other directory, and leaves no file in it."""
    empty = lake.parent.parent / "empty"
    result = CliRunner().invoke(cli, ["--lake", str(empty), *arguments])
    assert isinstance(result.exception, LakeError), result
    assert result.exception.what.startswith(f"lake: {empty} is no lake: it has no _lakewriter/")
    assert not list(empty.iterdir())


@pytest.mark.parametrize(
    ("uri", "meant"),
    [("s3:/bucket/lake", "s3://bucket/lake"), ("gs:bucket", "gs://bucket"), ("AZ:/c/lake", "AZ://c/lake")],
)
def test_a_store_with_a_slash_too_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str, meant: str
) -> None:
    """A store's URI with a mistake names no directory, and none is created."""
    monkeypatch.chdir(tmp_path)
    for opened in (LakeStore.open, LakeStore.open_or_empty, partial(LakeStore.create, created_by="test")):
        with pytest.raises(UsageError) as caught:
            opened(uri)
        assert caught.value.what == f"lake: {uri} is neither a directory nor a store"
        assert caught.value.hint == meant
    assert list(tmp_path.iterdir()) == []


def test_the_lake_above_is_meant(lake: Path) -> None:
    """For a directory inside a lake, at any depth, the hint names the lake's root."""
    inside = [path for path in lake.rglob("*") if path.is_dir()]
    assert len(inside) > 4
    for path in inside:
        assert refused(path) == (f"lake: {path} is no lake, but lies in one", f"--lake {lake}")


def test_the_lake_above_an_absent_directory_is_meant(lake: Path) -> None:
    """Inside a lake the default `data` is absent, and the hint names the lake's root."""
    assert refused(lake / "data") == (f"lake: {lake}/data does not exist", f"--lake {lake}")
    assert refused(lake.parent / "x")[1] == "lakewriter record spot:BTCUSDT:1m makes one"


def test_a_path_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    """A path that is not UTF-8 is refused, because no engine could read the lake."""
    path = f"{tmp_path}/x\udcff"
    for use in (LakeStore.open, LakeStore.open_or_empty, lambda uri: LakeStore.create(uri, "test")):
        with pytest.raises(LakeError, match=r"is not UTF-8(\n|$)"):
            use(path)
    assert not list(tmp_path.iterdir())


def test_a_path_that_cannot_be_followed_is_one_line(tmp_path: Path) -> None:
    """A circular link or a too long name is an error of one line."""
    ring = tmp_path / "ring"
    ring.mkdir()
    (ring / STATE_DIRECTORY).symlink_to(STATE_DIRECTORY)
    assert "is no lake" in refused(ring)[0]
    long = tmp_path / ("x" * 300)
    assert refused(long)[0] == f"lake: '{long}': File name too long"


def test_the_lake_below_is_meant(lake: Path) -> None:
    """The hint names the only lake inside a directory, and none of several."""
    assert refused(lake.parent) == (f"lake: {lake.parent} is no lake, but contains one", f"--lake {lake}")
    LakeStore.create(str(lake.parent / "other"), "test")
    assert refused(lake.parent)[0].startswith(f"lake: {lake.parent} is no lake: it has no _lakewriter/")


def test_directories_of_others_are_no_lakes(tmp_path: Path) -> None:
    """Partitions of other tools, or a system directory, are not a lake."""
    (tmp_path / "market=NYSE/symbol=X").mkdir(parents=True)
    (tmp_path / "year=2024").mkdir()
    for root in (tmp_path, "/usr/share", "/"):
        assert "is no lake" in refused(root)[0]


def test_a_lake_without_our_directory_is_one(lake: Path, tmp_path: Path) -> None:
    """A copy without `_lakewriter` is read, and so is a new lake."""
    copied = tmp_path / "copied"
    copied.mkdir()
    (lake / "market=spot").rename(copied / "market=spot")
    assert open_lake(copied).query("SELECT count(*) FROM candles").rows() == [(1,)]
    new = tmp_path / "new"
    LakeStore.create(str(new), "test")
    with pytest.warns(EmptyAnswerWarning, match="the lake is empty"):
        assert open_lake(new).query("SELECT count(*) FROM candles").rows() == [(0,)]


def test_no_lake_is_made_inside_of_another(lake: Path) -> None:
    """A root among partitions or in `_lakewriter` is refused; one beside them is not."""
    for path in (lake / "market=spot", lake / "market=spot/symbol=NEW", lake / STATE_DIRECTORY / "x"):
        before = sorted(lake.rglob("*"))
        for make in (lambda uri: LakeStore.create(uri, "test"), LakeStore.open_or_empty):
            with pytest.raises(LakeError, match=r"lies inside of a lake(\n|$)") as caught:
                make(str(path))
            assert caught.value.hint == f"--lake {lake}"
        assert sorted(lake.rglob("*")) == before
    LakeStore.create(str(lake / "archive"), "test")
    LakeStore.create(str(lake), "test")


def test_a_directory_to_be_made_a_lake_is_looked_at(tmp_path: Path) -> None:
    """A backfill can be planned for a lake that does not exist, in an empty or absent directory."""
    assert LakeStore.open_or_empty(str(tmp_path)).series() == []
    assert LakeStore.open_or_empty(str(tmp_path / "none")).series() == []
