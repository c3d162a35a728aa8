"""Free-energy difference of two states of a torsion, and crossings between them, over time."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gencg.analysis import ramachandran_basins
from gencg.units import BOLTZMANN_CONSTANT

Array = NDArray[np.float64]

RIGHT_CORE, LEFT_CORE = (-150.0, -40.0), (30.0, 100.0)
"""phi in degrees deep inside either state: a crossing leads from one to the other."""


def difference(population: float, *, temperature: float) -> float:
    r"""Free energy of a state over that of all the rest, :math:`-k_B T \ln(p / (1 - p))`.

    In kJ/mol; infinite for a population of 0, and minus infinite for 1.
    """
    with np.errstate(divide="ignore"):
        odds = np.log(population) - np.log1p(-population)
    return float(-BOLTZMANN_CONSTANT * temperature * odds)


def left_handed_difference(angles: Array, log_weights: Array, *, temperature: float) -> float:
    """Free energy of 0 < phi < 126 degrees over the rest, from weighted phi, psi ``(n, 2)``."""
    left = ramachandran_basins(*angles.T)["alpha_L"]
    weights = np.exp(log_weights - log_weights.max())
    return difference(float(weights[left].sum() / weights.sum()), temperature=temperature)


def crossings(phi: Array) -> int:
    """How often phi ``(n,)``, in rad and in the order of time, went from one core to the other."""
    degrees = np.degrees(phi)
    state = np.zeros(len(phi), dtype=int)
    for sign, (low, high) in ((-1, RIGHT_CORE), (1, LEFT_CORE)):
        state[(degrees > low) & (degrees < high)] = sign
    visited = state[state != 0]
    return int((visited[1:] != visited[:-1]).sum())


def settled(times: Sequence[float], values: Any, reference: float, tolerance: float) -> float:
    """First time from which on all values are within `tolerance`; infinite if the last is not."""
    errors = np.abs(np.asarray(values, dtype=np.float64) - reference)
    outside = np.flatnonzero(~(errors <= tolerance))
    first = 0 if not len(outside) else int(outside[-1]) + 1
    return float(times[first]) if first < len(times) else np.inf
