"""Each file that the commands write below a lake's root is in the table of docs/reference/on-disk.md."""

import asyncio
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lakewriter.sandbox import Fault, Sandbox, SandboxOptions, serve
from support.running import REPOSITORY, Child, child, run

pytestmark = pytest.mark.slow

SERIES = "spot:BTCUSDT,ETHUSDT:1m"


def documented() -> list[re.Pattern[str]]:
    """Return a pattern for each file in the table's first column."""
    text = (
        (REPOSITORY / "docs" / "reference" / "on-disk.md").read_text().partition("## Every kind of file")[2]
    )
    cells = re.findall(r"^\| ([^|]*`[^|]*) \|", text.partition("\n## ")[0], re.MULTILINE)
    patterns = []
    for cell in cells:
        spans = re.findall(r"`([^`]+)`", cell)
        if spans == ["locks/00", "locks/ff"]:
            spans = ["locks/<any>"]
        for span in spans:
            escaped = re.escape(span.replace("00000001", "<any>"))
            name = re.sub(r"<\w+>", "[^/]+", escaped).replace("…", "[^/]*").replace(r"\*", "[^/]*")
            inside = r"market=\w+/symbol=[^/]+/interval=\w+/date=[\d-]+/" if ".parquet" in span else ""
            patterns.append(re.compile((inside or "_lakewriter/(.+/)?") + name))
    return patterns


def files_of(lake: Path) -> set[str]:
    """Return the files below a lake's root, by relative path."""
    return {str(path.relative_to(lake)) for path in lake.rglob("*") if path.is_file()}


def test_every_file_of_a_lake_is_described(tmp_path: Path) -> None:
    """A killed recorder, a backfill, a compaction and a removal write only files that the table has."""
    lake = tmp_path / "data"

    def command(*arguments: str) -> None:
        done = run("--lake", str(lake), *arguments)
        assert done.returncode == 0, done.stderr

    def work(sandbox: Sandbox) -> set[str]:
        since = datetime.fromtimestamp(sandbox.now_ms() / 1000 - 2 * 86_400, UTC).date().isoformat()
        record = (
            "--lake",
            str(lake),
            "record",
            "--log-candles",
            SERIES,
            "--exchange",
            sandbox.url,
            "--flush-every",
            "2s",
        )
        with child(tmp_path / "first.log", *record) as recorder:
            recorder.wait_for("flushed [1-9]")
            recorded(recorder)
            recorder.kill()
        left = files_of(lake)
        command("record", SERIES, "--exchange", sandbox.url, "--duration", "2s")
        command("backfill", "spot:BTCUSDT:1m", "--since", since, "--exchange", sandbox.url)
        own = next(lake.rglob("*/symbol=BTCUSDT/**/candles.parquet"))
        shutil.copy(own, own.with_name("other.parquet"))
        left |= files_of(lake)
        command("compact")
        command("forget", "spot:ETHUSDT:1m", "--since", since, "--yes")
        return left | files_of(lake)

    async def main() -> set[str]:
        async with serve(SandboxOptions(speed=60)) as sandbox:
            now_ms = sandbox.now_ms()
            halt = Fault("exchange_halt", symbols=("BTCUSDT",), start_ms=now_ms - 7_200_000, stop_ms=now_ms)
            sandbox.add_fault(halt)
            return await asyncio.to_thread(work, sandbox)

    files = asyncio.run(main())
    patterns = documented()
    assert [file for file in files if not any(pattern.fullmatch(file) for pattern in patterns)] == []
    for kind in ("journal/[^/]+/\\d+.ndjson", "gaps/", "forgotten/", "compacted.json", "weight/", "locks/"):
        assert any(re.search(kind, file) for file in files), kind


def recorded(recorder: Child) -> None:
    """Wait until candles are in the journal again, after a flush."""
    recorder.wait_for(r"flushed (?s:.*)\nrecorded ")
