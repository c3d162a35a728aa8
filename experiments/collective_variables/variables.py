"""Choices of variables for metadynamics of a run's molecule: its own CVs, and others."""

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from experiments.collective_variables.biased import Variables
from experiments.collective_variables.features import heavy_torsions, quad_torsions
from experiments.collective_variables.hills import Axis
from gencg.ensemble import Ensemble
from gencg.export.torchscript import load_torchscript
from gencg.export.trajectory import read_samples
from gencg.molecule import Molecule, Quad
from gencg.run import RunFolder, export_run

WIDTH = 0.2
"""Width of the hills along a variable that is no angle, in its standard deviations (as in the
bias variables that `gencg export` writes for OpenMM)."""
MARGIN = 0.2
"""Share of the range beyond the smallest and the largest value that the grid covers."""


class Angles(nn.Module):
    r"""Angles :math:`\mathrm{atan2}(\sin\xi, \cos\xi)` of the columns of an exported file."""

    def __init__(self, module: nn.Module, cosines: Sequence[int]) -> None:
        super().__init__()
        self.module, self.cosines = module, list(cosines)

    def forward(self, torsions: Tensor) -> Tensor:
        columns = self.module(torsions)
        sines = [k + 1 for k in self.cosines]
        return torch.atan2(columns[:, sines], columns[:, self.cosines])


class Components(nn.Module):
    """Principal components of cosines and sines of torsions.

    Args:
        torsions: In rad, ``(n, k)``, of equal weight.
        n: Number of components.
    """

    vectors: Tensor

    def __init__(self, torsions: Tensor, n: int) -> None:
        super().__init__()
        features = self.features(torsions.double())
        _, vectors = torch.linalg.eigh(torch.cov(features.T))
        self.register_buffer("vectors", vectors.flip(1)[:, :n].float())

    def features(self, torsions: Tensor) -> Tensor:
        """Cosines and sines, ``(n, 2 k)``."""
        return torch.cat([torsions.cos(), torsions.sin()], dim=1)

    def forward(self, torsions: Tensor) -> Tensor:
        z: Tensor = self.features(torsions) @ self.vectors
        return z


def exported(run: Path, out: Path, *, slow: bool = False) -> Path:
    """The TorchScript file of the CVs of a run, written for OpenMM and held to the model.

    Args:
        run: The run folder.
        out: Where to write.
        slow: The slow functions in place of the CVs.
    """
    if not (out / "cv.pt").exists():
        folder = RunFolder.open(run)
        checks = export_run(folder.system(), folder, out, formats=["openmm"], slow=slow)
        print(*checks, sep="\n", file=sys.stderr)
    return out / "cv.pt"


def of_file(name: str, path: Path, axis: Axis) -> Variables:
    """Variables of a TorchScript file by `gencg export`.

    Args:
        name: Of a row of the table.
        path: The file.
        axis: Of each angle; columns that are no angles have one of their range and spread.
    """
    module, about = load_torchscript(path, optimise=False)
    quads = list(about["torsions"].values())
    if angles := about["angles"]:
        return Variables(
            name, quads, [axis] * len(angles), function=Angles(module, list(angles.values()))
        )
    axes = [line_axis(*about["ranges"][column]) for column in about["columns"]]
    return Variables(name, quads, axes, function=module)


def line_axis(low: float, high: float, spread: float) -> Axis:
    """Axis of a variable that is no angle, from its range and standard deviation."""
    margin = MARGIN * (high - low)
    return Axis(WIDTH * spread, low - margin, high + margin, periodic=False)


def principal(molecule: Molecule, samples: Ensemble, *, n: int = 2) -> Variables:
    """Principal components of all heavy torsions in samples, drawn by their weights."""
    quads: list[Quad] = heavy_torsions(molecule)
    torsions = quad_torsions(quads, samples.resample(10_000, 0).x.double())
    module = Components(torsions, n)
    z = module(torsions.float())
    axes = [line_axis(*row) for row in zip(*(f(z) for f in _RANGE), strict=True)]
    return Variables(f"{n} PCA of heavy torsions", quads, axes, function=module)


_RANGE = (
    lambda z: z.amin(0).tolist(),
    lambda z: z.amax(0).tolist(),
    lambda z: z.std(0).tolist(),
)


def of_run(folder: RunFolder, out: Path, axis: Axis) -> dict[str, Variables]:
    """All choices, by short names.

    Args:
        folder: A finished run with CVs.
        out: Where its exported files are written.
        axis: Of every angle.
    """
    molecule = folder.system().molecule
    assert molecule is not None
    quads = [quad for _, quad in molecule.phi_psi()]
    psi = [quad for label, quad in molecule.phi_psi() if label.startswith("psi")]
    name = folder.path.name
    samples = read_samples(folder.path)
    return {
        "cvs": of_file(f"{name}: CVs", exported(folder.path, out / "cvs"), axis),
        "phi_psi": Variables("phi, psi", quads, [axis] * len(quads)),
        "slow": of_file(
            f"{name}: slow functions", exported(folder.path, out / "slow", slow=True), axis
        ),
        "psi": Variables("psi alone", psi, [axis] * len(psi)),
        "pca": principal(molecule, samples.select(samples.valid)),
    }
