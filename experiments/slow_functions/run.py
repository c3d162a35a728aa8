"""Slow functions of toys against exact ones by finite differences, three seeds."""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from scipy.stats import spearmanr

import gencg
from experiments.expectations import misses, table
from experiments.slow_functions.worth import BOXES
from gencg.analysis import ExactSlowFunctions
from gencg.discover import find_slow_cvs
from gencg.systems import load

TOYS = ("double-well", "mueller-brown", "curved-wells")


def compare(name: str, *, seed: int, n_samples: int, out: Path) -> dict[str, Any]:
    """Train a generator, find its slow CVs, and compare the slowest function with the exact one.

    ``eigenvalue_ratio`` is that of the learned eigenvalue on all covering samples to the exact one,
    with its error by bootstrap; ``held_out_ratio`` is the same on a quarter of them, and twice as
    uncertain. ``cv_rank_correlation`` is Spearman's of the first CV itself and the exact function.
    """
    began = time.monotonic()
    system = load(name)
    result = gencg.fit(system, seed=seed, checkpoint=out / f"{name}-{seed}.pt")
    exact = ExactSlowFunctions(system.energy, result.target.beta, *BOXES[name])
    slow = find_slow_cvs(result, n_samples=n_samples, seed=seed)
    found = slow.spectrum

    def evaluate(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.no_grad():
            xi, _ = slow.map(x.float())
            return xi[:, 0], slow.functions.of_cvs(xi)[:, 0]

    cell = torch.multinomial(
        exact.weights, 20_000, replacement=True, generator=torch.Generator().manual_seed(0)
    )
    xi, g = evaluate(exact.points)
    return {
        "folder": f"{name}-{seed}",
        "correlation": exact.correlation(g),
        "eigenvalue_ratio": float(found.eigenvalues[0] / exact.eigenvalues[0]),
        "eigenvalue_ratio_error": float(found.errors[0] / exact.eigenvalues[0]),
        "held_out_ratio": float(slow.eigenvalues[0] / exact.eigenvalues[0]),
        "eigenvalue": float(found.eigenvalues[0]),
        "exact_eigenvalue": float(exact.eigenvalues[0]),
        "gap": slow.gap,
        "cv_rank_correlation": abs(spearmanr(xi[cell], exact.functions[cell, 0]).statistic),
        "n_transition": float(found.n_transition[0]),
        "linear": float(slow.linear),
        "energy_calls": result.energy_calls + slow.n_energy_calls,
        "wall_seconds": time.monotonic() - began,
    }


def main() -> None:
    """Compare, print a Markdown table, and end with exit code 1 if a number misses its bar."""
    expected = json.loads((Path(__file__).parent / "expected.json").read_text())
    parser = argparse.ArgumentParser(description=expected["claim"])
    parser.add_argument("--systems", nargs="+", choices=BOXES, default=TOYS)
    parser.add_argument("--seeds", type=int, nargs="+", default=expected["seeds"])
    parser.add_argument(
        "--samples",
        type=int,
        default=200_000,
        help="covering samples, of which those on the barrier decide the error  [%(default)s]",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/slow-functions"),
        help="where checkpoints of the generators lie  [%(default)s]",
    )
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for name in given.systems:
        for seed in given.seeds:
            rows.append(compare(name, seed=seed, n_samples=given.samples, out=given.out))
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    columns = [key for key in rows[0] if key not in ("folder", "wall_seconds")]
    print(table(rows, dict.fromkeys(columns)))
    failures = [line for row in rows for line in misses(row, expected["quantities"])]
    if failures:
        sys.exit("\n".join(failures))


if __name__ == "__main__":
    main()
