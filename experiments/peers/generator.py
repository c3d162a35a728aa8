"""gencg at several budgets: ESS, and the surface over phi and psi, against calls and seconds.

Each budget is a training of its own from beginning to end. It runs in a process of its own with an
empty cache, so that its seconds hold imports, the compiler and everything else a first run does.
The surface is that of samples drawn evenly over phi and psi (`FlattenedModel`), one call each.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

import gencg
from experiments.peers.clock import Clock
from experiments.peers.held_out import held_out
from experiments.peers.surfaces import sample_surface
from gencg.analysis.torsions import torsion_angles
from gencg.discover.covering import covering_model
from gencg.fit import FitResult
from gencg.models.flattened import FlattenedModel

TARGET = "alanine-dipeptide"


def surface_of(result: FitResult, n_samples: int, *, seed: int) -> Any:
    """Free energy of the cells over phi and psi from `n_samples` even samples."""
    system = result.system
    assert system.molecule is not None
    names, quads = zip(*system.molecule.phi_psi(), strict=True)
    coordinates = system.coordinates
    soft = [coordinates.names[k] for k in coordinates.soft.nonzero()[:, 0].tolist()]
    rows = torch.zeros(len(names), len(soft))
    for row, name in zip(rows, names, strict=True):
        row[soft.index(name)] = 1.0
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        even = FlattenedModel(covering_model(result), rows, n_candidates=40_000)
    ensemble = gencg.draw(even, result.target, n_samples, seed=seed)  # type: ignore[arg-type]
    torsions = torsion_angles(ensemble.x, quads)
    return sample_surface(torsions, ensemble.log_weights, temperature=result.target.temperature)


def one(calls: float, seed: int, *, surface_samples: int, test_samples: int, path: Path) -> None:
    """Train with one budget and write calls, seconds, ESS and surface."""
    clock = Clock()
    torch.set_num_threads(1)
    system = gencg.systems.load(TARGET)
    result = gencg.fit(system, energy_calls=calls, seed=seed)
    found: dict[str, Any] = {"calls": result.energy_calls, "seconds": clock.seconds}
    surface = surface_of(result, surface_samples, seed=seed)
    found["surface_calls"] = result.energy_calls + surface_samples
    found["surface_seconds"] = clock.seconds
    found |= held_out(result.model, result.target, test_samples, seed=1_000_000 + seed)
    np.savez(path.with_suffix(".npz"), surface=surface)
    path.with_suffix(".json").write_text(json.dumps(found, indent=1))
    print(path.stem, json.dumps(found), flush=True)


def main() -> None:
    """Run what is asked for, each in its own process."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    budgets = [5e4, 1e5, 2e5, 5e5, 1e6, 3e6]
    parser.add_argument("--calls", type=float, nargs="+", default=budgets, help="%(default)s")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--surface-samples", type=int, default=50_000, help="[%(default)s]")
    parser.add_argument("--test-samples", type=int, default=50_000, help="[%(default)s]")
    parser.add_argument("--out", type=Path, default=Path("runs/peers"), help="[%(default)s]")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    for seed in given.seeds:
        for calls in given.calls:
            path = given.out / f"gencg-{calls:g}-{seed}"
            if path.with_suffix(".json").exists():
                continue
            if given.here:
                sizes = {n: getattr(given, n) for n in ("surface_samples", "test_samples")}
                one(calls, seed, path=path, **sizes)
                continue
            command = [sys.executable, "-m", "experiments.peers.generator", "--here"]
            command += ["--calls", str(calls), "--seeds", str(seed), "--out", str(given.out)]
            command += ["--surface-samples", str(given.surface_samples)]
            command += ["--test-samples", str(given.test_samples)]
            with tempfile.TemporaryDirectory() as cache:
                subprocess.run(command, check=True, env=os.environ | {"GENCG_CACHE": cache})


if __name__ == "__main__":
    main()
