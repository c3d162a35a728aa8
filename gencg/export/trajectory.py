"""Weighted ensembles as files: MDTraj HDF5 at full precision, XTC and DCD on request."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import torch

from gencg.ensemble import Ensemble

if TYPE_CHECKING:
    from gencg.molecule import Molecule

FORMATS = ("h5", "xtc", "dcd")
_UNITS = {"energy": "kilojoules_per_mole", "reference": "nanometers"}


def write_samples(
    folder: str | Path, ensemble: Ensemble, *, formats: Sequence[str] = ("h5",)
) -> list[Path]:
    """Write an ensemble into a folder; each file appears whole or not at all.

    ``samples.h5`` always holds everything in float64: ``x``, ``y``, ``z``, ``energy``,
    ``log_weights``, ``weights`` (normalised) and ``valid``, all samples in their order. For a
    molecule it is an MDTraj HDF5 file as well, which ``mdtraj.load`` reads without a topology
    (through PyTables), and ``topology.pdb`` holds the reference structure. There is no time and
    no unit cell: samples have no order and the molecule no box.

    XTC and DCD keep float32 or less (XTC 0.001 nm, which moves the energy by a good part of
    :math:`k_BT`). They hold the valid samples only; ``frames.csv`` gives the number of the
    sample, weight, log weight and energy of each frame.

    Args:
        folder: Where to write; made if missing.
        ensemble: The samples.
        formats: Any of "h5", "xtc", "dcd".

    Returns:
        The files written.

    Raises:
        ValueError: If a format is unknown, or asks for a molecule that a toy does not have.
    """
    for name in formats:
        if name not in FORMATS:
            raise ValueError(f"`formats` must be among {', '.join(FORMATS)}, got {name!r}")
    trajectories = [name for name in formats if name != "h5"]
    if trajectories and ensemble.molecule is None:
        raise ValueError(f"`formats` {trajectories} need a molecule; a toy goes into h5 only")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)

    written = [folder / "samples.h5"]
    with replacing(written[0]) as path:
        _write_hdf5(path, ensemble)
    if ensemble.molecule is not None:
        written.append(folder / "topology.pdb")
        with replacing(written[-1]) as path:
            ensemble.molecule.to_mdtraj().save_pdb(str(path))
    if trajectories:
        trajectory = ensemble.select(ensemble.valid).to_mdtraj()
        for name in trajectories:
            written.append(folder / f"samples.{name}")
            with replacing(written[-1]) as path:
                trajectory.save(str(path))
        written.append(folder / "frames.csv")
        with replacing(written[-1]) as path:
            _write_frames(path, ensemble)
    return written


def read_samples(path: str | Path) -> Ensemble:
    """Read what `write_samples` wrote, exactly.

    Args:
        path: ``samples.h5``, or the folder that holds it.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged or not one of gencg's.
    """
    path = Path(path)
    path = path / "samples.h5" if path.is_dir() else path
    if not path.exists():
        raise FileNotFoundError(f"no samples at {path}; write them with `gencg sample`")
    try:
        with h5py.File(path, "r") as file:
            names = ("x", "y", "z", "energy", "log_weights", "valid")
            tensors = {name: torch.from_numpy(file[name][()]) for name in names}
            return Ensemble(
                **tensors,
                temperature=float(file.attrs["temperature"]),
                molecule=_read_molecule(file) if "topology" in file else None,
                n_energy_calls=int(file.attrs["n_energy_calls"]),
                name=bytes(file.attrs["name"]).decode(),
            )
    except (OSError, KeyError) as error:
        reason = str(error).strip("'\"")
        raise ValueError(
            f"{path} is damaged or not written by gencg ({reason}); draw the samples again with "
            "`gencg sample`"
        ) from error


def _write_hdf5(path: Path, ensemble: Ensemble) -> None:
    with h5py.File(path, "w") as file:
        for name in ("x", "y", "z", "energy", "log_weights", "weights", "valid"):
            file[name] = getattr(ensemble, name).cpu().numpy()
        file.attrs["temperature"] = ensemble.temperature
        file.attrs["n_energy_calls"] = ensemble.n_energy_calls
        # Strings of fixed length: PyTables warns about others
        file.attrs["name"] = np.bytes_(ensemble.name.encode())
        file.attrs["application"] = np.bytes_("gencg")
        if ensemble.molecule is not None:
            _write_mdtraj_layout(file, ensemble, ensemble.molecule)
        for name, unit in _UNITS.items():
            if name in file:
                file[name].attrs["units"] = np.bytes_(unit)


def _write_mdtraj_layout(file: Any, ensemble: Ensemble, molecule: Molecule) -> None:
    """What makes the file an MDTraj HDF5 trajectory: https://mdtraj.org/latest/hdf5_format.html."""
    from mdtraj.formats import HDF5TrajectoryFile

    convention = {"conventions": "Pande", "conventionVersion": "1.1", "program": "gencg"}
    for name, value in convention.items():
        file.attrs[name] = np.bytes_(value)
    file["coordinates"] = ensemble.x.cpu().numpy().astype(np.float32)
    for name in ("coordinates", "x"):
        file[name].attrs["units"] = np.bytes_("nanometers")
    topology = HDF5TrajectoryFile.convert_topology_to_dict(molecule.topology)
    file["topology"] = np.array([json.dumps(topology).encode()], dtype=np.bytes_)
    file["reference"] = molecule.positions


def _read_molecule(file: Any) -> Molecule:
    from mdtraj import Topology
    from mdtraj.core.element import get_by_symbol
    from mdtraj.core.topology import bond_name_to_type

    from gencg.molecule import Molecule

    layout = json.loads(file["topology"][0])
    topology = Topology()
    for chain in layout["chains"]:
        to_chain = topology.add_chain(chain["chain_id"])
        for residue in chain["residues"]:
            to = topology.add_residue(
                residue["name"], to_chain, residue["resSeq"], residue["segmentID"]
            )
            for atom in residue["atoms"]:
                charge = atom.get("formal_charge")
                element = get_by_symbol(atom["element"])
                topology.add_atom(atom["name"], element, to, formal_charge=charge)
    atoms = list(topology.atoms)
    for (i, j), bond in zip(layout["bonds"], layout["bond_metadata"], strict=True):
        kind = bond_name_to_type(bond["type"])
        topology.add_bond(atoms[i], atoms[j], order=bond["order"], type=kind)
    return Molecule(topology, file["reference"][()], check=False)


def _write_frames(path: Path, ensemble: Ensemble) -> None:
    columns = (ensemble.weights, ensemble.log_weights, ensemble.energy)
    rows = torch.stack(columns, 1)[ensemble.valid].tolist()
    samples = torch.nonzero(ensemble.valid)[:, 0].tolist()
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["frame", "sample", "weight", "log_weight", "energy_kj_per_mol"])
        for frame, (sample, row) in enumerate(zip(samples, rows, strict=True)):
            writer.writerow([frame, sample, *row])


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to; it takes the place of `path` once it is complete."""
    draft = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        yield draft
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
