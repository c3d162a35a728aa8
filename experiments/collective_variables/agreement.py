"""Slow CVs of several runs of one molecule: do their slow functions span the same space?

Takes the slow CVs that finished runs hold, and prints eigenvalues with errors and the canonical
correlations of the slow functions on the weighted samples of the first run.
"""

import argparse
import itertools
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gencg.checkpoint import load_checkpoint
from gencg.discover import SlowCVs, restore_slow
from gencg.export import read_samples
from gencg.objectives.dirichlet import aligned_correlation
from gencg.run import RunFolder


def canonical_correlations(f: Tensor, g: Tensor, weights: Tensor) -> Tensor:
    """Singular values between the whitened spans of f ``(n, a)`` and g ``(n, b)``, descending."""
    return torch.linalg.svdvals(
        (weights[:, None] * _white(f, weights)).T @ _white(g, weights)
    ).clamp(max=1.0)


def _white(f: Tensor, weights: Tensor, *, rotate: bool = False) -> Tensor:
    """Uncorrelated functions of variance 1; with `rotate`, as near to f as they can be."""
    f = f - (weights[:, None] * f).sum(0)
    values, vectors = torch.linalg.eigh((weights[:, None] * f).T @ f)
    white = f @ (vectors * values.rsqrt())
    return white @ vectors.T if rotate else white


def slow_of(path: Path) -> SlowCVs:
    """Slow CVs of a finished run.

    Raises:
        ValueError: If it holds none.
    """
    folder = RunFolder.open(path)
    if not folder.cvs.exists():
        raise ValueError(f"run {path} holds no slow CVs; finish it with `gencg run`")
    return restore_slow(load_checkpoint(folder.cvs)["slow"])


def compare(found: list[SlowCVs], s: Tensor, log_weights: Tensor) -> dict[str, Any]:
    """Spectra, and correlations of every pair on weighted soft coordinates.

    Args:
        found: Slow CVs of each run.
        s: Soft coordinates of samples, ``(n, k)``.
        log_weights: Their log weights, ``(n,)``.
    """
    weights = torch.softmax(log_weights.double(), 0)
    with torch.no_grad():
        values = [slow.functions(s.float()).double() for slow in found]
    pairs = list(itertools.combinations(range(len(found)), 2))
    return {
        "runs": [
            {
                "cvs": list(slow.names),
                "n_processes": slow.n_processes,
                "support": slow.support,
                "gap": slow.gap,
                "eigenvalues": slow.spectrum.eigenvalues[slow.places].tolist(),
                "errors": slow.spectrum.errors[slow.places].tolist(),
                "transition_samples": slow.spectrum.n_transition[slow.places].tolist(),
                "doubts": list(slow.doubts),
            }
            for slow in found
        ],
        "canonical_correlations": {
            f"{i}-{j}": canonical_correlations(values[i], values[j], weights).tolist()
            for i, j in pairs
        },
        "each_function": {
            f"{i}-{j}": aligned_correlation(
                _white(values[i], weights, rotate=True).T
                @ (weights[:, None] * _white(values[j], weights, rotate=True)),
                found[i].eigenvalues,
            ).tolist()
            for i, j in pairs
        },
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="finished run folders")
    given = parser.parse_args()
    ensemble = read_samples(given.runs[0])
    soft = RunFolder.open(given.runs[0]).system().coordinates.soft
    found = [slow_of(run) for run in given.runs]
    print(json.dumps(compare(found, ensemble.y[:, soft], ensemble.log_weights), indent=2))
