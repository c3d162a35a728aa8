"""Products of slow functions, which are slow, too, and no processes of their own."""

import torch
from torch import Tensor

from gencg.objectives.dirichlet import SoftSamples, Spectrum

REDUCIBLE = 0.5
"""R² on products of slower functions from which on a function is no process of its own."""
FACTORS = 12
"""Most functions whose products are looked at."""


def own_processes(found: Spectrum, samples: SoftSamples, min_population: float) -> Tensor:
    """Which functions of a spectrum are processes, ``(m,)`` bool.

    Those that move at least `min_population`, and are no products of slower ones.
    """
    wanted = found.populations >= min_population
    return wanted & (product_share(found.functions, samples.weights.double()) < REDUCIBLE)


def product_share(functions: Tensor, weights: Tensor) -> Tensor:
    r"""R² of each function on the products :math:`f_i f_j` of slower ones, i < j, ``(m,)``.

    Two independent processes have a third function, their product, with the sum of their
    eigenvalues. It is slow, it is real, and it is no process of its own.

    Args:
        functions: Uncorrelated functions of variance 1 at samples, slowest first, ``(n, m)``.
        weights: Normalised weights, ``(n,)``.
    """
    f = functions.double()
    m = f.shape[1]
    out = torch.zeros(m, dtype=torch.float64)
    kept: list[int] = []
    products: list[Tensor] = []
    root = weights[:, None].sqrt()
    for k in range(m):
        if products:
            p = torch.stack(products, 1)
            p = root * (p - (weights[:, None] * p).sum(0))
            target = root * f[:, k : k + 1]
            out[k] = _r_squared(p, target)
        if out[k] < REDUCIBLE and len(kept) < FACTORS:
            products += [f[:, i] * f[:, k] for i in kept]
            kept.append(k)
    return out


def _r_squared(p: Tensor, target: Tensor) -> float:
    gram, cross = p.T @ p, p.T @ target
    scale = gram.diagonal().clamp_min(1e-300).rsqrt()
    values, directions = torch.linalg.eigh(scale[:, None] * gram * scale)
    along = directions.T @ (scale[:, None] * cross)
    good = values > 1e-8 * values[-1]
    return float((along[good, 0].square() / values[good]).sum() / target.square().sum())
