"""How far the density of a continuous flow is off for a number of solver steps, and what it costs.

The same noise goes through the generator of a finished run with one solver after another, in
double precision, and is held against tight adaptive steps. An error e of log q multiplies a weight
by exp(e): what is left of the effective sample size is that of these factors.
"""

import argparse
import copy
from pathlib import Path

import torch
from torch import Tensor

from gencg.distributions.continuous_flow import ContinuousFlow
from gencg.distributions.solvers import AdaptiveSteps, FixedSteps, Solver
from gencg.importance import effective_sample_size
from gencg.models.coarse_grained import CoarseGrainedModel
from gencg.run import RunFolder, trained

SOLVERS: dict[str, Solver] = {
    "euler, 32": FixedSteps(32, "euler"),
    "midpoint, 16": FixedSteps(16, "midpoint"),
    "rk4, 2": FixedSteps(2),
    "rk4, 4": FixedSteps(4),
    "rk4, 6": FixedSteps(6),
    "rk4, 8": FixedSteps(8),
    "rk4, 16": FixedSteps(16),
    "dopri5, 1e-4": AdaptiveSteps(rtol=1e-4, atol=1e-4),
    "dopri5, 1e-6": AdaptiveSteps(rtol=1e-6, atol=1e-6),
}
EXACT = AdaptiveSteps(rtol=1e-10, atol=1e-10)


def with_solver(model: CoarseGrainedModel, solver: Solver) -> CoarseGrainedModel:
    """A copy of a model whose continuous flows take their steps as `solver` says."""
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, ContinuousFlow):
            module.solver = solver
    return model


def drawn(model: CoarseGrainedModel, n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Samples of one noise, and their log-density."""
    torch.manual_seed(seed)
    with torch.no_grad():
        _, y, log_q = model.sample(n)
    return y, log_q


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a run with --decoder flow-matching")
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    folder = RunFolder.open(given.run)
    system = folder.system()
    model = trained(system, folder).model.double()
    exact = with_solver(model, EXACT)
    print("| solver | rms error of log q at the sample | ESS it leaves | rms move of a sample |")
    print("|---|---|---|---|")
    y_exact, _ = drawn(exact, given.samples, given.seed)
    for name, solver in SOLVERS.items():
        y, log_q = drawn(with_solver(model, solver), given.samples, given.seed)
        with torch.no_grad():
            error = log_q - exact.log_prob(y[:, :0], y)
        move = torch.where(
            system.coordinates.periodic, torch.sin((y - y_exact) / 2) * 2, y - y_exact
        )
        move = (move / system.coordinates.scale.to(move)).square().mean().sqrt()
        print(
            f"| {name} | {error.square().mean().sqrt():.1e} "
            f"| {effective_sample_size(error):.6f} | {move:.1e} |"
        )


if __name__ == "__main__":
    main()
