"""How far the density that a continuous flow reports is off for a number of solver steps.

The same noise goes through the generator of a finished run with one solver after another, in
double precision. What is drawn is drawn by the map that the solver makes of the equation, in finite
steps: its density is by the Jacobian of that very map, and the error of log q is against it. An
error e multiplies a weight by exp(-e), and what is left of the effective sample size is that of
these factors. The last column is how far samples move from those of tight adaptive steps, in
scales.
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

SOLVERS: dict[str, Solver | None] = {
    "as trained": None,
    "euler, 32": FixedSteps(32, "euler"),
    "midpoint, 16": FixedSteps(16, "midpoint"),
    "rk4, 2": FixedSteps(2),
    "rk4, 4": FixedSteps(4),
    "rk4, 8": FixedSteps(8),
    "rk4, 16": FixedSteps(16),
    "dopri5, 1e-4": AdaptiveSteps(rtol=1e-4, atol=1e-4),
    "dopri5, 1e-6": AdaptiveSteps(rtol=1e-6, atol=1e-6),
}
EXACT = AdaptiveSteps(rtol=1e-9, atol=1e-9)


def with_solver(model: CoarseGrainedModel, solver: Solver | None) -> CoarseGrainedModel:
    """A copy of a model whose continuous flows take their steps as `solver` says."""
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, ContinuousFlow) and solver is not None:
            module.solver = solver
    return model


def drawn(model: CoarseGrainedModel, n: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Samples of one noise, the log-density reported, and that of the map that drew them."""
    torch.manual_seed(seed)
    q = model.decoder(model.rows(n))
    eps = q.base.rsample().requires_grad_()
    y, log_det = q.flow(eps, q.context)
    rows = [
        torch.autograd.grad(column.sum(), eps, retain_graph=True)[0] for column in y.unbind(dim=1)
    ]
    jacobian = torch.stack(rows, dim=1)
    log_base = q.base.log_prob(eps).detach()
    return y.detach(), log_base - log_det.detach(), log_base - torch.linalg.slogdet(jacobian)[1]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a run with --decoder flow-matching")
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    folder = RunFolder.open(given.run)
    system = folder.system()
    model = trained(system, folder).model.double()
    print("| solver | rms error of log q | mean | ESS it leaves | rms move of a sample |")
    print("|---|---|---|---|---|")
    exact, _, _ = drawn(with_solver(model, EXACT), given.samples, given.seed)
    for name, solver in SOLVERS.items():
        y, reported, true = drawn(with_solver(model, solver), given.samples, given.seed)
        error = reported - true
        move = torch.where(system.coordinates.periodic, 2 * torch.sin((y - exact) / 2), y - exact)
        move = (move / system.coordinates.scale.to(move)).square().mean().sqrt()
        print(
            f"| {name} | {error.square().mean().sqrt():.1e} | {error.mean():+.1e} "
            f"| {effective_sample_size(-error):.6f} | {move:.1e} |"
        )


if __name__ == "__main__":
    main()
