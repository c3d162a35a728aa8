"""Ramachandran maps and alpha_L populations of a run against a reference, with their noise.

For each residue and grid, raw and reweighted: the total variation distance, and what it would be on
average if both were right, from the errors of each cell. Those of the run come from its weights
(its samples are independent), those of the reference from the spread of its ladders (samples
within one are not):

    expected = 1/2 sum_c sqrt(2/pi (s_run(c)^2 + s_ref(c)^2))

``reference_noise`` and ``run_noise`` are the same with one of the two alone; the distance between
the halves of the reference, another way to its noise, stands beside them.
"""

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from experiments.peptides.recorded import BINS, Array, Reference
from gencg import analysis
from gencg.analysis.torsions import Torsions, residue_pairs
from gencg.importance import effective_sample_size, weighted_average
from gencg.run import RunFolder, sample, trained

BATCH = 50_000
"""Samples drawn at a time: a few hundred MB at 62 atoms."""


@dataclass(frozen=True)
class Drawn:
    """Backbone torsions of samples of a run, with both kinds of weights.

    Args:
        torsions: phi and psi of each residue.
        log_weights: By name, "raw" (equal, without invalid samples) and "reweighted".
    """

    torsions: Torsions
    log_weights: dict[str, Array]

    @property
    def ess(self) -> float:
        """Effective number of samples, reweighted."""
        log_weights = torch.from_numpy(self.log_weights["reweighted"])
        return float(effective_sample_size(log_weights)) * len(log_weights)

    def population(self, mask: NDArray[np.bool_], weights: str) -> tuple[float, float]:
        """Population of a state and its standard error."""
        log_weights = torch.from_numpy(self.log_weights[weights])
        value, error = weighted_average(torch.from_numpy(mask), log_weights)
        return float(value), float(error)


def draw(folder: Path, n_samples: int, *, seed: int) -> Drawn:
    """Samples of a finished run, batch by batch; only torsions and weights are kept."""
    opened = RunFolder.open(folder)
    result = trained(opened.system(), opened)
    parts = []
    for number, begin in enumerate(range(0, n_samples, BATCH)):
        ensemble = sample(result, min(BATCH, n_samples - begin), seed=seed + number)
        raw = np.where(ensemble.valid.numpy(), 0.0, -math.inf)
        angles = analysis.ensemble_torsions(ensemble)
        parts.append((angles.values, ensemble.log_weights.double().numpy(), raw))
    values, weighted, raw = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Drawn(Torsions(angles.labels, values), {"raw": raw, "reweighted": weighted})


def noise(*errors: Array) -> float:
    """Average total variation of two maps of one density with these errors of their cells."""
    return float(0.5 * np.sqrt(2 / np.pi * sum(e**2 for e in errors)).sum())


def compare_maps(drawn: Drawn, reference: Reference, residue: str, bins: int) -> dict[str, Any]:
    """Distances of one residue's maps on one grid, beside their noise."""
    angles = np.stack(residue_pairs(drawn.torsions)[residue], -1)
    other = reference.pair(residue)
    errors = reference.cell_errors(residue, bins=bins)
    row: dict[str, Any] = {"bins": bins}
    for name, log_weights in drawn.log_weights.items():
        distance, _ = analysis.ramachandran_total_variation(
            angles, other, log_weights=log_weights, bins=bins
        )
        own = analysis.weighted_histogram(angles, log_weights, bins=bins).errors
        row[name] = {
            "distance": distance,
            "expected": noise(own, errors),
            "run_noise": noise(own),
        }
    row["reference_noise"] = noise(errors)
    return row


def compare_left_handed(drawn: Drawn, reference: Reference) -> dict[str, Any]:
    """Population of alpha_L of each residue in both, and how many standard errors they differ."""
    found: dict[str, Any] = {}
    theirs = reference.left_handed()
    for residue, pair in residue_pairs(drawn.torsions).items():
        mask = analysis.ramachandran_basins(*pair)["alpha_L"]
        exact = theirs[residue]
        found[residue] = {"reference": [exact["mean"], exact["error"]]}
        for name in drawn.log_weights:
            value, error = drawn.population(mask, name)
            deviation = (value - exact["mean"]) / math.hypot(error, exact["error"])
            found[residue][name] = [value, error]
            found[residue][f"{name}_deviation"] = deviation
    return found


def compare(folder: Path, path: Path, *, n_samples: int, seed: int = 0) -> dict[str, Any]:
    """All numbers of one run.

    Raises:
        ValueError: If molecule, force field or temperature differ.
    """
    reference, system = Reference.read(path), RunFolder.open(folder).system()
    ours = f"{system.description} at {system.temperature:g} K"
    theirs = f"{reference.about['description']} at {reference.about['temperatures'][0]:g} K"
    if ours != theirs:
        raise ValueError(f"{folder} is a run of {ours}, but {path} holds {theirs}")
    drawn = draw(folder, n_samples, seed=seed)
    return {
        "run": str(folder),
        "reference": str(path),
        "samples": n_samples,
        "ess": drawn.ess / n_samples,
        "reference_samples": reference.n_samples,
        "reference_self_distance": reference.self_distance(),
        "ramachandran_total_variation": {
            residue: [compare_maps(drawn, reference, residue, bins) for bins in BINS]
            for residue in residue_pairs(drawn.torsions)
        },
        "alpha_L": compare_left_handed(drawn, reference),
    }


def table(found: dict[str, Any]) -> str:
    """The distances as a Markdown table."""
    lines = ["| residue | grid | raw | reweighted | expected | reference alone |"]
    lines.append("|---|---|---|---|---|---|")
    for residue, rows in found["ramachandran_total_variation"].items():
        for row in rows:
            values = [row["raw"]["distance"], *list(row["reweighted"].values())[:2]]
            shown = [f"{value:.4f}" for value in (*values, row["reference_noise"])]
            lines.append(f"| {residue} | {row['bins']} x {row['bins']} | {' | '.join(shown)} |")
    lines += ["", "| alpha_L of | raw | reweighted | reference | deviation, s.e. |"]
    lines.append("|---|---|---|---|---|")
    for residue, row in found["alpha_L"].items():
        cells = (f"{row[k][0]:.5f} ± {row[k][1]:.5f}" for k in ("raw", "reweighted", "reference"))
        lines.append(f"| {residue} | {' | '.join(cells)} | {row['reweighted_deviation']:+.1f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="finished run folder")
    parser.add_argument("--reference", type=Path, required=True, help="reference.npz")
    parser.add_argument("--samples", type=float, default=1e6, help="drawn from the run  [1e6]")
    parser.add_argument("--seed", type=int, default=1000, help="of the draw  [1000]")
    parser.add_argument("--json", type=Path, help="file for all numbers")
    given = parser.parse_args()
    torch.set_num_threads(1)
    found = compare(given.run, given.reference, n_samples=int(given.samples), seed=given.seed)
    if given.json:
        given.json.write_text(json.dumps(found, indent=2) + "\n")
    print(table(found))
