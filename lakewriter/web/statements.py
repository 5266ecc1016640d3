"""SQL over HTTP: one statement that reads, on the guarded engine, with limits.

    POST /sql              {"sql": …, "format": "json" | "csv"}
    GET  /sql/saved.json   the saved queries

A statement has a timeout and a memory limit, and an engine of its own. At most
`RUNNING_MAX` run at once. A client that goes away interrupts its statement. An answer is
complete on this side before its first byte is sent, so a slow client holds a file but no
statement.
"""

import asyncio
import contextlib
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

import msgspec
import pyarrow as pa
from aiohttp import web

from lakewriter.errors import LakewriterError, UsageError
from lakewriter.lake.lake import LakeStore
from lakewriter.query.errors import QueryError
from lakewriter.query.execution import RowStream
from lakewriter.query.limits import QueryLimits
from lakewriter.query.output.text import DisplayLimits
from lakewriter.query.output.writers import json_values, write_answer
from lakewriter.query.saved import resolved, saved_queries
from lakewriter.query.session import stream
from lakewriter.web.page.readers import Answer, BusyError
from lakewriter.web.page.routes import checked, json_response

# Statements that run at once, and that wait for their turn. Further ones are refused.
RUNNING_MAX = 2
WAITING_MAX = 8

# Limits of an answer. Memory holds a JSON answer, and a temporary file a CSV.
JSON_ROWS_MAX = 5_000
JSON_BYTES_MAX = 16 * 1024 * 1024
CSV_ROWS_MAX = 1_000_000
CSV_BYTES_MAX = 256 * 1024 * 1024

# Answers that are kept in files for their clients. Each takes up to `CSV_BYTES_MAX` of the disk.
DOWNLOADS_MAX = 8

# A client that takes no chunk of its file for this long is left.
SEND_S = 60.0

# The defaults of the command line.
TIMEOUT_S = 30.0
MEMORY = "1GB"

# JavaScript keeps whole numbers up to this one exactly. Larger ones are sent as text.
_EXACT_MAX = 2**53

# How often a running statement looks for its client.
_LOOK_EVERY_S = 0.1

_CHUNK_BYTES = 256 * 1024


class SqlRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body of POST /sql.

    Args:
        sql: a statement, or the name of a saved query.
        format: the form of the answer.
    """

    sql: str
    format: Literal["json", "csv"] = "json"


class StatementLimits(NamedTuple):
    """The limits of each statement, as in `QueryLimits`.

    Args:
        send_s: how long a client may take no chunk of its file.
    """

    timeout_s: float = TIMEOUT_S
    memory: str = MEMORY
    send_s: float = SEND_S


class Statements:
    """The statements of all clients.

    Args:
        store: the lake.
        queries: the directory of the user's saved queries; None has the shipped ones.
    """

    def __init__(self, store: LakeStore, limits: StatementLimits, queries: Path | None) -> None:
        self._store = store
        self._limits = limits
        self._queries = queries
        self._turn = asyncio.Semaphore(RUNNING_MAX)
        self._waiting = 0
        self._downloads = 0
        self._threads = ThreadPoolExecutor(RUNNING_MAX, thread_name_prefix="sql")

    def close(self) -> None:
        """End the threads, without a wait for a statement that ignores interrupts."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of the SQL box."""
        return [
            web.post("/sql", checked(self._answer_request)),
            web.get("/sql/saved.json", checked(self._saved)),
        ]

    async def _saved(self, _request: web.Request) -> web.StreamResponse:
        found = [{"name": each.name, "title": each.title} for each in saved_queries(self._queries)]
        return json_response(Answer(200, msgspec.json.encode({"saved": found})))

    async def _answer_request(self, request: web.Request) -> web.StreamResponse:
        check_same_origin(request)
        if request.content_type != "application/json":
            raise UsageError("sql: the body is not JSON", 'Content-Type: application/json, {"sql": "…"}')
        try:
            asked = msgspec.json.decode(await request.read(), type=SqlRequest)
        except msgspec.DecodeError as error:
            raise UsageError(f"sql: the body: {error}", '{"sql": "SELECT 1", "format": "json"}') from None
        limits = QueryLimits(timeout_s=self._limits.timeout_s, memory=self._limits.memory)
        if asked.format == "csv":
            with self._download():
                return await self._csv(request, asked.sql, limits)
        async with self._its_turn(request):
            return json_response(Answer(200, await self._run(request, limits, self._json, asked.sql)))

    @contextlib.asynccontextmanager
    async def _its_turn(self, request: web.Request) -> AsyncIterator[None]:
        if self._waiting >= WAITING_MAX:
            raise BusyError("sql: too many statements wait", "try again in a moment")
        self._waiting += 1
        try:
            turn = asyncio.ensure_future(self._turn.acquire())
            while not turn.done():
                await asyncio.wait([turn], timeout=_LOOK_EVERY_S)
                if _is_gone(request) and not turn.done():
                    turn.cancel()
                    raise UsageError("sql: the client went away")
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._turn.release()

    @contextlib.contextmanager
    def _download(self) -> Iterator[None]:
        if self._downloads >= DOWNLOADS_MAX:
            raise BusyError("sql: too many downloads at once", "try again when one has ended")
        self._downloads += 1
        try:
            yield
        finally:
            self._downloads -= 1

    async def _run(self, request: web.Request, limits: QueryLimits, work: Any, sql: str) -> Any:
        """Run a statement in a thread, and interrupt it if its client goes away.

        Raises:
            UsageError: if the statement is wrong or fails; it is the client's.
        """
        loop = asyncio.get_running_loop()
        running = asyncio.ensure_future(loop.run_in_executor(self._threads, work, sql, limits))
        try:
            while not running.done():
                await asyncio.wait([running], timeout=_LOOK_EVERY_S)
                if _is_gone(request):
                    limits.cancel()
        except asyncio.CancelledError:
            limits.cancel()
            raise
        try:
            return running.result()
        except QueryError as error:
            raise UsageError(error.what, error.hint) from None

    def _stream(self, sql: str, limits: QueryLimits) -> "contextlib.AbstractContextManager[RowStream]":
        text, params = resolved(sql, None, self._queries)
        return stream(self._store, text, params, limits)

    def _json(self, sql: str, limits: QueryLimits) -> bytes:
        """Return {"columns": [[name, type], …], "rows", "cut", "seconds", "note"}."""
        with self._stream(sql, limits) as answer:
            rows: list[bytes] = []
            size, cut = 0, False
            for batch in answer.batches:
                cut = cut or batch.num_rows > JSON_ROWS_MAX - len(rows)
                kept = batch.slice(0, JSON_ROWS_MAX - len(rows))
                if kept.nbytes > JSON_BYTES_MAX:
                    raise _too_large(JSON_BYTES_MAX)
                for row in zip(*(json_values(column) for column in kept.columns), strict=True):
                    rows.append(_encode_row([_exact(value) for value in row]))
                    size += len(rows[-1])
                if size > JSON_BYTES_MAX:
                    raise _too_large(JSON_BYTES_MAX)
                if cut:
                    break
            head = {
                "columns": [[field.name, str(field.type)] for field in answer.schema],
                "cut": cut,
                "seconds": round(limits.seconds(), 3),
                "note": "" if cut else answer.explain_empty(),
            }
        return b'{"rows":[' + b",".join(rows) + b"]," + msgspec.json.encode(head)[1:]

    async def _csv(self, request: web.Request, sql: str, limits: QueryLimits) -> web.StreamResponse:
        with tempfile.TemporaryFile() as file:
            out = _Limited(file, CSV_BYTES_MAX)

            def work(statement: str, _limits: QueryLimits) -> bool:
                with self._stream(statement, limits) as answer:
                    rows = _Rows(answer, CSV_ROWS_MAX)
                    write_answer("csv", rows.stream(), out, DisplayLimits())  # type: ignore[arg-type]
                    return rows.cut

            # A thread that outlives this request must not write into a closed file.
            try:
                async with self._its_turn(request):
                    cut = await self._run(request, limits, work, sql)
            finally:
                out.close()
            headers = {
                "Content-Disposition": 'attachment; filename="answer.csv"',
                "Content-Length": str(out.size),
                "Cache-Control": "no-store",
            }
            if cut:
                headers["X-Lakewriter-Cut"] = str(CSV_ROWS_MAX)
            response = web.StreamResponse(headers=headers)
            response.content_type, response.charset = "text/csv", "utf-8"
            await response.prepare(request)
            file.seek(0)
            try:
                while chunk := await asyncio.to_thread(file.read, _CHUNK_BYTES):
                    async with asyncio.timeout(self._limits.send_s):
                        await response.write(chunk)
                async with asyncio.timeout(self._limits.send_s):
                    await response.write_eof()
            except TimeoutError:
                if request.transport is not None:
                    request.transport.abort()
            return response


class _Limited:
    """A file that takes a limited number of bytes, and none after it was closed."""

    def __init__(self, file: BinaryIO, bytes_max: int) -> None:
        self._file = file
        self._bytes_max = bytes_max
        self._lock = threading.Lock()
        self._closed = False
        self.size = 0

    def write(self, data: bytes) -> int:
        with self._lock:
            if self._closed:
                raise QueryError("sql: cancelled")
            self.size += len(data)
            if self.size > self._bytes_max:
                raise _too_large(self._bytes_max)
            return self._file.write(data)

    def close(self) -> None:
        with self._lock:
            self._closed = True


class _Rows:
    """The first rows of an answer.

    Attributes:
        cut: whether the answer has further rows. It is known after the last row.
    """

    def __init__(self, answer: RowStream, rows_max: int) -> None:
        self._answer = answer
        self._left = rows_max
        self.cut = False

    def stream(self) -> RowStream:
        """Return the rows as another answer."""
        return RowStream(self._answer.schema, self._batches())

    def _batches(self) -> Iterator[pa.RecordBatch]:
        for batch in self._answer.batches:
            if batch.num_rows > self._left:
                self.cut = True
                yield batch.slice(0, self._left)
                return
            self._left -= batch.num_rows
            yield batch


def check_same_origin(request: web.Request) -> None:
    """Check that a page of this server sent a request, or a program that is no browser.

    Raises:
        UsageError: if another site sent it.
    """
    origin = request.headers.get("Origin")
    site = request.headers.get("Sec-Fetch-Site", "same-origin")
    host = origin.partition("://")[2] if origin is not None else request.host
    if host != request.host or site not in ("same-origin", "none"):
        raise UsageError(
            "page: the request comes from another site",
            "open this server's own page; a proxy must pass on the header Host",
        )


def _is_gone(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()


def _too_large(bytes_max: int) -> LakewriterError:
    return QueryError(
        f"sql: the answer is larger than {bytes_max >> 20} MiB",
        "fewer rows or columns; lakewriter query … -o FILE saves any answer",
    )


def _exact(value: Any) -> Any:
    """Return a number that JavaScript would round as text."""
    if isinstance(value, int | Decimal) and not -_EXACT_MAX <= value <= _EXACT_MAX:
        return format(value, "f") if isinstance(value, Decimal) else str(value)
    if isinstance(value, float) and value - value != 0:  # NaN and the infinities
        return str(value)
    return value


_encode_row = msgspec.json.Encoder(decimal_format="number", enc_hook=str).encode
