"""A local Binance: it speaks the real protocol, and each of its candles can be computed.

    async with serve(SandboxOptions(speed=60)) as sandbox:
        sandbox.truth.candles("spot", "BTCUSDT", "1m", start_ms, stop_ms)

It shares no code with `lakewriter.binance`, except the names of the archive's
files. A server built from the client's own decoder would prove nothing.
"""

from lakewriter.sandbox.faults.table import FAULTS, Fault
from lakewriter.sandbox.server import Sandbox, SandboxOptions, serve
from lakewriter.sandbox.truth.candles import Truth, TruthCandle

__all__ = ["FAULTS", "Fault", "Sandbox", "SandboxOptions", "Truth", "TruthCandle", "serve"]
