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
        # 1 by rounding where a sum of weights is more
        odds = np.log(population) - np.log1p(-min(population, 1.0))
    return float(-BOLTZMANN_CONSTANT * temperature * odds)


def differences(angles: Array, log_weights: Array, *, temperature: float) -> dict[str, float]:
    """Free-energy differences in kJ/mol from weighted phi, psi ``(n, 2)``.

    "alpha_L" is that of 0 < phi < 126 degrees (alpha_L and C7ax) over all the rest, "alpha_R" that
    of the right-handed helix over the extended structures (PPII and beta).
    """
    basins = ramachandran_basins(*angles.T)
    weights = np.exp(log_weights - log_weights.max())
    share = {name: float(weights[mask].sum() / weights.sum()) for name, mask in basins.items()}
    extended = share["PPII"] + share["beta"]
    helical = share["alpha_R"] + extended
    return {
        "alpha_L": difference(share["alpha_L"], temperature=temperature),
        "alpha_R": difference(share["alpha_R"] / helical, temperature=temperature)
        if helical > 0
        else np.nan,
    }


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
