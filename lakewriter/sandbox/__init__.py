"""A local server that speaks Binance's protocol. A seed determines all of its candles.

    async with serve(SandboxOptions(speed=60)) as sandbox:
        sandbox.truth.candles("spot", "BTCUSDT", "1m", start_ms, stop_ms)

It shares only the names of the archive's files with `lakewriter.binance`. A server built
from the client's decoder would repeat the decoder's faults.
"""

from lakewriter.sandbox.faults.table import FAULTS, Fault
from lakewriter.sandbox.server import Sandbox, SandboxOptions, serve
from lakewriter.sandbox.truth.candles import Truth, TruthCandle

__all__ = ["FAULTS", "Fault", "Sandbox", "SandboxOptions", "Truth", "TruthCandle", "serve"]
