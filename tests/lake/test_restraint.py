"""Bans and connection attempts of this address outlive the process."""

import asyncio
from functools import partial
from pathlib import Path

import aiohttp

from lakewriter.binance.market_clients import MarketClients
from lakewriter.clock import Clock
from lakewriter.lake.exchange_limits import RATE_LIMITS_FILE, WeightFile, read_rate_limits, write_rate_limits
from lakewriter.market import MARKETS
from lakewriter.rate_limit_state import RateLimitState


class ToldClock(Clock):
    """Clocks whose times the test sets."""

    now_s = 0.0

    def wall_us(self) -> int:
        return 1_800_000_000_000_000 + int(self.now_s * 1_000_000)

    def monotonic_s(self) -> float:
        return self.now_s


def clients_of(session: aiohttp.ClientSession, clock: Clock, lake: Path) -> MarketClients:
    return MarketClients(
        MARKETS.__getitem__, session, clock, read_rate_limits(lake), shared_files=partial(WeightFile, lake)
    )


def test_the_next_process_waits_out_a_ban_and_counts_attempts(tmp_path: Path) -> None:
    """A host's ban and connection attempts are kept for the next process, and expire."""

    async def main() -> None:
        (tmp_path / "_lakewriter").mkdir()
        clock = ToldClock()
        async with aiohttp.ClientSession() as session:
            first = clients_of(session, clock, tmp_path)
            client = first["coin_futures"]
            for _ in range(3):
                await client.gate.acquire()
                clock.now_s += 10
            client.gate.block(100, "told to")
            write_rate_limits(tmp_path, first.rate_limit_state())
            clock.now_s += 50
            second = clients_of(session, clock, tmp_path)
            kept = second["coin_futures"].gate.export_state()
            assert kept.held_s == 50
            assert [round(age_s) for age_s in kept.ages_s] == [80, 70, 60]
            assert second["usdt_futures"].gate.export_state().ages_s == []

    asyncio.run(main())


def test_a_ban_of_rest_holds_the_next_process_and_the_one_beside(tmp_path: Path) -> None:
    """A REST ban holds other processes at once; both futures markets share it, spot does not."""

    async def main() -> None:
        clock = ToldClock()
        async with aiohttp.ClientSession() as session:
            first, beside = clients_of(session, clock, tmp_path), clients_of(session, clock, tmp_path)
            assert await beside["usdt_futures"].pool.blocked_s() == 0
            await first["coin_futures"].pool.note_answer(0.0, 2400, 300)
            assert await beside["usdt_futures"].pool.blocked_s() == 300
            assert first.rate_limit_state().held_until_s == {}, "one place for one fact"
            clock.now_s += 50
            second = clients_of(session, clock, tmp_path)
            assert await second["usdt_futures"].pool.blocked_s() == 250
            assert await second["spot"].pool.blocked_s() == 0

    asyncio.run(main())


def test_what_cannot_be_read_is_nothing(tmp_path: Path) -> None:
    """An absent or damaged file gives an empty state."""
    assert read_rate_limits(tmp_path) == RateLimitState()
    (tmp_path / "_lakewriter").mkdir()
    (tmp_path / RATE_LIMITS_FILE).write_text("{")
    assert read_rate_limits(tmp_path) == RateLimitState()
