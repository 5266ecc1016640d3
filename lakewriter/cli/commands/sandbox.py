"""`lakewriter sandbox`, which runs the simulated exchange until a signal stops it."""

import math
from typing import Any

import click

from lakewriter.cli import run_command


def _moment_ms(_ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    from lakewriter.cli.moment import parse_start

    return parse_start(value, param.opts[0])


def _milliseconds(_ctx: click.Context, _param: click.Parameter, value: str) -> int:
    from lakewriter.config import parse_duration

    return 0 if value == "0" else parse_duration(value)


def _speed(_ctx: click.Context, _param: click.Parameter, value: float) -> float:
    if math.isnan(value):
        raise click.BadParameter("nan is not a speed")
    return value


def _list_faults(context: click.Context, _param: click.Parameter, show: bool) -> None:
    if not show or context.resilient_parsing:
        return
    from lakewriter.sandbox import FAULTS

    for name, kind in FAULTS.items():
        value = f" (value: {kind.value}; {kind.default:g} by default)" if kind.value else ""
        print(f"{name:24} {kind.description}{value}")
    context.exit()


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", default=9080, show_default=True, type=click.IntRange(0, 65535), help="0 for a free one."
)
@click.option(
    "--speed",
    default=1.0,
    show_default=True,
    type=click.FloatRange(0, 10_000, min_open=True),
    callback=_speed,
    help="Simulated seconds in a real second.",
)
@click.option("--seed", default=0, show_default=True, help="The seed of all prices.")
@click.option(
    "--start",
    metavar="TIME",
    callback=_moment_ms,
    help="The time of its clock at the start, UTC.  [default: now]",
)
@click.option(
    "--symbols", default=60, show_default=True, type=click.IntRange(1, 5000), help="Symbols of each market."
)
@click.option(
    "--push-every",
    default="1s",
    show_default=True,
    metavar="DURATION",
    callback=_milliseconds,
    help="Real time between frames of an open candle; 0 for none.",
)
@click.option(
    "--replay",
    multiple=True,
    metavar="[MARKET=]FILE",
    help="Send a recorded session instead of computed candles; repeatable.",
)
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="NAME[:KEY=VALUE,...]",
    help="Stage a fault; repeatable. Keys: market, symbols, interval, in_s and for_s "
    "(simulated seconds) or start and stop (UTC), value, retry_after_s, share (of archive files).",
)
@click.option(
    "--faults",
    "faults_file",
    metavar="FILE",
    type=click.Path(),
    help="Faults as [[fault]] tables in a TOML file.",
)
@click.option(
    "--list-faults",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list_faults,
    help="List the faults, and exit.",
)
def command(**options: Any) -> None:
    """Run a local server that speaks Binance's protocol for all three markets.

    The seed determines every price. The first line on standard output is the
    server's URL. Below it, /control shows counters and accepts faults at run time.

    \b
    lakewriter sandbox --port 9080 --speed 60
    lakewriter sandbox --fault late_close:market=spot,symbols=BTCUSDT,ETHUSDT,in_s=60,value=30
    curl -d '{"name":"stalled_socket","market":"spot"}' http://127.0.0.1:9080/control/faults
    lakewriter record spot:BTCUSDT:1m --exchange http://127.0.0.1:9080
    """
    run_command("sandbox", options)
