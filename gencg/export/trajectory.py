"""Weighted ensembles as files: MDTraj HDF5 at full precision, XTC and DCD on request."""

from __future__ import annotations

import csv
import errno
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import torch

from gencg.ensemble import Ensemble
from gencg.export.hdf5 import CHECKSUM, array, checksum, read_topology, reading
from gencg.files import remove_left_drafts, replacing

if TYPE_CHECKING:
    from gencg.molecule import Molecule

FORMATS = ("h5", "xtc", "dcd")
_ARRAYS = {"x": "f", "y": "f", "z": "f", "energy": "f", "log_weights": "f", "valid": "b"}
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
    remove_left_drafts(folder)

    written = [folder / "samples.h5"]
    if ensemble.molecule is not None:
        written.append(folder / "topology.pdb")
        with replacing(written[-1]) as path:
            ensemble.molecule.to_mdtraj().save_pdb(str(path))
    if trajectories:
        trajectory = ensemble.select(ensemble.valid).to_mdtraj()
        for name in trajectories:
            written.append(folder / f"samples.{name}")
            with replacing(written[-1]) as path:
                save_trajectory(trajectory, path)
        written.append(folder / "frames.csv")
        with replacing(written[-1]) as path:
            _write_frames(path, ensemble)
    # Last: with it the others are there
    with replacing(written[0]) as path:
        _write_hdf5(path, ensemble)
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
    cure = "draw the samples again with `gencg sample`"
    if (path.parent / "config.json").exists():
        cure = "remove it and summary.json and run the same command, which draws them again"
    try:
        with reading(path) as file:
            arrays = {name: array(file, name, kind=kind) for name, kind in _ARRAYS.items()}
            figures = _figures(file)
            if CHECKSUM in file.attrs and (
                file.attrs[CHECKSUM] != checksum(_sorted(file, arrays), figures).encode()
            ):
                raise ValueError("its checksum differs")
            tensors = {name: torch.from_numpy(values) for name, values in arrays.items()}
            return Ensemble(
                **tensors,
                temperature=figures[0],
                molecule=_read_molecule(file) if "topology" in file else None,
                n_energy_calls=figures[1],
                name=figures[2].decode(),
            )
    except ValueError as error:
        raise ValueError(f"{path} is damaged or not written by gencg ({error}); {cure}") from error


def _figures(file: Any) -> tuple[float, int, bytes]:
    """Temperature, number of energy calls and name."""
    attributes = file.attrs
    return (
        float(attributes["temperature"]),
        int(attributes["n_energy_calls"]),
        bytes(attributes["name"]),
    )


def _sorted(file: Any, arrays: dict[str, Any]) -> list[tuple[str, Any]]:
    """Arrays that the checksum is of, those of the molecule too."""
    kinds = {"topology": "S", "reference": "f"}
    molecule = {name: array(file, name, kind=kind) for name, kind in kinds.items() if name in file}
    return sorted({**arrays, **molecule}.items())


def _write_hdf5(path: Path, ensemble: Ensemble) -> None:
    # Composed in memory: on a full disk the library under h5py falls over its own files
    with h5py.File(path, "w", driver="core", backing_store=False) as file:
        _compose(file, ensemble)
        file.flush()
        image = file.id.get_file_image()
    path.write_bytes(image)


def _compose(file: Any, ensemble: Ensemble) -> None:
    """Everything that `samples.h5` holds."""
    arrays = {name: getattr(ensemble, name).cpu().numpy() for name in (*_ARRAYS, "weights")}
    for name, values in arrays.items():
        file[name] = values
    del arrays["weights"]
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
    file.attrs[CHECKSUM] = np.bytes_(checksum(_sorted(file, arrays), _figures(file)))


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
    from gencg.molecule import Molecule

    positions = array(file, "reference", kind="f", ndim=2)
    return Molecule(read_topology(file), positions, check=False)


def save_trajectory(trajectory: Any, path: Path) -> None:
    """Write a trajectory; MDTraj's writers tell of a full disk as they like, or not at all.

    Raises:
        OSError: If it does not hold all frames afterwards.
    """
    import mdtraj

    try:
        trajectory.save(str(path))
        with mdtraj.open(str(path)) as file:
            n_frames = len(file)
    except Exception as error:
        raise OSError(errno.EIO, f"cannot be written ({error})", str(path)) from error
    if n_frames != len(trajectory):
        reason = f"cannot be written: it holds {n_frames} of {len(trajectory)} frames"
        raise OSError(errno.EIO, reason, str(path))


def _write_frames(path: Path, ensemble: Ensemble) -> None:
    columns = (ensemble.weights, ensemble.log_weights, ensemble.energy)
    rows = torch.stack(columns, 1)[ensemble.valid].tolist()
    samples = torch.nonzero(ensemble.valid)[:, 0].tolist()
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["frame", "sample", "weight", "log_weight", "energy_kj_per_mol"])
        for frame, (sample, row) in enumerate(zip(samples, rows, strict=True)):
            writer.writerow([frame, sample, *row])
