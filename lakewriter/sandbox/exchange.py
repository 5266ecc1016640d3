"""The simulated exchange: the shared state of one sandbox."""

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from lakewriter.sandbox.clock import SimClock
from lakewriter.sandbox.faults.fault_set import FaultSet
from lakewriter.sandbox.truth.candles import Truth
from lakewriter.sandbox.truth.catalogue import SymbolCatalogue


class SimulatedExchange(NamedTuple):
    """The state that REST, archive and streams share.

    Args:
        catalogues: the symbols of each market, by its name.
        truth: the candles.
        faults: the requested faults.
        clock: the simulated time.
        violations: counts of the limits that clients broke, by kind.
        requests: counts of REST and archive requests, by kind.
    """

    catalogues: Mapping[str, SymbolCatalogue]
    truth: Truth
    faults: FaultSet
    clock: SimClock
    violations: Counter[str]
    requests: Counter[str]
