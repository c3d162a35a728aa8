"""Temperature-annealed training (Schopmans, Friederich 2025) of gencg's own spline decoder.

Reverse KL hot, where no mode is lost, then down a ladder of temperatures: samples of the present
generator, weighted for the next temperature, are learned by forward KL. The decoder and the
coordinates are those of the default, so that only the training differs.
"""

import copy
import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

import gencg
from gencg.fit import FitResult, as_result
from gencg.importance import effective_sample_size, truncated
from gencg.models.coarse_grained import CoarseGrainedModel
from gencg.systems import System
from gencg.target import BoltzmannTarget
from gencg.tempering import NoTempering
from gencg.units import inverse_temperature

HOT_FACTOR = 4.0
"""Start of the ladder over the target temperature: 1200 K for 300 K."""


@dataclass(frozen=True)
class Annealing:
    """How the samples of one temperature become a generator of the next.

    Args:
        hot_share: Share of the energy calls that the hot reverse KL gets.
        n_rungs: Steps of the geometric ladder; the last temperature is learned twice, the second
            time from samples drawn there.
        n_passes: How often the samples of a temperature are learned from. Few: of samples drawn by
            weight a generator soon learns the samples themselves. At 1e5 calls of the dipeptide,
            seed 0, the last effective sample size was 0.158 with 3.6 passes at a rate of 1e-4,
            0.144 with 1.5 at 3e-4, 0.0008 with 1.5 at 1e-3 and 0.0001 with 7 at 3e-4.
        batch_size: Samples per step.
        learning_rate: Of Adam, falling to zero along a cosine at each temperature; None takes 1e-4
            for a molecule and 1e-3 for a toy.
    """

    hot_share: float = 0.7
    n_rungs: int = 6
    n_passes: float = 3.6
    batch_size: int = 256
    learning_rate: float | None = None


def train(
    system: System,
    *,
    calls: float,
    seed: int,
    temperature: float | None = None,
    annealing: Annealing | None = None,
) -> FitResult:
    """Train hot, then cool.

    Args:
        system: What to sample.
        calls: Energy calls, of which the ladder gets what the hot training leaves.
        seed: Decides everything random.
        temperature: In K; the system's own by default.
        annealing: How it is cooled.
    """
    annealing = annealing or Annealing()
    if annealing.learning_rate is None:
        rate = 1e-4 if system.molecule is not None else 1e-3
        annealing = replace(annealing, learning_rate=rate)
    cold = temperature or system.temperature
    start = HOT_FACTOR * cold if system.molecule is not None else 16.0 * cold
    hot = gencg.fit(
        system,
        temperature=start,
        energy_calls=annealing.hot_share * calls,
        batch_size=256,
        tempering=NoTempering(),
        estimator="plain",
        seed=seed,
    )
    target = BoltzmannTarget(system.energy, system.coordinates, cold)
    model = copy.deepcopy(hot.model).train()
    ladder = np.geomspace(start, cold, annealing.n_rungs + 1)[1:].tolist()
    n_each = int((1 - annealing.hot_share) * calls) // (len(ladder) + 1)
    torch.manual_seed(seed + 1)
    for t in [*ladder, cold]:
        y, log_weights = weighted_samples(model, target, n_each, beta=inverse_temperature(t))
        forward_kl(model, y, log_weights, annealing)
    result = as_result(system, model, target=target, seed=seed)
    result.state.energy_calls = hot.energy_calls + n_each * (len(ladder) + 1)
    return result


def weighted_samples(
    model: CoarseGrainedModel, target: BoltzmannTarget, n: int, *, beta: float
) -> tuple[Tensor, Tensor]:
    r"""Samples of the generator and :math:`\log \tilde p_\beta(y) / q(y)`, -inf where not finite.

    Args:
        model: Generator without collective variables.
        target: Gives energy and volume.
        n: Samples, one energy call each.
        beta: Inverse temperature in mol/kJ.
    """
    parts = []
    with torch.no_grad():
        for begin in range(0, n, 2000):
            _, y, log_q = model.sample(min(2000, n - begin))
            energy, log_det = target.energy_and_log_det(y)
            log_w = (log_det - beta * energy - log_q).double()
            parts.append((y, torch.where(torch.isfinite(log_w), log_w, -math.inf)))
    y, log_weights = (torch.cat(part) for part in zip(*parts, strict=True))
    return y, log_weights


def forward_kl(
    model: CoarseGrainedModel, y: Tensor, log_weights: Tensor, annealing: Annealing
) -> float:
    r"""Minimise :math:`-\sum_i \tilde w_i \log q_\theta(y_i)` on batches drawn by weight.

    Weights above :math:`\sqrt n` times their mean are cut there.

    Args:
        model: Generator, trained in place.
        y: Samples, ``(n, dim)``.
        log_weights: Their log weights, ``(n,)``.
        annealing: Steps, batch and rate.

    Returns:
        The effective sample size of the weights, as a share.
    """
    share = truncated(log_weights)
    rate = annealing.learning_rate or 1e-4
    n_steps = math.ceil(annealing.n_passes * len(y) / annealing.batch_size)
    optimiser = torch.optim.Adam(model.parameters(), lr=rate, fused=True)
    for step in range(n_steps):
        for group in optimiser.param_groups:
            group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * step / n_steps))
        index = torch.multinomial(share, annealing.batch_size, replacement=True)
        decoder = model.decoder(model.rows(annealing.batch_size))
        loss = -decoder.log_prob(y[index]).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        if torch.isfinite(norm):
            optimiser.step()
    return float(effective_sample_size(log_weights))
