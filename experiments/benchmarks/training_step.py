"""Where the time of a training step goes: energy, placement, flow, optimiser.

CPU seconds of the calling process, one thread, the least of several repeats; the shares are of one
run on one machine. "with inverse" is the path-gradient estimator by a pass through the inverse of
the flow, which `Scored` flows do without; "step, float32" a step without rounded matrix products,
"step, torch maps" one without the machine code of the couplings as well. These steps are of reverse
KL with Adam; "step, default" is one of the default objective and optimiser.
"""

import argparse
import copy
import time
from collections.abc import Callable
from unittest.mock import patch

import torch

from gencg.distributions import couplings
from gencg.distributions.networks import products_in
from gencg.models.build import build_model
from gencg.objectives.build import build_objective
from gencg.objectives.reverse_kl import ReverseKL
from gencg.systems import SYSTEMS, load
from gencg.target import BoltzmannTarget
from gencg.training import Optimisation


def cpu_seconds(function: Callable[[], object], *, repeats: int = 5, calls: int = 5) -> float:
    """Least CPU time of one call over `repeats` groups of `calls`, after one to warm up."""
    function()
    best = float("inf")
    for _ in range(repeats):
        began = time.process_time()
        for _ in range(calls):
            function()
        best = min(best, (time.process_time() - began) / calls)
    return best


def measure(name: str, batch_size: int) -> dict[str, float]:
    """CPU seconds of each part of a step, and of the whole."""
    system = load(name)
    target = BoltzmannTarget(system.energy, system.coordinates, system.temperature)
    torch.manual_seed(0)
    model = build_model(system.coordinates)
    frozen = copy.deepcopy(model).requires_grad_(False)
    objective = ReverseKL(target, n_samples=batch_size)
    optimiser = torch.optim.Adam(model.parameters(), lr=Optimisation().learning_rate, fused=True)
    default = build_objective("covering", model, target, n_samples=batch_size, n_steps=1000)
    default_optimiser = Optimisation().build(model)
    rows = model.rows(batch_size)
    y0 = model.decoder(rows).rsample().detach()
    x0 = target.coordinates.inverse(y0)[0].detach()

    def draw() -> None:
        y, score, _ = model.decoder(rows).rsample_with_score()
        (y * score).sum().backward()

    def draw_with_inverse() -> None:
        y = model.decoder(rows).rsample()
        frozen.decoder(rows).log_prob(y).sum().backward()

    def place() -> None:
        x, log_det = target.coordinates.inverse(y0.clone().requires_grad_())
        (x.sum() + log_det.sum()).backward()

    def energy() -> None:
        target.energy(x0.clone().requires_grad_()).sum().backward()

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        objective.evaluate(model, target.beta).loss.backward()
        optimiser.step()

    def default_step() -> None:
        default_optimiser.zero_grad(set_to_none=True)
        default.evaluate(model, target.beta).loss.backward()
        default_optimiser.step()

    step()
    parts = {
        "flow": draw,
        "flow with inverse": draw_with_inverse,
        "placement": place,
        "energy": energy,
        "optimiser": optimiser.step,
        "step": step,
        "step, default": default_step,
    }
    with products_in(Optimisation().products(next(model.parameters()))):
        seconds = {part: cpu_seconds(function) for part, function in parts.items()}
    seconds["step, float32"] = cpu_seconds(step)
    with patch.object(couplings, "has_machine_code", lambda x: False):
        seconds["step, torch maps"] = cpu_seconds(step)
    return seconds


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    molecules = [name for name in SYSTEMS if name.startswith("alanine")]
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=molecules)
    parser.add_argument("--batch-size", type=int, default=512)
    given = parser.parse_args()
    torch.set_num_threads(1)
    print("| system | part | ms per step | share |\n|---|---|---|---|")
    for name in given.systems:
        seconds = measure(name, given.batch_size)
        for part, value in seconds.items():
            share = f"{100 * value / seconds['step']:.0f} %"
            print(f"| {name} | {part} | {1e3 * value:.1f} | {share} |")
