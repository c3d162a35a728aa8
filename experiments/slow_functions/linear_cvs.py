"""What linear collective variables miss on toys in the plane, against those that gencg finds.

Whoever found them, variables are worth the slowest of their functions, and on a grid that is exact
(`ExactSlowFunctions.best_of`). Here every straight direction is tried, so that no linear method can
do better than the row "best straight line".
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
from experiments.expectations import misses, table
from experiments.record import Result, measure
from gencg.analysis import ExactSlowFunctions
from gencg.discover import find_slow_cvs
from gencg.fit import FitResult
from gencg.plots.style import ACCENT, EXACT, RAW, REWEIGHTED, new_figure, style
from gencg.systems import System, load
from gencg.units import inverse_temperature

BOXES = {
    "mueller-brown": ((-1.9, -0.9), (1.5, 2.5)),
    "curved-wells": ((-2.4, -2.5), (6.5, 2.5)),
    "gaussian-mixture": ((-4.6, -4.6), (4.6, 4.6)),
}
"""Where the toys live: corners of the box of finite differences."""
PROCESSES = {"mueller-brown": 1, "curved-wells": 1, "gaussian-mixture": 3}
"""How many slow functions are compared."""
N_ANGLES = 90
"""Straight directions tried, 2 degrees apart."""


def time_kept(found: Tensor, exact: Tensor) -> float:
    r"""Share of the slow times that is kept, :math:`\sum_k 1/\lambda_k` over its exact value."""
    return float((1 / found).sum() / (1 / exact).sum())


def straight_lines(exact: ExactSlowFunctions, m: int) -> tuple[NDArray[np.float64], list[Tensor]]:
    """Angles in degrees and the m lowest eigenvalues among functions of each straight direction."""
    angles = np.arange(N_ANGLES) * 180 / N_ANGLES
    found = []
    for angle in np.radians(angles):
        along = exact.points @ exact.points.new_tensor([math.cos(angle), math.sin(angle)])
        found.append(exact.best_of(along[:, None], n_functions=m))
    return angles, found


def compare(
    system: System, *, calls: float, seed: int, n_search: int, n_grid: int = 160
) -> tuple[Result, dict[str, Any]]:
    """Train a generator, find its CV, and hold it against every straight line.

    Args:
        system: A toy of `BOXES`.
        calls: Energy calls for training and two searches, of one CV and of two.
        seed: Decides everything random.
        n_search: Of these for each search.
        n_grid: Points of the grid along each side.

    Returns:
        The result, and what the figure needs.
    """
    began = time.process_time()
    result = gencg.fit(system, energy_calls=calls - 2 * n_search, batch_size=256, seed=seed)
    m = PROCESSES[system.name]
    # Two straight variables are the whole plane already
    slow = {
        n: find_slow_cvs(result, n_cvs=n, n_samples=n_search, bend=n == 1, seed=seed)
        for n in (1, 2)
    }
    seconds = time.process_time() - began
    beta = inverse_temperature(system.temperature)
    exact = ExactSlowFunctions(
        system.energy, beta, *BOXES[system.name], n=n_grid, n_functions=max(m, 3)
    )
    angles, lines = straight_lines(exact, m)
    kept = [time_kept(values, exact.eigenvalues[:m]) for values in lines]
    measures: dict[str, Any] = dict(measure(system, _draw(result, seed)))
    measures["exact"] = exact.eigenvalues[:m].tolist()
    measures["straight"] = lines[int(np.argmax(kept))].tolist()
    measures["straight_kept"], measures["straight_angle"] = max(kept), angles[int(np.argmax(kept))]
    shown: dict[str, Any] = {"angles": angles.tolist(), "kept": kept, "exact": exact}
    for n, found in slow.items():
        with torch.no_grad():
            xi, _ = found.map(exact.points.float())
        values = exact.best_of(xi.double(), n_functions=m)
        name = "one" if n == 1 else "two"
        measures[name], measures[f"{name}_kept"] = (
            values.tolist(),
            time_kept(values, exact.eigenvalues[:m]),
        )
        if n == 1:
            measures["linear"] = bool(found.linear)
            shown["xi"] = xi[:, 0].double()
    record = Result(
        method="gencg",
        system=system.name,
        temperature=system.temperature,
        seed=seed,
        command=(
            f"python -m experiments.{FOLDERS[system.name]}.run --calls {calls:g} --seeds {seed}"
        ),
        energy_calls=result.energy_calls + sum(s.n_energy_calls for s in slow.values()),
        seconds=seconds,
        measures=measures,
        settings={"calls": calls, "n_search": n_search},
        full=True,
    )
    return record, shown


FOLDERS = {
    "mueller-brown": "mueller_brown",
    "curved-wells": "mueller_brown",
    "gaussian-mixture": "mixture",
}


def _draw(result: FitResult, seed: int) -> gencg.Ensemble:
    return gencg.draw(result.model, result.target, 50_000, seed=1_000_000 + seed)


def draw_figure(shown: dict[str, Any], measures: dict[str, Any], path: Path, *, name: str) -> None:
    """Level lines of the best straight variable, of ours and of the exact slow function."""
    exact: ExactSlowFunctions = shown["exact"]
    angle = math.radians(measures["straight_angle"])
    line = exact.points @ exact.points.new_tensor([math.cos(angle), math.sin(angle)])
    with style():
        figure, axes = new_figure(4, width=3.9, height=3.6)
        columns = [
            (f"best straight line, keeps {measures['straight_kept']:.3f}", line),
            (f"gencg, one CV, keeps {measures['one_kept']:.3f}", shown["xi"]),
            ("exact slowest function", exact.functions[:, 0]),
        ]
        likely = exact.weights > 1e-7 * exact.weights.max()
        x = exact.points[likely].numpy()
        for ax, (title, values) in zip(axes, columns, strict=False):
            v = values[likely].numpy()
            rank = np.argsort(np.argsort(v)) / len(v)
            dots = ax.scatter(*x.T, c=rank, s=3, cmap="viridis", rasterized=True)
            ax.set_xlabel("$x_1$")
            ax.set_ylabel("$x_2$")
            ax.set_title(title)
        figure.colorbar(dots, ax=axes[2], label="rank of the value")
        ax = axes[3]
        ax.plot(shown["angles"], shown["kept"], color=RAW, label="straight lines")
        ax.axhline(measures["one_kept"], color=ACCENT, label="gencg, one CV")
        if PROCESSES[name] > 1:
            ax.axhline(measures["two_kept"], color=REWEIGHTED, label="gencg, two CVs")
        ax.axhline(1.0, color=EXACT, ls="--", label="exact")
        ax.set_xlabel("direction (deg)")
        ax.set_ylabel("share of the slow times kept")
        ax.set_title(name)
        ax.legend(fontsize=8, loc="best")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=80)


def main(folder: Path, systems: tuple[str, ...]) -> None:
    """Compare every seed, print a table, write results and figures, judge by expected.json.

    Args:
        folder: Of the experiment.
        systems: Toys of it.
    """
    expected = json.loads((folder / "expected.json").read_text())
    parser = argparse.ArgumentParser(description=expected["claim"])
    parser.add_argument("--seeds", type=int, nargs="+", default=expected["seeds"])
    parser.add_argument("--calls", type=float, default=3e5, help="in all  [%(default)g]")
    parser.add_argument(
        "--search", type=int, default=15_000, help="of them for each search  [%(default)s]"
    )
    parser.add_argument("--out", type=Path, default=folder / "results", help="[%(default)s]")
    figures = folder.parents[1] / "docs/figures"
    parser.add_argument("--figures", type=Path, default=figures, help="[%(default)s]")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in systems:
        for seed in given.seeds:
            kelvin, calls = load(name).temperature, {"calls": given.calls}
            path = given.out / Result("gencg", name, kelvin, seed, "", 0, 0, {}, calls).name
            if path.exists():
                result = Result.read(path)
            else:
                result, shown = compare(
                    load(name), calls=given.calls, seed=seed, n_search=given.search
                )
                if seed == given.seeds[0]:
                    draw_figure(shown, result.measures, given.figures / f"{name}.png", name=name)
                result.write(given.out)
            row = result.measures | {"energy_calls": result.energy_calls}
            rows.append({"folder": f"{name}-{seed}", "wall_seconds": result.seconds, **row})
            print(json.dumps(result.measures), file=sys.stderr, flush=True)
    columns = ("ess", "log_z", "straight_kept", "one_kept", "two_kept", "energy_calls")
    print(table(rows, dict.fromkeys(columns)))
    failures = [line for row in rows for line in misses(row, expected["quantities"])]
    if failures:
        sys.exit("\n".join(failures))
