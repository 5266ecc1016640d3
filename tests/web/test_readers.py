"""The readers of the page: many visitors cost as much as one, and none of them can stop the others."""

import asyncio
import json
import os
import resource
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import get_args

import pytest

from lakewriter.web.page import lake_reads
from lakewriter.web.page.questions import CandleWindow, ReadName, parse_series
from lakewriter.web.page.readers import KEPT_TIMES, WAITING_MAX, BusyError, LakeReaders, _answer
from support.lakes import make_lake, rest_candle
from support.running import PATIENCE_S

SERIES = parse_series("spot", "BTCUSDT", "1m")


def ask(root: Path, scenario: Callable[[LakeReaders], Awaitable[None]], *, apart: bool = False) -> None:
    """Run a scenario with the readers of a lake of two candles."""
    make_lake(root, [rest_candle(0), rest_candle(1)])

    async def main() -> None:
        readers = LakeReaders(str(root), apart=apart)
        try:
            async with asyncio.timeout(PATIENCE_S):
                await scenario(readers)
        finally:
            await readers.close()

    asyncio.run(main())


def test_every_name_is_a_read() -> None:
    """The names of questions are functions."""
    assert all(callable(getattr(lake_reads, name)) for name in get_args(ReadName))


def test_equal_questions_share_one_read(tmp_path: Path) -> None:
    """Of a hundred visitors with one question, one reads; all get the same answer."""

    async def scenario(readers: LakeReaders) -> None:
        answers = await asyncio.gather(*(readers.ask("read_series") for _ in range(100)))
        assert {id(answer) for answer in answers} == {id(answers[0])}
        assert json.loads(answers[0].body)["series"] == [list(SERIES)]

    ask(tmp_path, scenario)


def test_different_questions_are_limited(tmp_path: Path) -> None:
    """Above the limit of different questions the next one is refused, and the others are answered."""

    async def scenario(readers: LakeReaders) -> None:
        windows = [CandleWindow(places) for places in range(1, WAITING_MAX + 2)]
        asked = [asyncio.ensure_future(readers.ask("read_candles", SERIES, each)) for each in windows]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert isinstance(answers[-1], BusyError)
        assert all(not isinstance(answer, BaseException) and answer.status == 200 for answer in answers[:-1])
        assert (await readers.ask("read_candles", SERIES, windows[-1])).status == 200

    ask(tmp_path, scenario)


def test_a_visitor_that_leaves_ends_no_read_of_others(tmp_path: Path) -> None:
    """A cancelled question is answered for those that still wait."""

    async def scenario(readers: LakeReaders) -> None:
        first = asyncio.ensure_future(readers.ask("read_series"))
        second = asyncio.ensure_future(readers.ask("read_series"))
        await asyncio.sleep(0)
        first.cancel()
        assert (await second).status == 200

    ask(tmp_path, scenario)


def test_the_cost_decides_how_long_an_answer_is_kept(tmp_path: Path) -> None:
    """An expensive answer is kept for longer, by the processor's time of its own read."""
    make_lake(tmp_path, [rest_candle(number, symbol=f"S{number}USDT") for number in range(60)])
    cheap = _answer("read_candles", str(tmp_path), (SERIES, CandleWindow()))
    dear = _answer("read_gaps", str(tmp_path), (30, rest_candle(100).end_ms))
    assert cheap.answer.status == dear.answer.status == 200
    assert dear.kept_s > KEPT_TIMES * 0.01


def test_errors_are_answers(tmp_path: Path) -> None:
    """A lake that is gone is an answer of one line."""
    done = _answer("read_candles", str(tmp_path / "none"), (SERIES, CandleWindow()))
    assert done.answer.status == 500
    assert json.loads(done.answer.body)["error"].endswith("none does not exist")


def test_a_question_without_a_process_is_asked_again(tmp_path: Path) -> None:
    """While no file can be opened, a question has an answer of one line. Later it is read."""

    async def scenario(readers: LakeReaders) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            refused = await readers.ask("read_series")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert refused.status == 503
        assert json.loads(refused.body)["error"] == "page: no read can start: Too many open files"
        while (answer := await readers.ask("read_series")).status == 503:
            await asyncio.sleep(0.1)
        assert json.loads(answer.body)["series"] == [list(SERIES)]

    ask(tmp_path, scenario, apart=True)


@pytest.mark.slow
def test_a_killed_reading_process_is_replaced(tmp_path: Path) -> None:
    """If a child process is killed, its questions fail with one line, and the next ones are answered."""

    async def scenario(readers: LakeReaders) -> None:
        assert (await readers.ask("read_series")).status == 200
        assert readers._executor is not None
        processes = list(readers._executor._processes)  # type: ignore[attr-defined]
        for pid in processes:
            os.kill(pid, signal.SIGKILL)
        answer = await readers.ask("read_candles", SERIES, CandleWindow(1))
        tries = 0
        while answer.status != 200:
            assert json.loads(answer.body)["error"] == "page: the reading process was killed" and tries < 3
            tries += 1
            answer = await readers.ask("read_candles", SERIES, CandleWindow(2 + tries))
        assert tries > 0 or answer.status == 200

    ask(tmp_path, scenario, apart=True)
