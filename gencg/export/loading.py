"""Trajectories of other programs, read through MDTraj."""

from pathlib import Path
from typing import Any

import numpy as np

SELF_CONTAINED = (
    ".pdb", ".pdb.gz", ".ent", ".h5", ".hdf5", ".lh5", ".cif", ".cif.gz", ".pdbx", ".gro",
    ".mol2", ".arc", ".hoomdxml", ".gsd",
)  # fmt: skip
"""Formats that name their atoms themselves."""


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

    if suffix not in FormatRegistry.loaders:
        raise ValueError(
            f"trajectory {path} has no format that MDTraj knows ({suffix or 'no suffix'}); known "
            f"are {' '.join(sorted(FormatRegistry.loaders))} .npy"
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
        return load(str(path)) if names_itself else load(str(path), top=str(top))
    except Exception as error:
        files = f"trajectory {path}" + ("" if names_itself else f" with --top {top}")
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "no reason given"
        raise ValueError(f"{files} cannot be read ({type(error).__name__}: {reason})") from error


def _load_array(path: Path) -> Any:
    try:
        array = np.load(path, allow_pickle=False)
        return array.astype(np.float64)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"trajectory {path} is no array of numbers ({error})") from error


def _check_file(path: Path, noun: str) -> None:
    if not path.is_file():
        kind = "is a folder, not a file" if path.is_dir() else "does not exist"
        raise ValueError(f"{noun} {path} {kind}")


def _suffix(path: Path) -> str:
    """The suffix in lower case, ``.pdb.gz`` whole."""
    name = path.name.lower()
    return next((s for s in SELF_CONTAINED if name.endswith(s)), path.suffix.lower())
