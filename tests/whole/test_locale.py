"""Names on disk are UTF-8 in any locale, so all readers and writers see the same lake."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lakewriter.lake.lake import LakeStore
from support.running import PATIENCE_S, plain_rows

pytestmark = pytest.mark.slow

SYMBOL = "币安人生USDT"
SOURCES = Path("/usr/share/i18n/locales")

# Encodings of file names: one that no locale has to be made for, and two that people have.
MADE = {"zh_CN.GBK": ("zh_CN", "GBK"), "en_US.ISO-8859-1": ("en_US", "ISO-8859-1")}


def others() -> dict[str, str]:
    """Return the environment without its locale variables."""
    locale = ("LC_", "LANG", "PYTHONIO", "PYTHONUTF8")
    return {key: value for key, value in os.environ.items() if not key.startswith(locale)}


def plain() -> dict[str, str]:
    """Return an environment with the C locale, whose encoding is ASCII."""
    return others() | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.fixture(scope="module", params=["C", *MADE])
def locale(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The variables of a locale that is not UTF-8."""
    name = request.param
    if name == "C":
        return plain()
    source, encoding = MADE[name]
    if not shutil.which("localedef") or not (SOURCES / source).exists():
        pytest.skip("needs the sources of locales: apt-get install locales")
    made = tmp_path_factory.mktemp("locales")
    subprocess.run(["localedef", "-i", source, "-f", encoding, made / name], check=True)
    return others() | {"LC_ALL": name, "LOCPATH": str(made)}


def under(
    locale: dict[str, str], *arguments: str, module: bool = True
) -> "subprocess.CompletedProcess[bytes]":
    """Run the command line, or Python itself, under a locale."""
    program = [sys.executable, *(["-m", "lakewriter"] if module else [])]
    return subprocess.run(
        [*program, *arguments], env=locale, capture_output=True, timeout=PATIENCE_S, check=False
    )


def test_what_is_written_is_read_by_all(locale: dict[str, str], tmp_path: Path) -> None:
    """Directories are UTF-8, and plain DuckDB and our SQL under the locale see the symbol."""
    rows = tmp_path / "rows.csv"
    rows.write_text("timestamp,open,high,low,close,volume\n1704067200000,100,102,98,101,5\n")
    lake = tmp_path / "lake"
    series = ("--market", "usdt_futures", "--symbol", SYMBOL, "--interval", "1m")
    done = under(locale, "import", "--lake", str(lake), *series, str(rows))
    assert done.returncode == 0, done.stderr
    names = [os.fsencode(path.name) for path in (lake / "market=usdt_futures").iterdir()]
    assert names == [f"symbol={SYMBOL}".encode()]
    assert [row[1] for row in plain_rows(lake)] == [SYMBOL]
    asked = under(locale, "query", "--lake", str(lake), "--format", "ndjson", "SELECT symbol FROM candles")
    assert json.loads(asked.stdout) == {"symbol": SYMBOL}


def test_the_locale_is_not_utf_8(locale: dict[str, str]) -> None:
    """Under this locale Python would encode names differently, so the other tests here can fail."""
    done = under(locale, "-c", "import sys; print(sys.getfilesystemencoding())", module=False)
    assert done.stdout.strip() in (b"ascii", b"gbk", b"iso8859-1")


def test_a_path_and_an_error_keep_their_characters(tmp_path: Path) -> None:
    """A lake's path keeps its bytes, and errors show it as given."""
    done = under(plain(), "coverage", "--lake", f"{tmp_path}/数据")
    assert done.returncode == 1
    assert f"lake: {tmp_path}/数据 does not exist" in done.stderr.decode()


def test_the_library_refuses_what_it_cannot_spell(tmp_path: Path) -> None:
    """`open_lake` refuses an ASCII file system encoding with one line that says how to start the program."""
    lake = LakeStore.create(str(tmp_path / "lake"), "test").root
    code = f"import lakewriter; lakewriter.open_lake({str(lake)!r})"
    refused = under(plain(), "-c", code, module=False)
    assert refused.returncode == 1
    assert b"LakeError: lake: its file names are UTF-8, and Python's are " in refused.stderr
    assert under(plain(), "-X", "utf8", "-c", code, module=False).returncode == 0
