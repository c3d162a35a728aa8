"""Slow CVs of several runs of one molecule: do their slow functions span the same space?

Finds the slow CVs of each finished run anew from its generator, and prints eigenvalues with errors
and the canonical correlations of the slow functions on the covering samples of the first run.
"""

import argparse
import itertools
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gencg.discover import SlowCVs, find_slow_cvs
from gencg.run import RunFolder, trained


def canonical_correlations(f: Tensor, g: Tensor, weights: Tensor) -> Tensor:
    """Singular values between the whitened spans of f ``(n, a)`` and g ``(n, b)``, descending."""
    return torch.linalg.svdvals(
        (weights[:, None] * _white(f, weights)).T @ _white(g, weights)
    ).clamp(max=1.0)


def _white(f: Tensor, weights: Tensor) -> Tensor:
    f = f - (weights[:, None] * f).sum(0)
    values, vectors = torch.linalg.eigh((weights[:, None] * f).T @ f)
    return f @ (vectors * values.rsqrt())


def find(path: Path, n_samples: int) -> SlowCVs:
    """Slow CVs of a finished run."""
    folder = RunFolder.open(path)
    return find_slow_cvs(
        trained(folder.system(), folder), n_samples=n_samples, seed=folder.config.seed
    )


def compare(found: list[SlowCVs]) -> dict[str, Any]:
    """Spectra, and correlations of every pair on the samples of the first."""
    samples = found[0].samples
    assert samples is not None
    weights = samples.weights.double()
    with torch.no_grad():
        values = [slow.functions(samples.s.float()).double() for slow in found]
    return {
        "runs": [
            {
                "cvs": list(slow.names),
                "n_processes": slow.n_processes,
                "gap": slow.gap,
                "eigenvalues": slow.spectrum.eigenvalues[:4].tolist(),
                "errors": slow.spectrum.errors[:4].tolist(),
                "transition_samples": slow.spectrum.n_transition[:4].tolist(),
            }
            for slow in found
        ],
        "canonical_correlations": {
            f"{i}-{j}": canonical_correlations(values[i], values[j], weights).tolist()
            for i, j in itertools.combinations(range(len(found)), 2)
        },
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="finished run folders")
    parser.add_argument("--samples", type=int, default=60_000, help="covering samples per run")
    given = parser.parse_args()
    print(json.dumps(compare([find(run, given.samples) for run in given.runs]), indent=2))
