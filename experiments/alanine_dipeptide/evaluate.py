"""A run against frames of molecular dynamics, for evaluation only: nothing is trained on them.

Forward ESS and log Z of the frames, with errors over contiguous blocks: `analysis.forward_ess`.

Ramachandran total variation, raw and reweighted, of phi and psi on a grid over the whole circle:
100 cells along each angle as in the literature, and 24 of 15 degrees each. ``floor`` is what two
samples of these sizes from one density show if the frames are independent;
``reference_halves`` is the distance between the first and the second half of the reference, about
twice the noise of the whole reference, correlations included.
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any

import mdtraj
import numpy as np
import torch
from torch import Tensor

from gencg import analysis
from gencg.analysis.torsions import residue_pairs
from gencg.ensemble import Ensemble
from gencg.export import read_samples
from gencg.molecule import Molecule
from gencg.run import RunFolder, trained
from gencg.systems import System, load

BINS = (100, 24)


def read_reference(path: Path, top: Path | None, molecule: Molecule) -> Tensor:
    """Frames in nm, ``(n, n_atoms, 3)`` float64, of the same atoms in the same order."""
    trajectory = mdtraj.load(str(path), **({} if top is None else {"top": str(top)}))
    atoms = [(a.name, a.element.symbol) for a in trajectory.topology.atoms]
    own = [(a.name, a.element.symbol) for a in molecule.topology.atoms]
    if atoms != own:
        raise SystemExit(f"{path} holds other atoms, or in another order, than the run's molecule")
    return torch.as_tensor(trajectory.xyz, dtype=torch.float64)


def compare_maps(ensemble: Ensemble, x: Tensor, *, bins: int) -> dict[str, float]:
    """Total variation of the Ramachandran maps of ensemble and reference, and the noise floors."""
    quads = [quad for _, quad in ensemble.molecule.phi_psi()]  # type: ignore[union-attr]
    own, other = analysis.torsion_angles(ensemble.x, quads), analysis.torsion_angles(x, quads)
    raw_weights = torch.where(ensemble.valid, 0.0, -math.inf).numpy()
    tv = analysis.ramachandran_total_variation
    raw, floor = tv(own, other, log_weights=raw_weights, bins=bins)
    reweighted, _ = tv(own, other, log_weights=ensemble.log_weights.numpy(), bins=bins)
    half = len(other) // 2
    return {
        "bins": bins,
        "raw": raw,
        "reweighted": reweighted,
        "floor": floor,
        "reference_halves": tv(other[:half], other[half:], bins=bins)[0],
    }


def left_handed(system: System, ensemble: Ensemble, x: Tensor) -> dict[str, Any]:
    """Population of alpha_L (0 < phi < 126 deg) in the run and in the reference."""
    (phi, psi), *_ = residue_pairs(analysis.ensemble_torsions(ensemble)).values()
    mask = torch.as_tensor(analysis.ramachandran_basins(phi, psi)["alpha_L"])
    quads = [quad for _, quad in ensemble.molecule.phi_psi()]  # type: ignore[union-attr]
    there = analysis.ramachandran_basins(*analysis.torsion_angles(x, quads).T)["alpha_L"]
    visits = int((np.diff(there.astype(int), prepend=0) == 1).sum())
    return {
        "raw": ensemble.populations({"p": mask}, raw=True)["p"],
        "reweighted": ensemble.populations({"p": mask})["p"],
        "reference": float(there.mean()),
        "reference_visits": visits,
    }


def evaluate(folder: Path, reference: Path, *, top: Path | None = None) -> dict[str, Any]:
    """All numbers of one run."""
    opened = RunFolder.open(folder)
    config = opened.config
    system = load(config.target, forcefield=config.forcefield, temperature=config.temperature)
    result, ensemble = trained(system, opened), read_samples(folder)
    assert system.molecule is not None
    x = read_reference(reference, top, system.molecule)
    check = analysis.forward_ess(result, x)
    # Equivalent hydrogens may be numbered the other way round elsewhere
    x = system.coordinates.match_labels(x)  # type: ignore[attr-defined]
    x = x[system.coordinates.valid(x)]
    return {
        "run": str(folder),
        "seed": config.seed,
        "ess": ensemble.ess,
        "log_z": ensemble.log_z,
        "log_z_error": ensemble.log_z_error,
        "n_reference": check.n_frames,
        "n_reference_left_out": check.n_left_out,
        "reference": {
            "forward_ess": check.ess,
            "forward_ess_error": check.ess_error,
            "log_z": check.log_z,
            "log_z_error": check.log_z_error,
        },
        "ramachandran_total_variation": [compare_maps(ensemble, x, bins=b) for b in BINS],
        "alpha_L": left_handed(system, ensemble, x),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", metavar="RUN", type=Path, nargs="+", help="finished run folders")
    parser.add_argument("--reference", type=Path, required=True, help="trajectory MDTraj can read")
    parser.add_argument("--top", type=Path, help="its topology, for formats without one")
    given = parser.parse_args()
    print(json.dumps([evaluate(r, given.reference, top=given.top) for r in given.runs], indent=2))
