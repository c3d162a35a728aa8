"""What collective variables are worth on toys in the plane, whoever found them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gencg.analysis import ExactSlowFunctions
from gencg.systems import System
from gencg.units import inverse_temperature

BOXES = {
    "double-well": ((-4.6, -5.5), (4.6, 5.5)),
    "mueller-brown": ((-1.9, -0.9), (1.5, 2.5)),
    "curved-wells": ((-2.4, -2.5), (6.5, 2.5)),
    "gaussian-mixture": ((-4.6, -4.6), (4.6, 4.6)),
}
"""Where the toys live: corners of the box of finite differences."""
PROCESSES = {"double-well": 1, "mueller-brown": 1, "curved-wells": 1, "gaussian-mixture": 3}
"""How many slow functions are compared."""


def exact_of(system: System, *, n: int = 160) -> ExactSlowFunctions:
    """Exact slow functions of a toy of `BOXES`.

    Args:
        system: The toy, at its own temperature.
        n: Points of the grid along each side.
    """
    m = max(PROCESSES[system.name], 3)
    beta = inverse_temperature(system.temperature)
    return ExactSlowFunctions(system.energy, beta, *BOXES[system.name], n=n, n_functions=m)


def time_kept(found: Tensor, exact: Tensor) -> float:
    r"""Share of the slow times that is kept, :math:`\sum_k 1/\lambda_k` over its exact value."""
    return float((1 / found).sum() / (1 / exact).sum())


def kept_by(system: System, cvs: Callable[[Tensor], Any], *, n: int = 160) -> float:
    """Share of the slow times of a toy that functions of these variables keep.

    Args:
        system: A toy of `BOXES`.
        cvs: From positions ``(n, 2)`` float64 to variables ``(n, 1 or 2)``.
        n: Points of the grid along each side.
    """
    exact, m = exact_of(system, n=n), PROCESSES[system.name]
    z = torch.as_tensor(cvs(exact.points)).double()
    return time_kept(exact.best_of(z, n_functions=m), exact.eigenvalues[:m])
