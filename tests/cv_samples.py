"""A dipeptide's slow CVs and joint samples made up without training, for plots and the report."""

import numpy as np
import torch

from gencg.discover import SlowCVs
from gencg.ensemble import Ensemble
from gencg.models.cv_map import CollectiveMap
from gencg.objectives.dirichlet import SoftSamples
from gencg.objectives.slow_modes import solve_heads
from gencg.systems import System

# beta, PPII, alpha_R, alpha_L: phi, psi in degrees, width, share
WELLS = ((-150, 165, 14, 0.45), (-70, 145, 12, 0.2), (-75, -20, 14, 0.347), (55, 45, 11, 0.003))


def made_up_ensemble(
    system: System, n: int = 4000, *, n_cvs: int = 2, matrix: torch.Tensor | None = None
) -> Ensemble:
    """Samples in four basins of a dipeptide, some on the barriers, weighted to the shares above.

    z is the first `n_cvs` of the soft torsions times `matrix`, blurred by 0.1 rad.
    """
    coordinates = system.coordinates
    soft = coordinates.soft.nonzero()[:, 0]
    y = coordinates.centre + 0.05 * coordinates.scale * torch.randn(n, coordinates.dim)
    wells = torch.tensor(WELLS, dtype=torch.float64)
    centres, widths = torch.deg2rad(wells[:, :2]), torch.deg2rad(wells[:, 2])
    component = torch.randint(5, (n,))
    spread = 2 * torch.pi * torch.rand(n, 2) - torch.pi
    inside = component < 4
    at = component[inside]
    spread[inside] = centres[at] + widths[at, None] * torch.randn(len(at), 2)
    angles = wrapped(2 * torch.pi * torch.rand(n, len(soft)))
    angles[:, :2] = wrapped(spread)
    y[:, soft] = angles

    # Densities of the mixture sampled and of the one meant, both with a flat floor
    offset = wrapped(angles[:, None, :2] - centres)
    bumps = torch.exp(-0.5 * (offset / widths[:, None]).square().sum(-1))
    bumps = bumps / (2 * torch.pi * widths.square())
    flat = 1 / (2 * torch.pi) ** 2
    log_weights = torch.log(bumps @ wells[:, 3] + 3e-3 * flat)
    log_weights = log_weights - torch.log(0.2 * bumps.sum(1) + 0.2 * flat)
    log_weights = log_weights + 0.1 * torch.randn(n)
    x, _ = coordinates.inverse(y)
    matrix = torch.eye(len(soft)) if matrix is None else matrix
    z = wrapped(angles @ matrix[:n_cvs].T + 0.1 * torch.randn(n, n_cvs))
    return Ensemble(
        x=x, y=y, z=z, energy=10 * torch.rand(n), log_weights=log_weights,
        valid=torch.ones(n, dtype=torch.bool), temperature=system.temperature,
        molecule=system.molecule, name=system.name,
    )  # fmt: skip


def made_up_cvs(
    system: System,
    ensemble: Ensemble,
    *,
    names: tuple[str, ...] = ("phi(ALA2)", "psi(ALA2)"),
    matrix: torch.Tensor | None = None,
) -> SlowCVs:
    """Slow functions of straight CVs, solved on the samples; nothing else is kept."""
    soft = system.coordinates.soft.nonzero()[:, 0]
    k = len(soft)
    matrix = torch.eye(k) if matrix is None else matrix
    cv_map = CollectiveMap(matrix, n_cvs=len(names), periodic=True, n_steps=0)
    metric = 40.0 * torch.eye(k).expand(ensemble.n_samples, k, k)
    samples = SoftSamples(ensemble.y[:, soft], metric, ensemble.log_weights, True)
    functions, found, eigenvalues = solve_heads(cv_map, samples, samples, 2)
    return SlowCVs(
        functions=functions, names=names, spectrum=found, n_processes=2, gap=3.1,
        eigenvalues=eigenvalues, linear=True, n_energy_calls=0,
    )  # fmt: skip


def wrapped(angles: torch.Tensor) -> torch.Tensor:
    return (angles + np.pi) % (2 * np.pi) - np.pi
