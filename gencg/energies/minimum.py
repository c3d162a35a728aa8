"""Minima of any energy of a molecule."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize

from gencg.energies.base import Energy

Array = NDArray[np.float64]

STEP = 0.002
"""Unit of length in nm in which a bond has a force constant of about one kJ/mol."""
HUGE = 1e10


def nearest_minimum(
    energy: Energy, positions: Array, *, tolerance: float = 1.0, max_iterations: int = 2000
) -> Array:
    """The nearest minimum of an energy, by L-BFGS.

    Args:
        energy: The energy; its calls are counted.
        positions: Where to start, shape ``(n_atoms, 3)``, in nm.
        tolerance: Root mean square force to reach, in kJ/mol/nm.
        max_iterations: Most steps to take.

    Raises:
        ValueError: If the energy is not finite there, or no minimum is found.
    """
    shape = positions.shape

    def value_and_slope(flat: Array) -> tuple[float, Array]:
        x = torch.as_tensor(STEP * flat.reshape(1, *shape)).requires_grad_()
        value = energy(x)
        (slope,) = torch.autograd.grad(value.sum(), x)
        # A step too long ends where there is no energy: as high as can be, to turn back
        value = value.detach().nan_to_num(nan=HUGE, posinf=HUGE)
        return float(value), STEP * slope.nan_to_num(0.0).numpy().ravel()

    start = float(energy(torch.as_tensor(positions)))
    if not math.isfinite(start):
        raise ValueError(f"`energy` of the given structure must be finite, got {start}")
    found = minimize(
        value_and_slope,
        positions.ravel() / STEP,
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": max_iterations, "gtol": 0.3 * STEP * tolerance, "ftol": 0.0},
    )
    slope = float(np.sqrt(np.mean(np.square(found.jac / STEP))))
    if not slope <= tolerance:
        raise ValueError(
            f"`energy` has no minimum near the given structure: after {found.nit} steps the root "
            f"mean square force is {slope:.3g} kJ/mol/nm; give a better structure"
        )
    minimum: Array = STEP * found.x.reshape(shape)
    return minimum
