"""The loss that a name stands for."""

from gencg.models.coarse_grained import CoarseGrainedModel
from gencg.objectives.base import Objective
from gencg.objectives.covering_kl import CoveringKL
from gencg.objectives.reverse_kl import ReverseKL
from gencg.objectives.walkers import two_blocks
from gencg.target import BoltzmannTarget

ESTIMATORS = ("covering", "path", "plain")


def build_objective(
    estimator: str, model: CoarseGrainedModel, target: BoltzmannTarget, *, n_samples: int
) -> Objective:
    """`CoveringKL` where the model can use walkers and it is asked for, `ReverseKL` elsewhere.

    Args:
        estimator: "covering", "path" or "plain".
        model: The generator to train.
        target: The Boltzmann density.
        n_samples: Configurations per evaluation.

    Raises:
        ValueError: If `estimator` is none of these, or as the objective.
    """
    if estimator not in ESTIMATORS:
        raise ValueError(f"`estimator` must be one of {', '.join(ESTIMATORS)}, got {estimator!r}")
    if estimator == "covering" and two_blocks(model) is not None:
        return CoveringKL(target, n_samples=n_samples)
    return ReverseKL(target, n_samples=n_samples, path_gradient=estimator != "plain")
