"""What straight collective variables miss on toys in the plane, and those that gencg finds keep.

Whoever found them, variables are worth the slowest of their functions, and on a grid that is exact
(`ExactSlowFunctions.best_of`). Here every straight direction is tried, so that no linear method can
do better than the row "best straight line".
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import gencg
from experiments.expectations import misses, table
from experiments.record import Result, measure
from experiments.slow_functions.line_figures import draw, painted
from experiments.slow_functions.worth import PROCESSES, exact_of, time_kept
from gencg.analysis import ExactSlowFunctions
from gencg.discover import find_slow_cvs
from gencg.fit import FitResult
from gencg.systems import System, load

N_ANGLES = 90
"""Straight directions tried, 2 degrees apart."""


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
    """Train a generator, find its CVs, and hold them against every straight line.

    Args:
        system: A toy of `worth.BOXES`.
        calls: Energy calls for training and search.
        seed: Decides everything random.
        n_search: Of these for the search, which chooses the number of CVs.
        n_grid: Points of the grid along each side.

    Returns:
        The result, and what `line_figures.draw` needs.
    """
    began = time.process_time()
    result = gencg.fit(system, energy_calls=calls - n_search, batch_size=256, seed=seed)
    m = PROCESSES[system.name]
    slow = find_slow_cvs(result, n_samples=n_search, seed=seed)
    seconds = time.process_time() - began
    exact = exact_of(system, n=n_grid)
    angles, lines = straight_lines(exact, m)
    kept = [time_kept(values, exact.eigenvalues[:m]) for values in lines]
    measures: dict[str, Any] = dict(measure(system, _draw(result, seed)))
    measures["exact"] = exact.eigenvalues[:m].tolist()
    measures["straight"] = lines[int(np.argmax(kept))].tolist()
    measures["straight_kept"], measures["straight_angle"] = max(kept), angles[int(np.argmax(kept))]
    with torch.no_grad():
        xi = slow.map(exact.points.float())[0].double()
    values = exact.best_of(xi, n_functions=m)
    measures["n_cvs"], measures["linear"] = slow.n_cvs, bool(slow.linear)
    measures["found"], measures["kept"] = values.tolist(), time_kept(values, exact.eigenvalues[:m])
    # Functions of x, so that no encoder costs anything
    measures["bound_gap"] = 0.0
    grid, likely = painted(system)
    with torch.no_grad():
        at = slow.map(grid.points[likely].float())[0]
    shown = {
        "angles": angles.tolist(),
        "kept": _rounded(kept),
        "ours": measures["kept"],
        "cvs": [_rounded(column) for column in at.T.tolist()],
    }
    record = Result(
        method="gencg",
        system=system.name,
        temperature=system.temperature,
        seed=seed,
        command=(
            f"python -m experiments.{FOLDERS[system.name]}.run --calls {calls:g} --seeds {seed}"
        ),
        energy_calls=result.energy_calls + slow.n_energy_calls,
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


def _rounded(values: Sequence[float]) -> list[float]:
    return [float(f"{value:.4g}") for value in values]


def _draw(result: FitResult, seed: int) -> gencg.Ensemble:
    return gencg.draw(result.model, result.target, 50_000, seed=1_000_000 + seed)


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
        "--search", type=int, default=20_000, help="of them for the search  [%(default)s]"
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
            picture = given.out / "maps" / path.name
            first = seed == given.seeds[0]
            if path.exists() and (picture.exists() or not first):
                result = Result.read(path)
            else:
                result, shown = compare(
                    load(name), calls=given.calls, seed=seed, n_search=given.search
                )
                if first:
                    picture.parent.mkdir(parents=True, exist_ok=True)
                    picture.write_text(json.dumps(shown) + "\n")
                result.write(given.out)
            if first:
                shown = json.loads(picture.read_text())
                draw(load(name), shown, given.figures / f"{name}.png")
            row = result.measures | {"energy_calls": result.energy_calls}
            rows.append({"folder": f"{name}-{seed}", "wall_seconds": result.seconds, **row})
            print(json.dumps(result.measures), file=sys.stderr, flush=True)
    columns = ("ess", "log_z", "straight_kept", "n_cvs", "kept", "energy_calls")
    print(table(rows, dict.fromkeys(columns)))
    failures = [line for row in rows for line in misses(row, expected["quantities"])]
    if failures:
        sys.exit("\n".join(failures))
