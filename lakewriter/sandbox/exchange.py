"""The simulated exchange: the state that the parts of one sandbox share."""

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from lakewriter.sandbox.clock import SimClock
from lakewriter.sandbox.faults.fault_set import FaultSet
from lakewriter.sandbox.truth.candles import Truth
from lakewriter.sandbox.truth.catalogue import Catalogue


class SimulatedExchange(NamedTuple):
    """The exchange that REST, archive and streams serve.

    Args:
        catalogues: by market.
        truth: the candles.
        faults: the faults on request.
        clock: the simulated time.
        violations: limits that clients broke, by kind.
        requests: REST and archive requests, by kind.
    """

    catalogues: Mapping[str, Catalogue]
    truth: Truth
    faults: FaultSet
    clock: SimClock
    violations: Counter[str]
    requests: Counter[str]
