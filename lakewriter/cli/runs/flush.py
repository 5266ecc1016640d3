"""`lakewriter flush`, which flushes the journals of dead recorders into the lake."""

import click
import msgspec

from lakewriter.cli import DEFAULT_LAKE
from lakewriter.errors import LakeError
from lakewriter.lake.journal_replay import Replayed, replay_dead
from lakewriter.lake.open import open_to_change


class FlushSummary(msgspec.Struct):
    """The output of `lakewriter flush --json`."""

    segments: int = 0
    candles: int = 0
    torn: int = 0
    damaged: int = 0
    waiting: int = 0


def run(as_json: bool, lake: str | None) -> None:
    """Flush the journals, and print the summary."""
    store = open_to_change(lake or DEFAULT_LAKE)
    summary = FlushSummary()
    for replayed in replay_dead(store):
        _count(summary, replayed)
        if replayed.damaged:
            click.echo(
                f"lakewriter: {replayed.name}: {replayed.damaged} damaged lines, kept in {replayed.name}.bad",
                err=True,
            )
        if replayed.error:
            click.echo(f"lakewriter: {replayed.name} stays: {replayed.error}", err=True)
    print(msgspec.json.encode(summary).decode() if as_json else _sentence(summary))
    if summary.waiting:
        raise LakeError(
            f"flush: {summary.waiting} candles stay in the journal",
            "repair the files named above, then run it again",
        )


def _count(summary: FlushSummary, replayed: Replayed) -> None:
    summary.segments += 1
    summary.candles += replayed.candles
    summary.torn += replayed.torn
    summary.damaged += replayed.damaged
    summary.waiting += replayed.waiting


def _sentence(summary: FlushSummary) -> str:
    if not summary.segments:
        return "nothing to flush: dead recorders left no candles"
    return f"{summary.candles:,} candles of {summary.segments:,} segments flushed"
