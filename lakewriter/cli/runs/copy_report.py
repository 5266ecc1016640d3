"""The report of `lakewriter copy`: its sums, its sentences, and its errors."""

import msgspec

from lakewriter.copying.partition_copy import CopyResult
from lakewriter.copying.records import RecordCounts
from lakewriter.status.wording import are, counted
from lakewriter.written_size import size_text


class CopySummary(msgspec.Struct):
    """The output of `lakewriter copy --json`.

    Args:
        partitions: partitions of the source with wanted candles.
        copied, merged, same: partitions that the target lacked, that had other rows, and that
            needed no write; of the last, `unread` did not change since an earlier comparison.
        differing: partitions that differ, with --verify-only.
        failed: partitions with candles that were left behind.
        rows: the wanted candles of the source.
        added, replaced, corrections: candles that the target got; see `Merged`. The candles of
            `copied` partitions count as added.
        disputed: candles that the target has better.
        unflushed: candles of the source's journals among `rows`.
        not_closed: candles of foreign files that are not closed, and were left out.
        bytes_written: bytes of the written files.
        read_back: partitions that were read back after a write and compared.
        gaps, subscriptions, instruments, forgotten: records that the target got.
    """

    partitions: int = 0
    copied: int = 0
    merged: int = 0
    same: int = 0
    unread: int = 0
    differing: int = 0
    failed: int = 0
    rows: int = 0
    added: int = 0
    replaced: int = 0
    corrections: int = 0
    disputed: int = 0
    unflushed: int = 0
    not_closed: int = 0
    bytes_written: int = 0
    read_back: int = 0
    gaps: int = 0
    subscriptions: int = 0
    instruments: int = 0
    forgotten: int = 0
    proven: bool = False
    dry_run: bool = False
    verify_only: bool = False
    seconds: float = 0.0


class CopyReport:
    """The results of a copy, summed up.

    Args:
        source, target: the names of the lakes.
        dry_run, verify_only: whether nothing is written.

    Attributes:
        errors: why candles were left behind, one line each.
        hint: a remedy for the first error.
    """

    def __init__(self, source: str, target: str, *, dry_run: bool, verify_only: bool) -> None:
        self._source = source
        self._target = target
        self._sum = CopySummary(dry_run=dry_run, verify_only=verify_only)
        self.errors: list[str] = []
        self.hint = ""

    def add(self, result: CopyResult) -> None:
        """Count the result of one partition."""
        sums = self._sum
        self.hint = self.hint or result.hint
        self.errors += result.errors
        sums.failed += bool(result.errors)
        sums.not_closed += result.not_closed
        if result.outcome in ("empty", "failed"):
            return
        sums.partitions += 1
        sums.rows += result.rows
        sums.unflushed += result.unflushed
        sums.disputed += result.disputed
        if result.outcome in ("same", "remembered"):
            sums.same += 1
            sums.unread += result.outcome == "remembered"
            return
        if sums.verify_only:
            sums.differing += 1
        elif result.outcome == "copied":
            sums.copied += 1
        else:
            sums.merged += 1
        sums.added += result.added
        sums.replaced += result.replaced
        sums.corrections += result.corrections
        sums.bytes_written += result.bytes_written
        sums.read_back += not sums.dry_run and not sums.verify_only

    def summary(self, records: RecordCounts, seconds: float) -> CopySummary:
        """Return the sums.

        Args:
            records: the copied records.
            seconds: the duration.
        """
        proven = not (self.errors or self._sum.differing or self._sum.dry_run)
        return msgspec.structs.replace(self._sum, **records._asdict(), proven=proven, seconds=seconds)

    def text(self, sums: CopySummary) -> str:
        """Return the report for people, in a few lines."""
        lines = [self._partitions(sums), *self._details(sums), self._records(sums), self._proof(sums)]
        return "\n".join(filter(None, lines))

    def failure(self, sums: CopySummary) -> str:
        """Return the closing line of a copy with errors."""
        return f"copy: candles of {counted(sums.failed, 'partition')} were left behind"

    def _partitions(self, sums: CopySummary) -> str:
        if not sums.partitions:
            return f"nothing to copy: {self._source} has no such candles"
        what = f"{counted(sums.partitions, 'partition')}, {counted(sums.rows, 'candle')}: "
        seconds = f"in {sums.seconds:.1f} s"
        if sums.verify_only:
            return f"{what}{sums.same:,} the same, {sums.differing:,} not, compared {seconds}"
        if sums.dry_run:
            return (
                f"{what}{sums.copied:,} would be copied, {sums.merged:,} merged, {sums.same:,} are the same"
            )
        return (
            f"{what}{sums.copied:,} copied, {sums.merged:,} merged, {sums.same:,} the same, "
            f"{size_text(sums.bytes_written)} written {seconds}"
        )

    def _details(self, sums: CopySummary) -> list[str]:
        lines = []
        if sums.differing or sums.merged:
            verb = "missing" if sums.verify_only else "to add" if sums.dry_run else "added"
            other = "worse" if sums.verify_only else "to replace" if sums.dry_run else "replaced"
            corrected = f", {sums.corrections:,} of them corrected" if sums.corrections else ""
            lines.append(f"{counted(sums.added, 'candle')} {verb}, {sums.replaced:,} {other}{corrected}")
        if sums.disputed:
            lines.append(f"{counted(sums.disputed, 'candle')} of {self._target} {are(sums.disputed)} better")
        if sums.unflushed:
            lines.append(f"{sums.unflushed:,} of them from journals of {self._source}")
        if sums.not_closed:
            lines.append(f"left out: {counted(sums.not_closed, 'row')} of candles that were not closed")
        return lines

    def _records(self, sums: CopySummary) -> str:
        numbers = (
            (sums.gaps, "gap", None),
            (sums.subscriptions, "subscription", None),
            (sums.instruments, "period of an instrument", "periods of instruments"),
            (sums.forgotten, "forgotten range", None),
        )
        found = ", ".join(counted(*each) for each in numbers if each[0])
        if not found:
            return ""
        if sums.verify_only:
            return f"not in {self._target}: {found}"
        return f"also {'to copy' if sums.dry_run else 'copied'}: {found}"

    def _proof(self, sums: CopySummary) -> str:
        if not sums.proven or not sums.partitions:
            return ""
        parts = []
        if sums.read_back:
            parts.append(f"{sums.read_back:,} read back and compared")
        if sums.same - sums.unread:
            parts.append(f"{sums.same - sums.unread:,} compared")
        if sums.unread:
            parts.append(f"{sums.unread:,} unchanged since an earlier comparison")
        written = sums.copied or sums.merged or sums.verify_only
        nothing = "" if written else "nothing was written; "
        return (
            f"proven: {nothing}each of these candles is in {self._target}, or a better one "
            f"(partitions: {', '.join(parts)})"
        )
