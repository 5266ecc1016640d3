"""`lakewriter sandbox`, which runs the simulated exchange until a signal stops it."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from lakewriter.cli.signals import stop_on_signals
from lakewriter.clock import present_ms


def run(
    host: str,
    port: int,
    speed: float,
    seed: int,
    start: int | None,
    symbols: int,
    push_every: float,
    replay: tuple[str, ...],
    faults: tuple[str, ...],
    faults_file: str | None,
) -> None:
    """Run the server until a signal."""
    from lakewriter.sandbox.faults.fault_syntax import load_faults, parse_argument

    start_ms = present_ms() if start is None else start
    asyncio.run(
        _run(
            host=host,
            port=port,
            speed=speed,
            seed=seed,
            start_ms=start_ms,
            symbols=symbols,
            push_every_ms=push_every,
            replay=replay,
            faults=(
                *(load_faults(Path(faults_file), start_ms) if faults_file else ()),
                *(parse_argument(text, start_ms) for text in faults),
            ),
        )
    )


async def _run(**fields: Any) -> None:
    from lakewriter.sandbox import SandboxOptions, serve

    stopped = asyncio.Event()
    stop_on_signals(stopped)
    async with serve(SandboxOptions(**fields)) as sandbox:
        print(sandbox.url, flush=True)
        click.echo(_introduction(sandbox.url, sandbox.now_ms(), fields["speed"], fields["symbols"]), err=True)
        await stopped.wait()
    broken = ", ".join(f"{kind} {count}" for kind, count in sandbox.violations.items())
    click.echo(f"stopped; limits broken: {broken or 'none'}", err=True)


def _introduction(url: str, now_ms: int, speed: float, symbols: int) -> str:
    now = datetime.fromtimestamp(now_ms // 1000, UTC)
    socket = "ws" + url.removeprefix("http")
    return f"""\
lakewriter sandbox: {symbols} symbols in each of three markets; it is {now:%Y-%m-%d %H:%M:%S} UTC, speed {speed:g}
  streams   {socket}/spot/ws  {socket}/usdt_futures/market/ws  {socket}/coin_futures/ws
  REST      {url}/spot/api/v3/klines?symbol=BTCUSDT&interval=1m
  archive   {url}/data.binance.vision?delimiter=/&prefix=data/spot/daily/klines/BTCUSDT/1m/
  control   {url}/control
record from it:
  lakewriter record spot:BTCUSDT,BNBUSDT:1m usdt_futures:BTCUSDT:1m coin_futures:BTCUSD_PERP:3m --exchange {url}
stop with Ctrl-C"""
