"""What forces are worth to flow matching: the dipeptide's stiff block, with and without.

The samples are those of the generator that comes with gencg, by their weights, so that nothing but
the loss differs. The same velocity is matched to them for the same number of steps; the figure is
the effective sample size of the stiff coordinates at fixed soft ones that were held out, against
the force field.
"""

import argparse
import math

import torch
from torch import Tensor

import gencg
from gencg.distributions.continuous_flow import ContinuousFlow
from gencg.importance import effective_sample_size, truncated
from gencg.models.build import flow_matching_model
from gencg.models.continuous import draw_stiff
from gencg.models.two_block import StiffBlock
from gencg.objectives.matching import Spread, matching_losses
from gencg.objectives.own_samples import OwnSamples, ask_energy, joined
from gencg.optimisers import MuonAdam
from gencg.target import BoltzmannTarget

N_SOFT, N_STIFF = 250, 48
"""Soft coordinates judged, and draws of the stiff ones for each."""


def matched(
    target: BoltzmannTarget, samples: OwnSamples, *, forces: bool, n_steps: int, n: int, seed: int
) -> tuple[StiffBlock, float]:
    """A stiff block matched to samples, and its loss over the last steps."""
    torch.manual_seed(seed)
    stiff = flow_matching_model(target.coordinates).decoder.flow.stiff
    (layer,) = stiff.chain.layers
    assert isinstance(layer, ContinuousFlow)
    slopes = samples.log_target_slope(target.beta)[:, stiff.space.stiff_index] * stiff.scale
    share = truncated(samples.log_weights(target.beta))
    spread = Spread.of_slopes(slopes, share)
    optimiser, last = MuonAdam(stiff, lr=1e-2), []
    for step in range(n_steps):
        rate = 1e-2 * min(1, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * step / n_steps))
        for group in optimiser.param_groups:
            group["lr"] = rate
        rows = torch.multinomial(share, n, replacement=True)
        y = samples.y[rows]
        x1 = (y[:, stiff.space.stiff_index] - stiff.centre) / stiff.scale
        more = {"slopes": slopes[rows], "spread": spread} if forces else {}
        context = stiff.space.features(y[:, stiff.space.soft_index])
        loss = matching_losses(layer, x1, context, **more).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(stiff.parameters(), 10.0)
        optimiser.step()
        last = [*last[-49:], float(loss.detach())]
    return stiff, sum(last) / len(last)


@torch.no_grad()
def sample_sizes(target: BoltzmannTarget, stiff: StiffBlock, s: Tensor) -> Tensor:
    """Effective sample size of the stiff coordinates at each soft one, ``(n,)``."""
    found = []
    for rows in s.split(50):
        many = rows.repeat_interleave(N_STIFF, 0)
        y, log_q, _ = draw_stiff(stiff, torch.randn(len(many), stiff.space.n_stiff), many)
        log_weights = target.log_density(y) - log_q
        found += [effective_sample_size(w.double()) for w in log_weights.view(-1, N_STIFF)]
    return torch.stack(found)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--batch", type=int, default=2048)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    given = parser.parse_args()
    system = gencg.systems.alanine_dipeptide()
    target = BoltzmannTarget(system.energy, system.coordinates, system.temperature)
    generator = gencg.pretrained.load("alanine-dipeptide").model
    torch.manual_seed(100)
    with torch.no_grad():
        parts = [generator.sample(4000)[1:] for _ in range(25)]
        held_out = generator.sample(N_SOFT)[1]
    samples = joined([ask_energy(target, y, log_q) for y, log_q in parts])
    samples = samples[samples.finite]
    print("| seed | forces | loss | ESS of the stiff coordinates | lowest twentieth |")
    print("|---|---|---|---|---|")
    for seed in given.seeds:
        for forces in (False, True):
            stiff, loss = matched(
                target, samples, forces=forces, n_steps=given.steps, n=given.batch, seed=seed
            )
            s = held_out[:, stiff.space.soft_index]
            sizes = sample_sizes(target, stiff, s)
            print(
                f"| {seed} | {'yes' if forces else 'no'} | {loss:.2f} | {sizes.mean():.3f} | "
                f"{sizes.quantile(0.05):.3f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
