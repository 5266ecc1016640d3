"""lakewriter import: bring files of candles into the lake."""

import time
from pathlib import Path
from typing import get_args

import click
import msgspec

from lakewriter import __version__
from lakewriter.candle import Source
from lakewriter.cli import DEFAULT_LAKE, lake_option
from lakewriter.cli.progress_bar import bar
from lakewriter.cli.terminal import print_errors, report
from lakewriter.errors import LakewriterError, UsageError
from lakewriter.importer.file_names import Told
from lakewriter.importer.import_files import Imported, check_files, files_in, import_files
from lakewriter.interval import parse_interval
from lakewriter.lake.lake import LakeStore
from lakewriter.market import MARKETS, parse_market, parse_symbol


class Summary(msgspec.Struct):
    """What `--json` prints."""

    files: int = 0
    failed: int = 0
    rows: int = 0
    added: int = 0
    replaced: int = 0
    corrections: int = 0
    seconds: float = 0.0
    dry_run: bool = False


@click.command(name="import", short_help="Bring files of candles into the lake.")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
@click.option("--market", metavar="MARKET", help=f"Of all the files: {', '.join(MARKETS)}.")
@click.option("--symbol", metavar="SYMBOL", help="Of all the files.")
@click.option("--interval", metavar="INTERVAL", help="Of all the files.")
@click.option(
    "--source",
    type=click.Choice(get_args(Source)),
    help="Who said so.  [default: archive for the archive's layout, else rest]",
)
@click.option("--dry-run", is_flag=True, help="Read and check the files; change nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@lake_option
def command(
    paths: tuple[Path, ...],
    market: str | None,
    symbol: str | None,
    interval: str | None,
    source: Source | None,
    dry_run: bool,
    as_json: bool,
    lake: str | None,
) -> None:
    """Bring files of candles into the lake: zips and CSVs of the public archive,
    the .pqt files of older recorders, any Parquet or CSV whose columns have
    names that tell, and directories of these.

    Market, symbol and interval are told by a file's name and place, or by the
    options. A file with a row that cannot be a candle is refused whole; the
    others go on. Importing a file again changes nothing, and what is better
    known already stays: rows of the archive, then those of more trades.

    \b
    lakewriter import usdt_futures_BTCUSDT_1m.pqt
    lakewriter import --market spot BTCUSDT-1m-2024-06-30.zip BTCUSDT-1m-2024-05.zip
    lakewriter import archive/data/ --dry-run
    """
    told = Told(
        market=parse_market(market).name if market else None,
        symbol=parse_symbol(symbol) if symbol else None,
        interval=parse_interval(interval).name if interval else None,
        source=source,
    )
    files = list(files_in(paths))
    if not files:
        raise UsageError(
            f"import: no file of candles in {paths[0]}", "lakewriter import --help tells which are"
        )
    started_s = time.monotonic()
    if dry_run:
        working = check_files(files, told)
    else:
        working = import_files(LakeStore.create(lake or DEFAULT_LAKE, __version__), files, told)
    summary, failures = Summary(dry_run=dry_run), []
    with bar("importing") as progress:
        for imported in progress.track(working, total=len(files)):
            _count(summary, imported)
            if imported.error:
                failures.append(imported)
    summary.seconds = round(time.monotonic() - started_s, 3)
    with report():
        print(msgspec.json.encode(summary).decode() if as_json else _sentence(summary))
    _report_failures(failures)


def _count(summary: Summary, imported: Imported) -> None:
    summary.files += 1
    summary.failed += bool(imported.error)
    summary.rows += imported.rows
    summary.added += imported.added
    summary.replaced += imported.replaced
    summary.corrections += imported.corrections


def _sentence(summary: Summary) -> str:
    files = summary.files - summary.failed
    what = f"{files:,} {'file' if files == 1 else 'files'}, {summary.rows:,} candles"
    if summary.dry_run:
        return f"{what} can be imported, checked in {summary.seconds:.1f} s"
    return (
        f"{what}: {summary.added:,} added, {summary.replaced:,} replaced, "
        f"{summary.corrections:,} of them corrected in {summary.seconds:.1f} s"
    )


def _report_failures(failures: list[Imported]) -> None:
    if not failures:
        return
    print_errors([imported.error for imported in failures])
    many = len(failures) > 1
    left = f"{len(failures)} files were not imported" if many else "1 file was not imported"
    raise LakewriterError(f"import: {left}", failures[0].hint)
