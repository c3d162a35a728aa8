"""Trajectories of other programs, read through MDTraj."""

import gzip
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from gencg.export.hdf5 import HDF5_SUFFIXES, read_topology, read_trajectory, reading
from gencg.export.isolated import TRUSTING, load_apart

SELF_CONTAINED = (
    ".pdb", ".pdb.gz", ".ent", *HDF5_SUFFIXES, ".cif", ".cif.gz", ".pdbx", ".gro",
    ".mol2", ".arc", ".hoomdxml", ".gsd",
)  # fmt: skip
"""Formats that name their atoms themselves."""
LARGEST_UNPACKED = 2_000_000_000
"""Bytes that a packed file may have when it is unpacked."""


def load_trajectory(path: str | Path, top: str | Path | None = None) -> Any:
    """Read a trajectory whole.

    Args:
        path: Any format that MDTraj reads, or ``.npy`` with configurations ``(n, n_atoms, 3)`` in
            nm in the order of the run's own topology, ``(n, dim)`` for toys.
        top: File that names the atoms, for formats that do not: XTC, DCD, TRR and others.

    Returns:
        MDTraj trajectory, or the array of an ``.npy`` file.

    Raises:
        ValueError: If a file is missing or cannot be read, the format is unknown, or it needs a
            topology and none is given.
    """
    path = Path(path)
    _check_file(path, "trajectory")
    if path.suffix.lower() == ".npy":
        return _load_array(path)
    suffix = _suffix(path)
    from mdtraj import FormatRegistry, load

    known = {*FormatRegistry.loaders, *HDF5_SUFFIXES} - {".lh5"}
    if suffix not in known:
        raise ValueError(
            f"trajectory {path} has no format that is read here ({suffix or 'no suffix'}); known "
            f"are {' '.join(sorted(known))} .npy"
        )
    if top is not None:
        _check_file(Path(top), "topology")
    elif suffix not in SELF_CONTAINED:
        raise ValueError(
            f"trajectory {path} does not name its atoms; give a file that does with --top, such "
            "as the PDB file it was made from"
        )
    names_itself = suffix in SELF_CONTAINED
    try:
        for file in [path] if names_itself else [path, Path(str(top))]:
            _check_unpacked(file)
        if suffix in HDF5_SUFFIXES:
            return read_trajectory(path)
        if names_itself:
            return load(str(path))
        topology = _topology(str(top))
        if suffix in TRUSTING:
            return load_apart(path, topology)
        return load(str(path), top=topology)
    except Exception as error:
        files = f"trajectory {path}" + ("" if names_itself else f" with --top {top}")
        reason = " ".join(str(error).split())[:300] or "no reason given"
        raise ValueError(f"{files} cannot be read ({type(error).__name__}: {reason})") from error


def _topology(path: str) -> Any:
    """The topology in a file; MDTraj would run the code in one of HDF5."""
    from mdtraj import load_topology

    if _suffix(Path(path)) not in (*HDF5_SUFFIXES, ".lh5"):
        return load_topology(path)
    with reading(Path(path)) as file:
        return read_topology(file)


def _check_unpacked(path: Path) -> None:
    """Refuse a packed file of a few bytes that would fill the memory."""
    if not path.name.lower().endswith(".gz"):
        return
    n_bytes = 0
    with gzip.open(path) as file:
        while piece := file.read(2**20):
            n_bytes += len(piece)
            if n_bytes > LARGEST_UNPACKED:
                raise ValueError(f"it has more than {LARGEST_UNPACKED:,} bytes when it is unpacked")


def _load_array(path: Path) -> Any:
    try:
        # Mapped, so that no more is taken than is there
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            array = np.lib.format.open_memmap(path, mode="r")
        if array.dtype.kind not in "fiu":
            raise ValueError(f"it holds {array.dtype}")
        return np.array(array, dtype=np.float64)
    except Exception as error:  # NumPy reads the head of the file as Python
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ValueError(f"trajectory {path} is no array of numbers ({reason})") from error


def _check_file(path: Path, noun: str) -> None:
    if not path.is_file():
        kind = "is a folder, not a file" if path.is_dir() else "does not exist"
        raise ValueError(f"{noun} {path} {kind}")


def _suffix(path: Path) -> str:
    """The suffix in lower case, ``.pdb.gz`` whole."""
    name = path.name.lower()
    return next((s for s in SELF_CONTAINED if name.endswith(s)), path.suffix.lower())
