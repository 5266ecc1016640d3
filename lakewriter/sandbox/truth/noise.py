"""Random numbers without state: one for each key, channel and index.

The same arguments always return the same number, in any order of calls. A price is a sum of
octaves of value noise. Each octave is four times slower and twice as large as the previous
one. So the price looks like a market's at any scale. Pure.
"""

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

OCTAVES = 10

# The amplitude of the fastest octave, in log price. The sum of all ten stays within ±0.41.
AMPLITUDE = 0.0004

_GOLDEN = 0x9E3779B97F4A7C15
_CHANNEL = 0xD1B54A32D192ED03
_MASK = (1 << 64) - 1


def uniform(key: int, channel: int, index: Ints) -> Floats:
    """Return a uniformly distributed number in [0, 1) for each index.

    Source: splitmix64, Steele, Lea and Flood, OOPSLA 2014.
    """
    seed = np.uint64((key + channel * _CHANNEL) & _MASK)
    mixed = (index.astype(np.uint64) + np.uint64(1)) * np.uint64(_GOLDEN) ^ seed
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed = mixed ^ (mixed >> np.uint64(31))
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53


def uniform_at(key: int, channel: int, index: int) -> float:
    """Return `uniform` for a single index, without numpy's overhead."""
    mixed = ((index + 1) * _GOLDEN & _MASK) ^ ((key + channel * _CHANNEL) & _MASK)
    mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EB & _MASK
    return ((mixed ^ (mixed >> 31)) >> 11) * 2.0**-53


def log_price(key: int, minute: Ints) -> Floats:
    """Return each minute's log price, relative to the symbol's usual price.

    Args:
        minute: the numbers of consecutive minutes, ascending.
    """
    total = np.zeros(len(minute))
    for octave in range(OCTAVES):
        period = 4**octave
        lattice = minute // period
        first = int(lattice[0])
        knots = uniform(key, 100 + octave, np.arange(first, int(lattice[-1]) + 2, dtype=np.int64)) * 2 - 1
        left = lattice - first
        part = (minute - lattice * period) / period
        smooth = part * part * (3 - 2 * part)
        total += AMPLITUDE * 2**octave * (knots[left] + (knots[left + 1] - knots[left]) * smooth)
    return total
