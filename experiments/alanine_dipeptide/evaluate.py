"""A run against frames of molecular dynamics, for evaluation only: nothing is trained on them.

Forward ESS. With frames x_i of the reference and the weights w = p~(y) / q(y) of the float64 model
at y = y(x_i), by the inverse pass,

    log w_i = -beta U(x_i) - log|det dy/dx| - log q(y_i),   ESS = 1 / (E_p[w] E_p[1/w]),

and log Z = -log E_p[1/w], which is a second opinion on the log Z of the run. Frames of dynamics
are correlated: errors come from contiguous blocks.

Ramachandran total variation, raw and reweighted, of phi and psi on a grid over the whole circle:
100 cells along each angle as in the literature, and 24 of 15 degrees each. ``floor`` is what two
samples of these sizes from one density show if the frames are independent;
``reference_halves`` is the distance between the first and the second half of the reference, about
twice the noise of the whole reference, correlations included.
"""

import argparse
import copy
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
from gencg.fit import FitResult
from gencg.importance import forward_effective_sample_size
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


@torch.no_grad()
def forward_weights(result: FitResult, x: Tensor, *, batch_size: int = 1000) -> Tensor:
    """Log weights of reference frames under the model in float64; invalid frames left out."""
    model = copy.deepcopy(result.model).double()
    coordinates, target = result.target.coordinates, result.target
    parts = []
    for frames in torch.split(x, batch_size):
        y, log_det = coordinates.forward(frames)
        log_q = model.log_prob(model.rows(len(y)), y)
        parts.append(-target.beta * target.energy(frames) - log_det - log_q)
    return torch.cat(parts)


def by_blocks(log_weights: Tensor, *, n_blocks: int = 20, n_draws: int = 500) -> dict[str, float]:
    """Forward ESS and log Z of the frames, with bootstrap errors over contiguous blocks."""
    blocks = torch.chunk(log_weights, n_blocks)
    generator = torch.Generator().manual_seed(0)
    draws = []
    for _ in range(n_draws):
        index = torch.randint(len(blocks), (len(blocks),), generator=generator)
        again = torch.cat([blocks[i] for i in index.tolist()])
        draws.append((float(forward_effective_sample_size(again)), _log_z(again)))
    errors = np.std(draws, axis=0)
    return {
        "forward_ess": float(forward_effective_sample_size(log_weights)),
        "forward_ess_error": float(errors[0]),
        "log_z": _log_z(log_weights),
        "log_z_error": float(errors[1]),
    }


def _log_z(log_weights: Tensor) -> float:
    return float(math.log(len(log_weights)) - torch.logsumexp(-log_weights, 0))


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
    # Equivalent hydrogens may be numbered the other way round elsewhere
    x = system.coordinates.match_labels(x)  # type: ignore[attr-defined]
    valid = system.coordinates.valid(x)
    x = x[valid]
    return {
        "run": str(folder),
        "seed": config.seed,
        "ess": ensemble.ess,
        "log_z": ensemble.log_z,
        "log_z_error": ensemble.log_z_error,
        "n_reference": len(x),
        "n_reference_left_out": int((~valid).sum()),
        "reference": by_blocks(forward_weights(result, x)),
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
