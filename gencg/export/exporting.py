"""Exports of collective variables that are loaded again and held to the model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gencg.export.checks import Array, Check, ExportError, Quantities, compare, model_quantities
from gencg.export.colvars import colvars_input, colvars_names
from gencg.export.colvars_reader import colvars_quantities
from gencg.export.cv_function import CVFunction
from gencg.export.engine_geometry import distance, torsion
from gencg.export.openmm_check import SOURCE, check_openmm, openmm_quantities, run_biased
from gencg.export.plumed import plumed_input, plumed_nodes
from gencg.export.plumed_reader import plumed_quantities
from gencg.export.plumed_run import plumed_itself
from gencg.export.torchscript import (
    Ranges,
    check_contract,
    column_ranges,
    column_values,
    columns_and_slopes,
    load_torchscript,
    write_torchscript,
)
from gencg.files import replacing
from gencg.molecule import Molecule

CV_FORMATS = ("torchscript", "plumed", "colvars", "openmm")
"""Programs that collective variables are written for."""
MODEL_FILE = "cv.pt"
_FILES = {
    "plumed.dat": "plumed",
    "colvars.in": "colvars",
    "colvars_real.in": "colvars",
    SOURCE.name: "openmm",
}
"""What stands beside the model's file and uses it, with the format that writes it."""
NOISE = 0.02
"""How far random structures have their atoms from a sample, in nm."""


@dataclass(frozen=True)
class _Job:
    """What all writers share.

    Args:
        function: The collective variables.
        folder: Where the files go.
        x: Structures to compare at, ``(n, n_atoms, 3)`` in nm.
        model: What the model says there.
        ranges: Of the columns in the ensemble.
        molecule: The molecule.
        temperature: In K.
        title: Of what.
    """

    function: CVFunction
    folder: Path
    x: Array
    model: Quantities
    ranges: Ranges
    molecule: Molecule
    temperature: float
    title: str

    @property
    def model_file(self) -> Path:
        return self.folder / MODEL_FILE

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        with replacing(path) as draft:
            draft.write_text(text)
        return path


def export_cvs(
    function: CVFunction,
    folder: str | Path,
    *,
    molecule: Molecule,
    samples: Tensor,
    ranges: Ranges | None = None,
    formats: Sequence[str] = CV_FORMATS,
    temperature: float = 300.0,
    title: str = "a molecule",
    seed: int = 0,
) -> list[Check]:
    """Write collective variables for other programs, and hold every file to the model.

    ``cv.pt`` (TorchScript) and ``topology.pdb`` are always written; ``plumed.dat``,
    ``colvars.in`` (and ``colvars_real.in`` for programs in Å where there are distances) and
    ``openmm_cv.py`` use them. Each is loaded again from disk by code that shares nothing with
    what wrote it, and compared in value and in gradient with respect to positions, on the
    samples and on structures with `NOISE` added to their atoms.

    Args:
        function: The collective variables.
        folder: Where to write; made if missing.
        molecule: For topology and masses.
        samples: Structures of the run's ensemble, ``(n, n_atoms, 3)`` in nm; some dozens, of
            every state.
        ranges: Of the columns in the ensemble, which grids and widths of a bias follow; by
            default those of the samples.
        formats: Any of `CV_FORMATS`.
        temperature: In K, for examples of metadynamics.
        title: What the collective variables are of, for comments.
        seed: Seed of the noise.

    Returns:
        What the comparison found, a `Check` per file.

    Raises:
        ValueError: If a format is unknown, OpenMM is too old, the samples have another shape, or
            the folder holds files of other formats: they would not fit the new ``cv.pt``.
        ExportError: If a file is not what its program or the model asks for. Files stay.
    """
    check_formats(formats)
    if samples.ndim != 3 or tuple(samples.shape[1:]) != (function.n_atoms, 3) or not len(samples):
        raise ValueError(
            f"`samples` must have shape (n, {function.n_atoms}, 3), got {tuple(samples.shape)}"
        )
    folder = Path(folder)
    stale = [
        file for file, name in _FILES.items() if name not in formats and (folder / file).exists()
    ]
    if stale:
        raise ValueError(
            f"{folder / stale[0]} is of another export and would not fit the new {MODEL_FILE}; "
            f"write the format {_FILES[stale[0]]} too, or choose another folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    samples = samples.detach().double().cpu()
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(samples.shape, generator=generator, dtype=torch.float64)
    x = torch.cat([samples, samples + NOISE * noise])
    ranges = ranges or column_ranges(function, column_values(function, samples))
    job = _Job(
        function, folder, x.numpy(), model_quantities(function, x.numpy()), ranges, molecule,
        temperature, title,
    )  # fmt: skip
    with replacing(folder / "topology.pdb") as draft:
        molecule.to_mdtraj().save_pdb(str(draft))
    write_torchscript(job.model_file, function, samples, ranges=ranges)
    check_contract(job.model_file, function, x)
    checks = [_check_torchscript(job)]
    for name in CV_FORMATS[1:]:
        if name in formats:
            checks += _WRITERS[name](job)
    return checks


def check_formats(formats: Sequence[str]) -> None:
    """Refuse formats that are unknown or cannot be written here.

    Raises:
        ValueError: If there are any, or none is given.
    """
    for name in formats:
        if name not in CV_FORMATS:
            raise ValueError(f"`format` must be among {', '.join(CV_FORMATS)}, got {name!r}")
    if not formats:
        raise ValueError(f"`format` must name at least one of {', '.join(CV_FORMATS)}")
    if "openmm" in formats:
        check_openmm()


def _check_torchscript(job: _Job) -> Check:
    """The file as it is loaded from Python, its atoms taken from its own description."""
    module, about = load_torchscript(job.model_file, optimise=False)
    quads = list(about["torsions"].values())
    pairs = list(about["distances"].values())
    inputs = [torsion(job.x, q) for q in quads] + [distance(job.x, p) for p in pairs]
    rows = torch.as_tensor(np.stack([value for value, _ in inputs], axis=1))
    found = [columns_and_slopes(module, row) for row in rows]
    values = torch.stack([value for value, _ in found]).double().numpy()
    slopes = torch.stack([slope for _, slope in found]).double().numpy()
    gradients = np.einsum("nca,anix->cnix", slopes, np.stack([g for _, g in inputs]))
    columns = about["columns"]
    got = {name: (values[:, k], gradients[k]) for k, name in enumerate(columns)}
    return compare(job.model_file, job.function, got, job.model)


def _write_plumed(job: _Job) -> list[Check]:
    spreads = {name: job.ranges[name][2] for name in job.function.columns}
    text = plumed_input(
        job.function, model_file=MODEL_FILE, temperature=job.temperature, spreads=spreads,
        title=job.title,
    )  # fmt: skip
    path = job.write("plumed.dat", text)
    read, nodes = plumed_quantities(path, job.x), plumed_nodes(job.function)
    got = {name: read[node] for name, node in nodes.items()}
    checks = [compare(path, job.function, got, job.model)]
    if (itself := plumed_itself(path, nodes, job.x)) is not None:
        check = compare(path, job.function, itself, job.model)
        checks.append(replace(check, file=f"{check.file} by PLUMED itself"))
    return checks


def _write_colvars(job: _Job) -> list[Check]:
    files = {"colvars.in": "gromacs"}
    if job.function.distances:
        files["colvars_real.in"] = "real"
    checks = []
    for name, units in files.items():
        text = colvars_input(job.function, model_file=MODEL_FILE, units=units, title=job.title)
        path = job.write(name, text)
        read = colvars_quantities(path, job.x)
        got = {column: read[colvar] for column, colvar in colvars_names(job.function).items()}
        checks.append(compare(path, job.function, got, job.model))
    return checks


def _write_openmm(job: _Job) -> list[Check]:
    path = job.write(SOURCE.name, SOURCE.read_text())
    columns = list(job.function.columns)
    names = [*columns, *job.function.angles]
    got = openmm_quantities(path, job.model_file, names, job.x)
    check = compare(path, job.function, got, job.model)
    start = {name: got[name] for name in columns}
    off = run_biased(path, job.model_file, start, job.x[0], job.molecule.masses)
    if not off < 0.01:
        raise ExportError(
            f"{path}: forces of a bias differ by {off:.2g} (relative) from differences of its "
            "energy; the files stay where they are, do not use them"
        )
    return [check]


_WRITERS: dict[str, Callable[[_Job], list[Check]]] = {
    "plumed": _write_plumed,
    "colvars": _write_colvars,
    "openmm": _write_openmm,
}
