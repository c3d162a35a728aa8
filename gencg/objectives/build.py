"""The loss that a name stands for."""

from gencg.models.coarse_grained import CoarseGrainedModel
from gencg.models.continuous import FlowMatchingDecoder
from gencg.objectives.base import Objective
from gencg.objectives.covering_kl import ORDER, CoveringKL
from gencg.objectives.flow_matching import FlowMatching
from gencg.objectives.reverse_kl import ReverseKL
from gencg.objectives.walkers import two_blocks
from gencg.target import BoltzmannTarget

ESTIMATORS = ("covering", "path", "plain")
STEPS_PER_KEPT, MOST_KEPT = 25, 40
"""Steps of training for each batch that is remembered, and batches at most."""


def samples_kept(n_samples: int, n_steps: int) -> int:
    """How many samples a training of `n_steps` evaluations remembers."""
    return min(max(n_steps // STEPS_PER_KEPT, 1), MOST_KEPT) * n_samples


def build_objective(
    estimator: str,
    model: CoarseGrainedModel,
    target: BoltzmannTarget,
    *,
    n_samples: int,
    n_steps: int,
    matching: float = 0.0,
) -> Objective:
    """`CoveringKL` where the model can use walkers and it is asked for, `ReverseKL` elsewhere.

    A generator with a flow-matching decoder is matched first (`FlowMatching`), and then takes for
    "covering" the path gradients of that order alone, without walkers.

    Args:
        estimator: "covering", "path" or "plain".
        model: The generator to train.
        target: The Boltzmann density.
        n_samples: Configurations per evaluation.
        n_steps: Evaluations to come; the memory is short where they are few, since it is as hot as
            the ladder was.
        matching: Share of the steps in which a flow-matching decoder is matched, unless it has
            been trained before.

    Raises:
        ValueError: If `estimator` is none of these, or as the objective.
    """
    if estimator not in ESTIMATORS:
        raise ValueError(f"`estimator` must be one of {', '.join(ESTIMATORS)}, got {estimator!r}")
    n_kept = samples_kept(n_samples, n_steps)
    continuous = isinstance(model.decoder, FlowMatchingDecoder)
    objective: Objective
    if estimator == "covering" and continuous and not model.n_cvs:
        # Walkers ask for many densities, each a solution of the equation
        objective = ReverseKL(target, n_samples=n_samples, order=ORDER)
    elif estimator == "covering" and two_blocks(model) is not None:
        objective = CoveringKL(target, n_samples=n_samples, n_kept=n_kept)
    else:
        objective = ReverseKL(target, n_samples=n_samples, path_gradient=estimator != "plain")
    decoder = model.decoder
    if not isinstance(decoder, FlowMatchingDecoder) or model.n_cvs or not decoder.at_rest:
        return objective
    return FlowMatching(
        target,
        after=objective,
        n_samples=n_samples,
        n_matching=int(matching * n_steps),
        n_matched=2 * n_samples,
        n_remembered=max(n_kept // 2, n_samples),
    )
