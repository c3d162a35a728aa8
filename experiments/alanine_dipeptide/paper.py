"""What the paper of 2020 shows of the dipeptide, for a run with CVs or for its own model.

The latent plane coloured by conformation, phi and psi over the plane, structures along a path
through it, the Ramachandran map, and histograms of bond lengths, radius of gyration and RMSD, raw
and reweighted, against a simulation (`reference`, or a trajectory with ``--md``), which is used for
evaluation only. 2020 was at 330 K, the later literature at 300 K: where run or reference are of
another temperature than asked for, both are reweighted, and what is raw stays that of the run.
"""

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mdtraj
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import gencg
from experiments.alanine_dipeptide.figures import draw_all
from experiments.alanine_dipeptide.reference import TARGET, Frames
from experiments.baselines import gaussian_decoder
from experiments.peptides.recorded import to_steps
from gencg.analysis import torsion_angles, weighted_histogram
from gencg.analysis.alignment import superposed
from gencg.analysis.descriptors import radius_of_gyration
from gencg.analysis.histogram import weighted_window
from gencg.ensemble import Ensemble
from gencg.molecule import Molecule
from gencg.run import RunFolder, with_cvs
from gencg.systems import load

Array = NDArray[np.float64]
HERE = Path(__file__).parent
BONDS = ("ALA2-N-ALA2-CA", "ALA2-CA-ALA2-CB", "ALA2-C-ALA2-O", "ALA2-CA-ALA2-HA")
"""Bonds that are drawn; all of them are measured."""
N_GRID, N_PATH = 24, 6
BINS = 60


@dataclass(frozen=True)
class Shown:
    """A generator with collective variables, ready to be shown.

    Args:
        title: Name in the figures.
        ensemble: Weighted samples with their z.
        decode: From z ``(m, n_cvs)`` and a number to an ensemble of that many at each.
        periodic: Whether z are angles.
        names: A name for each.
    """

    title: str
    ensemble: Ensemble
    decode: Callable[[Tensor, int], Ensemble]
    periodic: bool
    names: tuple[str, ...]

    @property
    def molecule(self) -> Molecule:
        """Topology of the samples."""
        assert self.ensemble.molecule is not None
        return self.ensemble.molecule

    def angles(self, x: Tensor) -> Array:
        """phi and psi of positions, ``(n, 2)``."""
        return torsion_angles(x, [quad for _, quad in self.molecule.phi_psi()])


def of_run(folder: Path, n_samples: int, *, temperature: float | None = None) -> Shown:
    """The joint model of a finished run with two collective variables.

    Args:
        folder: The run.
        n_samples: Samples.
        temperature: In K, to weight for; what the model draws stays that of the run.

    Raises:
        SystemExit: If it has another number of them.
    """
    opened = RunFolder.open(folder)
    run = with_cvs(opened.system(), opened)
    result = run.result
    if len(run.names) != 2:
        raise SystemExit(f"{folder} has {len(run.names)} collective variables; two can be drawn")
    target = result.target
    if temperature is not None:
        target = dataclasses.replace(target, temperature=temperature)
    ensemble = gencg.draw(
        result.model, target, n_samples, molecule=result.system.molecule, seed=1_000_000
    )
    return Shown("gencg", ensemble, result.model.decode, run.periodic, run.names)


def of_2020(temperature: float, calls: float, n_samples: int, *, seed: int = 0) -> Shown:
    """The model of 2020, trained here."""
    system = load(TARGET)
    result = gaussian_decoder.train(system, calls=calls, seed=seed, temperature=temperature)
    ensemble = gencg.draw(
        result.model, result.target, n_samples, molecule=system.molecule, seed=1_000_000
    )
    return Shown("gaussian decoder", ensemble, result.model.decode, False, ("z1", "z2"))


def read_md(path: Path, temperature: float, molecule: Molecule) -> Frames:
    """Frames of a trajectory that MDTraj reads, as if each were independent."""
    x = torch.as_tensor(molecule.match(mdtraj.load(str(path))))
    angles = torsion_angles(x, [quad for _, quad in molecule.phi_psi()])
    return Frames(temperature, x, to_steps(angles)[None], {"file": path.name})


def descriptors(x: Tensor, molecule: Molecule) -> dict[str, Array]:
    """Radius of gyration, RMSD of the heavy atoms to the reference structure, and bond lengths.

    Args:
        x: Positions in nm, ``(n, n_atoms, 3)``.
        molecule: Their topology.

    Returns:
        All in nm, each ``(n,)``.
    """
    x = x.double()
    _, gyration = radius_of_gyration(x, molecule)
    heavy = torch.tensor([e != "H" for e in molecule.elements])
    start = torch.as_tensor(molecule.positions).double()[heavy]
    laid = superposed(x[:, heavy], start, torch.ones(int(heavy.sum())).double())
    found = {
        "radius of gyration": gyration[:, 0],
        "RMSD": (laid - start).square().sum(-1).mean(-1).sqrt().numpy(),
    }
    for i, j in molecule.bonds.tolist():
        length = (x[:, i] - x[:, j]).norm(dim=-1)
        found[f"{molecule.names[i]}-{molecule.names[j]}"] = length.numpy()
    return found


def compare(shown: Shown, reference: Frames) -> dict[str, Any]:
    """Total variation of every histogram, raw and reweighted, beside its floor."""
    ensemble = shown.ensemble
    own = descriptors(ensemble.x[ensemble.valid], shown.molecule)
    other = descriptors(reference.x, shown.molecule)
    log_weights = ensemble.log_weights[ensemble.valid].double().numpy()
    rows: dict[str, Any] = {}
    for name, values in own.items():
        window = [weighted_window(other[name], None)]
        there = weighted_histogram(other[name], bins=BINS, ranges=window)
        row: dict[str, float] = {}
        for kind, weights in (("raw", None), ("reweighted", log_weights)):
            here = weighted_histogram(values, weights, bins=BINS, ranges=window)
            outside = abs(here.probabilities.sum() - there.probabilities.sum())
            distance = np.abs(here.probabilities - there.probabilities).sum()
            noise = np.sqrt(2 / np.pi * (here.errors**2 + there.errors**2)).sum()
            row[kind] = 0.5 * float(distance + outside)
            row[f"{kind}_floor"] = 0.5 * float(noise)
        rows[name] = {kind: float(f"{value:.4g}") for kind, value in row.items()}
    return rows


def over_the_plane(shown: Shown) -> tuple[Array, Array, Array]:
    """Values of z on a grid, ``(n, 2)``, phi and psi there ``(n, 2)``, and the axes ``(2, k)``.

    The plane reaches as far as the samples do; the torsions at each z are those of the decoded
    structure of most weight among four.
    """
    z = shown.ensemble.z[shown.ensemble.valid].double().numpy()
    if shown.periodic:
        axes = [np.linspace(-np.pi, np.pi, N_GRID, endpoint=False)] * 2
    else:
        axes = [np.linspace(*np.quantile(z[:, k], [0.001, 0.999]), N_GRID) for k in range(2)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
    n_each = 4
    decoded = shown.decode(torch.from_numpy(grid), n_each)
    best = decoded.log_weights.reshape(len(grid), n_each).argmax(1)
    x = decoded.x[torch.arange(len(grid)) * n_each + best]
    return grid, shown.angles(x), np.stack(axes)


def along_a_path(shown: Shown) -> tuple[Array, Tensor]:
    """Values of z from one end of the plane to the other, and a structure at each.

    The path is straight between the mean z of two conformations, alpha_R and beta.
    """
    angles = shown.angles(shown.ensemble.x)
    basins = gencg.analysis.ramachandran_basins(*angles.T)
    weights = torch.softmax(shown.ensemble.log_weights.double(), 0)
    z = shown.ensemble.z.double()
    ends = []
    for name in ("alpha_R", "beta"):
        w = torch.where(torch.as_tensor(basins[name]), weights, 0.0)
        if float(w.sum()) == 0:
            # The model does not know this conformation: its extreme values of z
            ends.append(z.amin(0) if not ends else z.amax(0))
            continue
        # Of angles the mean direction
        mean = (w[:, None] * torch.exp(1j * z)).sum(0).angle() if shown.periodic else None
        ends.append((w[:, None] * z).sum(0) / w.sum() if mean is None else mean)
    step = ends[1] - ends[0]
    if shown.periodic:
        step = torch.remainder(step + torch.pi, 2 * torch.pi) - torch.pi
    path = ends[0] + torch.linspace(0, 1, N_PATH).double()[:, None] * step
    decoded = shown.decode(path, 32)
    best = decoded.log_weights.reshape(N_PATH, 32).argmax(1)
    return path.numpy(), decoded.x[torch.arange(N_PATH) * 32 + best]


def main() -> None:
    """Draw the figures and write the distances."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", nargs="?", type=Path, help="finished run with two CVs")
    parser.add_argument("--model-of-2020", action="store_true", help="train and show it instead")
    parser.add_argument("--calls", type=float, default=2e5, help="for its training  [%(default)g]")
    parser.add_argument("--temperature", type=float, help="in K  [the run's, 330 of 2020]")
    parser.add_argument("--samples", type=int, default=50_000, help="[%(default)s]")
    parser.add_argument("--reference", type=Path, help=".npz of alanine_dipeptide.reference")
    parser.add_argument("--md", type=Path, help="or a trajectory of the same temperature")
    parser.add_argument("--out", type=Path, default=HERE / "results/histograms")
    figures = HERE.parents[1] / "docs/figures"
    parser.add_argument("--figures", type=Path, default=figures, help="[%(default)s]")
    given = parser.parse_args()
    if (given.run is None) != given.model_of_2020:
        parser.error("give either a run or --model-of-2020")
    if (given.reference is None) == (given.md is None):
        parser.error("give either --reference or --md")
    torch.set_num_threads(1)
    began = time.process_time()
    if given.run is None:
        shown = of_2020(given.temperature or 330.0, given.calls, given.samples)
    else:
        shown = of_run(given.run, given.samples, temperature=given.temperature)
    kelvin = shown.ensemble.temperature
    if given.md is None:
        reference = Frames.read(given.reference)
    else:
        reference = read_md(given.md, kelvin, shown.molecule)
    if abs(reference.temperature - kelvin) > 0.5:
        reference = reference.at(kelvin, load(TARGET))
    distances = compare(shown, reference)
    name = f"alanine-dipeptide-{kelvin:.0f}K-{shown.title.replace(' ', '-')}"
    about = {
        "method": shown.title,
        "command": "python -m experiments.alanine_dipeptide.paper "
        + ("RUN" if given.run else f"--model-of-2020 --calls {given.calls:g}")
        + f" --temperature {kelvin:g} {'--md' if given.md else '--reference'} FRAMES",
        "temperature": kelvin,
        "ess": shown.ensemble.ess,
        "reference": "md" if given.md else "parallel tempering",
        "n_frames": len(reference.x),
        "total_variation": distances,
    }
    given.out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(about, indent=1, default=float)
    (given.out / f"{name}{'-md' if given.md else ''}.json").write_text(text + "\n")
    own = descriptors(shown.ensemble.x, shown.molecule)
    other = descriptors(reference.x, shown.molecule)
    draw_all(
        shown, reference, own, other, BONDS, over_the_plane(shown), along_a_path(shown),
        folder=given.figures, name=name,
    )  # fmt: skip
    print(text)
    print(f"{time.process_time() - began:.0f} CPU seconds", file=sys.stderr)


if __name__ == "__main__":
    main()
