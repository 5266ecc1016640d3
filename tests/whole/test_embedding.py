"""The public names: lazy for Python, typed for type checkers, and used as docs/how-to/embedding.md shows."""

import asyncio
import re
import signal
import subprocess
import sys
from pathlib import Path

import mypy.api
import pytest

import lakewriter
from lakewriter.interval import MINUTE_MS
from lakewriter.sandbox.server import SandboxOptions, serve
from support.lengths import LONG
from support.running import PATIENCE_S, REPOSITORY

# The public names, and what a type checker says of each.
REVEALED = {
    "lakewriter.__version__": "str",
    "lakewriter.Candle.begin_ms": "int",
    "lakewriter.open_lake('data')": "lakewriter.query.python.reader.Lake",
    "lake.query('SELECT 1', {'a': 1}, tables={'b': lake.series()})": "lakewriter.query.python.result.Result",
    "lake.query('SELECT 1').df()": "pandas.core.frame.DataFrame",
    "lake.query('SELECT 1').pl()": "polars.dataframe.frame.DataFrame",
    "lake.query('SELECT 1').rows()": "list[tuple[Any, ...]]",
    "lake.candles('spot', 'BTCUSDT', '1m', '2024-06-30', fill='gaps')": "pandas.core.frame.DataFrame",
    "lake.candles('spot', ['BTCUSDT', '*'], '1m', columns='ohlcv', tz=None)": "pandas.core.frame.DataFrame",
    "lake.candles('spot', 'BTCUSDT', '1m', columns=['close'], index='candle_begin_time')": "pandas.core.frame.DataFrame",
    "lake.matrix('close', 'spot', '*USDT', '1m')": "pandas.core.frame.DataFrame",
    "lake.series(symbol='*USDT')": "pandas.core.frame.DataFrame",
    "lake.follow('spot:BTCUSDT:1m', since='7d', resume='place.json')": "lakewriter.follow.follower.Follower",
    "next(lake.follow(['spot:*:1m']))": "lakewriter.follow.followed_candle.FollowedCandle",
    "next(lake.follow(['spot:*:1m'])).late": "bool",
    "lake.follow('spot:BTCUSDT:1m').__aiter__()": "lakewriter.follow.follower.Follower",
    "lake.follow('spot:BTCUSDT:1m').position": "str",
    "lakewriter.LakewriterError('what').hint": "str",
    "lakewriter.CandleListener('spot', ['BTCUSDT'], '1m', queue)": (
        "lakewriter.recording.listening.listener.CandleListener"
    ),
    "lakewriter.CandleListener('spot', ['BTCUSDT'], '1m', queue).stats.candles": "int",
}
SNIPPET = """
import asyncio
import lakewriter
from lakewriter import Candle, CandleListener, Lake, open_lake
lake = open_lake("data")
queue: asyncio.Queue[Candle] = asyncio.Queue(10)
"""


def example() -> str:
    """Return the program in docs/how-to/embedding.md."""
    page = (REPOSITORY / "docs" / "how-to" / "embedding.md").read_text()
    [program] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    return str(program)


def type_check(path: Path, code: str) -> list[str]:
    """Return mypy's output on a file, in strict mode."""
    path.write_text(code)
    config = f"--config-file={REPOSITORY / 'pyproject.toml'}"
    # A short run shares the cache of `make check`.
    cache = path.parent / "cache" if LONG else REPOSITORY / ".mypy_cache"
    stdout, stderr, _ = mypy.api.run([config, f"--cache-dir={cache}", str(path)])
    assert not stderr
    return stdout.splitlines()


def test_importing_the_package_imports_none_of_its_parts() -> None:
    """`import lakewriter` loads neither sockets nor Arrow nor DuckDB before their first use."""
    heavy = ("aiohttp", "asyncio", "duckdb", "msgspec", "pandas", "pyarrow", "websockets")
    code = f"import sys, lakewriter; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_listener_imports_no_engine() -> None:
    """A program that only listens loads neither DuckDB nor pandas."""
    code = (
        "import sys; from lakewriter import CandleListener; print({'duckdb', 'pandas'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_public_names_are_listed_and_no_other_exists() -> None:
    """Each name in `__all__` can be imported and is in dir(); an unknown name is an AttributeError."""
    for name in lakewriter.__all__:
        assert getattr(lakewriter, name) is not None
        assert name in dir(lakewriter)
    with pytest.raises(AttributeError, match="no attribute 'Candel'"):
        _ = lakewriter.Candel  # type: ignore[attr-defined]


@pytest.mark.long
@pytest.mark.slow
def test_type_checkers_see_the_true_types(tmp_path: Path) -> None:
    """mypy knows the type of each public name, and refuses a wrong argument and an unknown name."""
    reveals = "".join(f"reveal_type({expression})\n" for expression in REVEALED)
    wrong = (
        "CandleListener('spot', ['BTCUSDT'], 5, queue)\nlakewriter.Candel\n"
        "lake.candles('spot', 'BTCUSDT', '1m', fill='zeros')\nlake.candle('spot')\n"
    )
    said = type_check(tmp_path / "snippet.py", SNIPPET + reveals + wrong)
    revealed = [match[1] for line in said if (match := re.search(r'Revealed type is "(.*)"', line))]
    assert [name.removeprefix("builtins.") for name in revealed] == list(REVEALED.values())
    errors = [line for line in said if ": error: " in line]
    assert [re.search(r"\[([\w-]+)\]$", line)[1] for line in errors] == [  # type: ignore[index]
        "arg-type", "attr-defined", "arg-type", "attr-defined",
    ]  # fmt: skip
    assert type_check(tmp_path / "listen.py", example())[-1].startswith("Success")


@pytest.mark.slow
@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_the_example_prints_three_markets_and_stops(tmp_path: Path, signal_number: int) -> None:
    """The program of the page prints closed candles of all three markets, in order, and stops cleanly."""
    program = tmp_path / "listen.py"
    program.write_text(example())

    async def main() -> None:
        async with asyncio.timeout(PATIENCE_S), serve(SandboxOptions(speed=600, push_every_ms=50)) as sandbox:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, str(program), sandbox.url),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            assert process.stdout is not None
            printed: dict[tuple[str, str], list[tuple[int, float]]] = {}
            while len(printed) < 5 or min(map(len, printed.values())) < 3:
                line = (await process.stdout.readline()).decode()
                market, symbol, interval, begin_ms, close = line.split()
                assert interval == "1m"
                printed.setdefault((market, symbol), []).append((int(begin_ms), float(close)))
            process.send_signal(signal_number)
            _, stderr = await process.communicate()
            assert (process.returncode, stderr.decode()) == (0, "")
            for (market, symbol), candles in printed.items():
                begins = [begin_ms for begin_ms, _ in candles]
                assert begins == list(range(begins[0], begins[-1] + 1, MINUTE_MS))
                for begin_ms, close in candles:
                    assert close == float(sandbox.truth.candle(market, symbol, "1m", begin_ms).close)

    asyncio.run(main())
