"""What the ablation varies: each function changes one thing of `gencg.fit`, and returns it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from gencg.distributions.couplings import Coupling, LineSpline
from gencg.models.coarse_grained import CoarseGrainedModel
from gencg.models.decoders import SplineDecoder
from gencg.objectives.alpha_divergence import AlphaDivergence
from gencg.objectives.alpha_two import AlphaTwo
from gencg.objectives.base import Evaluation
from gencg.objectives.build import samples_kept
from gencg.objectives.covering_kl import CoveringKL
from gencg.objectives.forward_kl import WeightedForwardKL
from gencg.objectives.log_variance import LogVariance
from gencg.objectives.reverse_kl import ReverseKL
from gencg.systems.base import System
from gencg.target import BoltzmannTarget
from gencg.tempering import ESSTempering, GeometricLadder, KLTempering, NoTempering
from gencg.training import Optimisation


@dataclass(frozen=True)
class Setting:
    """What a variant may look at.

    Args:
        system: What is sampled.
        target: Its Boltzmann density.
        seed: Seed of the run, initial parameters included.
        calls: Budget of energy calls.
    """

    system: System
    target: BoltzmannTarget
    seed: int
    calls: float


Options = dict[str, Any]
Variant = Callable[[Setting], Options]


def nothing(setting: Setting) -> Options:
    """The default."""
    return {}


def covering(setting: Setting, **options: Any) -> Options:
    """The default's objective with other options."""
    n_kept = samples_kept(512, int(setting.calls) // 512)
    return {"objective": CoveringKL(setting.target, n_samples=512, n_kept=n_kept, **options)}


def reverse(setting: Setting, *, n_samples: int = 512, **options: Any) -> Options:
    """Reverse KL in place of the default's objective."""
    return {"objective": ReverseKL(setting.target, n_samples=n_samples, **options)}


def ladder(setting: Setting, schedule: Any, **options: Any) -> Options:
    """Another ladder, or the default's start and fraction."""
    return {"tempering": schedule(**options)}


def batch(setting: Setting, n: int) -> Options:
    """Another batch, the rate with its square root, as wide a warm-up in samples."""
    rate = Optimisation().learning_rate * (n / 512) ** 0.5
    optimisation = Optimisation(learning_rate=rate, warm_up=200 * 512 // n)
    return {"batch_size": n, "optimisation": optimisation}


def optimise(setting: Setting, **options: Any) -> Options:
    """Another optimiser, rate or averaging."""
    return {"optimisation": Optimisation(**options)}


def sized(setting: Setting, **options: Any) -> Options:
    """A decoder of another size."""
    with seeded(setting):
        return {"model": CoarseGrainedModel(SplineDecoder(setting.system.coordinates, **options))}


def before(setting: Setting, **options: Any) -> Options:
    """A decoder of another kind, and no term of the variance."""
    return sized(setting, **options) | covering(setting, variance=0.0)


def stiff_splines(setting: Setting, *, n_bins: int = 8) -> Options:
    """Rational-quadratic splines in the couplings of the stiff block, in place of affine maps."""
    with seeded(setting):
        decoder = SplineDecoder(setting.system.coordinates, locality=None)
        stiff = decoder.flow.stiff
        layers = stiff.chain.layers
        for k, layer in enumerate(layers):
            if isinstance(layer, Coupling):
                moved = torch.ones(stiff.space.n_stiff, dtype=torch.bool)
                moved[layer.kept] = False
                layers[k] = Coupling(
                    LineSpline(n_bins=n_bins),
                    moved,
                    n_context=stiff.n_inputs,
                    hidden=(160, 160),
                )
    return {"model": CoarseGrainedModel(decoder)}


class ConditionedDecoder(SplineDecoder):
    """The decoder, told the temperature: one more input, log of beta over the target's."""

    log_beta: torch.Tensor

    def __init__(self, coordinates: Any) -> None:
        super().__init__(coordinates, n_cvs=1)
        # Averages are made of parameters: the returned model keeps zero, the target
        self.register_buffer("log_beta", torch.zeros(()), persistent=False)

    def forward(self, context: torch.Tensor) -> Any:
        return super().forward(self.log_beta.to(context).expand(len(context), 1))


class ConditionedReverseKL(ReverseKL):
    """Reverse KL of a `ConditionedDecoder`."""

    def evaluate(self, model: CoarseGrainedModel, beta: float) -> Evaluation:
        model.decoder.log_beta.fill_(beta / self.target.beta).log_()  # type: ignore[operator,union-attr]
        return super().evaluate(model, beta)


def conditioned(setting: Setting) -> Options:
    """A decoder conditioned on the temperature along the ladder."""
    with seeded(setting):
        model = CoarseGrainedModel(ConditionedDecoder(setting.system.coordinates))
    return {"model": model, "objective": ConditionedReverseKL(setting.target)}


def replaying(setting: Setting, kind: Any, *, n_samples: int = 512, **options: Any) -> Options:
    """An objective that keeps its samples; as many steps as its fresh ones allow."""
    objective = kind(setting.target, n_samples=n_samples, **options)
    return {"objective": objective, "batch_size": n_samples}


def bootstrap(setting: Setting, **options: Any) -> Options:
    """FAB; the calls of its chains are those of the batch."""
    objective = AlphaTwo(setting.target, **options)
    return {"objective": objective, "batch_size": objective.calls_per_step}


@contextmanager
def seeded(setting: Setting) -> Iterator[None]:
    """Initial parameters from the seed, as `fit` draws them; the global state stays."""
    with torch.random.fork_rng():
        torch.manual_seed(setting.seed)
        yield


VARIANTS: dict[str, Variant] = {
    "default": nothing,
    "order-0": partial(covering, order=0.0),
    "order-1": partial(covering, order=1.0, stiff_order=1.0),
    "weight-0": partial(covering, weight=0.0),
    "weight-0.3": partial(covering, weight=0.3),
    "variance-0": partial(covering, variance=0.0),
    "variance-0.3": partial(covering, variance=0.3),
    "stiff-order-0": partial(covering, stiff_order=0.0),
    "stiff-order-half": partial(covering, stiff_order=0.5),
    "nudges-0": partial(covering, nudges=0.0),
    "stiff-order-0-nudges-0": partial(covering, stiff_order=0.0, nudges=0.0),
    "stiff-order-half-nudges-0": partial(covering, stiff_order=0.5, nudges=0.0),
    "walkers-none": partial(covering, moves=0.0),
    "walkers-half": partial(covering, moves=0.5),
    "reverse-kl": reverse,
    "reverse-kl-order-0.5": partial(reverse, order=0.5),
    "reverse-kl-plain": partial(reverse, path_gradient=False),
    "ladder-fraction-0.3": partial(ladder, schedule=GeometricLadder, fraction=0.3),
    "ladder-fraction-0.7": partial(ladder, schedule=GeometricLadder, fraction=0.7),
    "ladder-start-2": partial(ladder, schedule=GeometricLadder, start=2.0),
    "ladder-start-8": partial(ladder, schedule=GeometricLadder, start=8.0),
    "ladder-ess": partial(ladder, schedule=ESSTempering),
    "ladder-kl": partial(ladder, schedule=KLTempering),
    "ladder-none": partial(ladder, schedule=NoTempering),
    "drop-worst-0": partial(covering, drop_worst=0.0),
    "drop-worst-0.05": partial(covering, drop_worst=0.05),
    "batch-128": partial(batch, n=128),
    "batch-256": partial(batch, n=256),
    "batch-1024": partial(batch, n=1024),
    "batch-2048": partial(batch, n=2048),
    "adam": partial(optimise, optimiser="adam", learning_rate=1e-3),
    "rate-1e-3": partial(optimise, learning_rate=1e-3),
    "rate-2e-3": partial(optimise, learning_rate=2e-3),
    "rate-5e-3": partial(optimise, learning_rate=5e-3),
    "averaging-0": partial(optimise, averaging=0.0),
    "averaging-0.05": partial(optimise, averaging=0.05),
    "hidden-96": partial(sized, stiff_hidden=(96, 96)),
    "hidden-256": partial(sized, stiff_hidden=(256, 256)),
    "stiff-layers-6": partial(sized, n_stiff_layers=6),
    "stiff-layers-14": partial(sized, n_stiff_layers=14),
    "couplings-4": partial(sized, n_soft_layers=4),
    "couplings-8": partial(sized, n_soft_layers=8),
    "stiff-splines": stiff_splines,
    "contacts": partial(sized, contacts=True),
    "contacts-none": partial(sized, contacts=False),
    "couplings": partial(sized, autoregressive=False),
    "couplings-variance-0": partial(before, autoregressive=False),
    "couplings-contacts-none-variance-0": partial(before, autoregressive=False, contacts=False),
    "reverse-kl-conditioned": conditioned,
    "alpha-1-half": partial(replaying, kind=AlphaDivergence, alpha=1.0, n_replayed=0),
    "forward-kl": partial(replaying, kind=WeightedForwardKL),
    "forward-kl-256": partial(replaying, kind=WeightedForwardKL, n_samples=256, capacity=10_240),
    "forward-kl-128": partial(replaying, kind=WeightedForwardKL, n_samples=128, capacity=10_240),
    "log-variance": partial(replaying, kind=LogVariance),
    "log-variance-256": partial(replaying, kind=LogVariance, n_samples=256, capacity=10_240),
    "fab": partial(bootstrap, mix=1.0),
    "fab-half": bootstrap,
}
"""Names on the command line and in the table."""
