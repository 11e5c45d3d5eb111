"""This file is about the random number of one output position: a function of (seed, choice,
position) alone, so that neither the batch nor the worker matters.

Source: SplitMix64's finaliser (Steele, Lea and Flood, OOPSLA 2014), chained over three counters.
"""

import numpy as np
from numpy.typing import NDArray

_STEP = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


def uniforms(
    seeds: NDArray[np.uint64], choices: NDArray[np.uint64], positions: NDArray[np.int64]
) -> NDArray[np.float64]:
    """One number in [0, 1) for each element, 53 bits of it random."""
    state = _mixed(seeds + _STEP)
    state = _mixed(state ^ ((choices + np.uint64(1)) * _STEP))
    state = _mixed(state + (positions.astype(np.uint64) + np.uint64(1)) * _STEP)
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mixed(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    state = (state ^ (state >> np.uint64(30))) * _FIRST
    state = (state ^ (state >> np.uint64(27))) * _SECOND
    result: NDArray[np.uint64] = state ^ (state >> np.uint64(31))
    return result
