"""A training of seconds with networks of a few numbers, for tests of what is kept of one."""

from pathlib import Path
from typing import Any

import torch

from gencg.fit import FitResult, fit
from gencg.models.coarse_grained import CoarseGrainedModel
from gencg.models.decoders import SplineDecoder
from gencg.systems import double_well
from gencg.training import Optimisation

N_STEPS = 6


def tiny_fit(checkpoint: Path | None = None, **options: Any) -> FitResult:
    """The double well by a flow of a few parameters, `N_STEPS` steps of 8 samples."""
    system = double_well()
    with torch.random.fork_rng():
        torch.manual_seed(1)
        decoder = SplineDecoder(
            system.coordinates, n_soft_layers=1, n_bins=3, soft_hidden=(2,), n_stiff_layers=1,
            stiff_hidden=(2,), locality=None,
        ).float()  # fmt: skip
    return fit(
        system,
        model=CoarseGrainedModel(decoder).float(),
        energy_calls=8 * N_STEPS,
        batch_size=8,
        optimisation=Optimisation(precision="float32", optimiser="adam", warm_up=2),
        seed=3,
        checkpoint=checkpoint,
        **options,
    )


def numbers(result: FitResult) -> dict[str, list[float]]:
    """Log densities of fixed points, and the soft coordinates of the last rung: to tell models."""
    y = torch.tensor([[-2.5, 0.0], [2.3, 0.5], [0.1, -1.0]])
    with torch.no_grad():
        log_q = result.model.decoder(result.model.rows(3)).log_prob(y)
    return {"log_q": log_q.tolist(), "energy": result.ladder[-1].energy.tolist()}
