"""The double well of 2020, its way and gencg's: what the paper draws, and the exact answers beside.

Densities are on a grid, with the latent variable of 2020 integrated out, so that both divergences
and the mass of the right well are exact for the model of that moment, not estimates from samples.
"""

import argparse
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import gencg
from experiments.baselines import gaussian_decoder
from experiments.baselines.gaussian_decoder import HOT, OPTIMISATION
from experiments.double_well.figures import draw_all
from experiments.record import Result, measure
from experiments.slow_functions.worth import kept_by
from gencg.discover import find_slow_cvs
from gencg.energies.toy import DoubleWell
from gencg.fit import FitResult
from gencg.models.build import build_model
from gencg.models.coarse_grained import CoarseGrainedModel
from gencg.objectives.bound_gap import bound_gap
from gencg.systems import load
from gencg.tempering import GeometricLadder, KLTempering
from gencg.training import StepInfo

METHODS = ("gaussian decoder", "gencg")
N_SNAPSHOTS = 24
HERE = Path(__file__).parent


class Grid:
    """Points of the plane that hold the double well at every temperature of the ladder."""

    def __init__(self) -> None:
        self.x1 = torch.linspace(-8, 8, 241, dtype=torch.float64)
        self.x2 = torch.linspace(-20, 20, 121, dtype=torch.float64)
        self.cell = float((self.x1[1] - self.x1[0]) * (self.x2[1] - self.x2[0]))
        self.x = torch.cartesian_prod(self.x1, self.x2)
        energy = DoubleWell()
        self.energy = energy.energy(self.x)
        self.right = self.x[:, 0] >= energy.barrier

    def log_target(self, beta: float) -> Tensor:
        """Log of the normalised Boltzmann density, ``(n,)``."""
        u = -beta * self.energy
        return u - torch.logsumexp(u, 0) - math.log(self.cell)

    def log_density(self, model: CoarseGrainedModel) -> Tensor:
        r"""Log-density of a generator's x, :math:`\log \int q(x|z)\, q(z)\, dz`, ``(n,)``."""
        with torch.no_grad():
            if model.n_cvs == 0:
                q = model.decoder(model.rows(len(self.x)))
                return q.log_prob(self.x.to(model.rows(0))).double()  # type: ignore[no-any-return]
            # A diagonal Gaussian is a product: one sum over z for all points of the grid
            z = torch.linspace(-6, 6, 1601, dtype=torch.float64)
            q = model.decoder(z[:, None].to(model.rows(0))).base_dist
            loc, scale = q.loc.double(), q.scale.double()
            along = [
                torch.distributions.Normal(loc[:, [k]], scale[:, [k]]).log_prob(x).exp()
                for k, x in enumerate((self.x1, self.x2))
            ]
            prior = torch.exp(-0.5 * z**2) / math.sqrt(2 * math.pi) * (z[1] - z[0])
            return ((prior[:, None] * along[0]).T @ along[1]).flatten().clamp_min(1e-300).log()


class Watcher:
    """Looks at a model while it trains.

    Args:
        model: The model that moves.
        grid: Where it is looked at.
    """

    def __init__(self, model: CoarseGrainedModel, grid: Grid) -> None:
        self.model, self.grid = model, grid
        self.curves: dict[str, list[Any]] = {
            name: [] for name in ("beta", "calls", "reverse", "forward", "right", "right_exact")
        }
        self.densities: list[dict[str, Any]] = []
        self.seconds = 0.0

    def __call__(self, info: StepInfo) -> None:
        every = max(info.n_steps // N_SNAPSHOTS, 1)
        if info.step != 1 and info.step % every and info.step != info.n_steps:
            return
        began = time.process_time()
        with torch.random.fork_rng():
            self._look(info, densities=(info.step // every) % 3 == 0)
        self.seconds += time.process_time() - began

    def _look(self, info: StepInfo, *, densities: bool) -> None:
        log_q, log_p = self.grid.log_density(self.model), self.grid.log_target(info.beta)
        q, p = (log.exp() * self.grid.cell for log in (log_q, log_p))
        found = {
            "beta": info.beta,
            "calls": info.energy_calls,
            "reverse": float((q * (log_q - log_p)).sum()),
            "forward": float((p * (log_p - log_q)).sum()),
            "right": float(q[self.grid.right].sum()),
            "right_exact": float(p[self.grid.right].sum()),
        }
        for name, value in found.items():
            self.curves[name].append(float(f"{value:.5g}"))
        if densities:
            shape = (len(self.grid.x1), len(self.grid.x2))
            self.densities.append(
                {
                    "beta": info.beta,
                    "model": _profile(q.reshape(shape), self.grid),
                    "exact": _profile(p.reshape(shape), self.grid),
                }
            )


def _profile(cells: Tensor, grid: Grid) -> list[float]:
    """Density of x1 at every second point."""
    width = float(grid.x1[1] - grid.x1[0])
    return [float(f"{v:.3g}") for v in (cells.sum(1) / width)[::2].tolist()]


def run_2020(calls: float, seed: int, grid: Grid) -> tuple[FitResult, Watcher, dict[str, Any]]:
    """One stage: one Gaussian latent variable, Gaussian decoder, ladder by the KL divergence."""
    system = load("double-well")
    model = gaussian_decoder.build(system, n_cvs=1, seed=seed)
    watcher = Watcher(model, grid)
    result = gencg.fit(
        system,
        energy_calls=calls,
        batch_size=256,
        model=model,
        tempering=KLTempering(start=HOT["toy"], deadline=0.7),
        optimisation=OPTIMISATION["toy"],
        estimator="plain",
        reporters=[watcher],
        seed=seed,
    )
    x = torch.stack([grid.x1, torch.zeros_like(grid.x1)], -1).float()
    z = torch.linspace(-4, 4, 161)[:, None]
    with torch.no_grad():
        latent = result.model.encoder(x).mean[:, 0]
        q = result.model.decoder(z).base_dist
    about = {
        "latent": _rounded(latent),
        "z": _rounded(z[:, 0]),
        "x1_of_z": _rounded(q.loc[:, 0]),
        "width_of_z": _rounded(q.scale[:, 0]),
        "bound_gap": bound_gap(result.model, seed=seed).upper,
        "cvs": result.model.encode,
        "search_calls": 0,
    }
    return result, watcher, about


def run_gencg(calls: float, seed: int, grid: Grid) -> tuple[FitResult, Watcher, dict[str, Any]]:
    """Two stages: a spline flow by the default training, its slow CV by a tenth of the calls."""
    system, n_search = load("double-well"), int(0.1 * calls)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build_model(system.coordinates)
    watcher = Watcher(model, grid)
    result = gencg.fit(
        system,
        energy_calls=calls - n_search,
        batch_size=256,
        model=model,
        tempering=GeometricLadder(start=HOT["toy"]),
        reporters=[watcher],
        seed=seed,
    )
    slow = find_slow_cvs(result, n_cvs=1, n_samples=n_search, bend=False, seed=seed)
    x = torch.stack([grid.x1, torch.zeros_like(grid.x1)], -1).float()
    with torch.no_grad():
        xi, _ = slow.map(x)
        g = slow.functions.of_cvs(xi)[:, 0]
    about = {
        "latent": _rounded(xi[:, 0]),
        "slow_function": _rounded(g),
        "bound_gap": 0.0,
        "cvs": lambda x: slow.map(x.float())[0].detach(),
        "search_calls": slow.n_energy_calls,
    }
    return result, watcher, about


RUNS = dict(zip(METHODS, (run_2020, run_gencg), strict=True))


def one(method: str, *, calls: float, seed: int, grid: Grid) -> tuple[Result, dict[str, Any]]:
    """The result of one seed, and its curves."""
    began = time.process_time()
    result, watcher, about = RUNS[method](calls, seed, grid)
    seconds = time.process_time() - began - watcher.seconds
    ensemble = gencg.draw(result.model, result.target, 50_000, seed=1_000_000 + seed)
    measures: dict[str, Any] = dict(measure(result.system, ensemble))
    measures["bound_gap"] = about.pop("bound_gap")
    measures["kept"] = kept_by(result.system, about.pop("cvs"))
    for name in ("reverse", "forward"):
        measures[f"{name}_kl"] = watcher.curves[name][-1]
    found = Result(
        method=method,
        system="double-well",
        temperature=result.target.temperature,
        seed=seed,
        command=f"python -m experiments.double_well.paper --calls {calls:g} --seeds {seed}",
        energy_calls=result.energy_calls + about.pop("search_calls"),
        seconds=seconds,
        measures=measures,
        settings={"calls": calls},
        full=True,
    )
    return found, {"curves": watcher.curves, "densities": watcher.densities, **about}


def _rounded(values: Tensor | NDArray[np.float64]) -> list[float]:
    return [float(f"{v:.4g}") for v in values.tolist()]


def main() -> None:
    """Run what is not there yet, write results, curves and figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--calls", type=float, default=2e5, help="energy calls  [%(default)g]")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="[%(default)s]")
    figures = HERE.parents[1] / "docs/figures"
    parser.add_argument("--figures", type=Path, default=figures, help="[%(default)s]")
    given = parser.parse_args()
    torch.set_num_threads(1)
    grid, curves = Grid(), {}
    for seed in given.seeds:
        for method in METHODS:
            name = f"{method.replace(' ', '-')}-{given.calls:g}-{seed}.json"
            path = given.out / "curves" / name
            if not path.exists():
                result, found = one(method, calls=given.calls, seed=seed, grid=grid)
                print(result.write(given.out), json.dumps(result.measures), file=sys.stderr)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(found) + "\n")
            curves[method, seed] = json.loads(path.read_text())
    draw_all(curves, grid.x1.numpy(), given.figures)


if __name__ == "__main__":
    main()
