"""What the exchange asked of this address outlives the process."""

import asyncio
from pathlib import Path

import aiohttp

from lakewriter.binance.doors import Doors
from lakewriter.clock import Clock
from lakewriter.lake.restraint import RESTRAINT_FILE, read_restraint, write_restraint
from lakewriter.market import MARKETS
from lakewriter.restraint import Restraint


class ToldClock(Clock):
    """Clocks that show what they are told."""

    now_s = 0.0

    def wall_us(self) -> int:
        return 1_800_000_000_000_000 + int(self.now_s * 1_000_000)

    def monotonic_s(self) -> float:
        return self.now_s


def doors(session: aiohttp.ClientSession, clock: Clock, restraint: Restraint | None = None) -> Doors:
    return Doors(MARKETS.__getitem__, session, clock, restraint)


def test_the_next_process_waits_out_a_ban_and_counts_attempts(tmp_path: Path) -> None:
    """A ban of the REST pool, a hold of a host and the attempts at it are kept, and run out."""

    async def main() -> None:
        (tmp_path / "_lakewriter").mkdir()
        clock = ToldClock()
        async with aiohttp.ClientSession() as session:
            first = doors(session, clock)
            door = first["coin_futures"]
            for _ in range(3):
                await door.gate.enter()
                clock.now_s += 10
            door.gate.hold(100, "told to")
            door.rest._budget.hold(300, clock.now_s)
            write_restraint(tmp_path, first.restraint())
            clock.now_s += 50
            second = doors(session, clock, read_restraint(tmp_path))
            # Both futures markets share the pool; the hosts are apart.
            assert second["usdt_futures"].rest._budget.held_s(clock.now_s) == 250
            assert second["spot"].rest._budget.held_s(clock.now_s) == 0
            kept = second["coin_futures"].gate.kept()
            assert kept.held_s == 50
            assert [round(age_s) for age_s in kept.ages_s] == [80, 70, 60]
            assert second["usdt_futures"].gate.kept().ages_s == []

    asyncio.run(main())


def test_what_cannot_be_read_is_nothing(tmp_path: Path) -> None:
    """An absent or damaged file restrains nobody."""
    assert read_restraint(tmp_path) == Restraint()
    (tmp_path / "_lakewriter").mkdir()
    (tmp_path / RESTRAINT_FILE).write_text("{")
    assert read_restraint(tmp_path) == Restraint()
