"""HDF5 files read as data alone, whoever wrote them.

PyTables, through which MDTraj reads its HDF5 trajectories, unpickles attributes, so that a file can
run code. Here h5py reads arrays of plain numbers that lie in the file itself, and never more of
them than its length allows.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

HDF5_SUFFIXES = (".h5", ".hdf5")
MOST_PACKED = 100
"""Bytes of an array at most for each byte of its file: what compression may save."""
CHECKSUM = "sha256"
"""Attribute of a file with the checksum of its arrays and figures."""


@contextmanager
def reading(path: Path) -> Iterator[Any]:
    """An open file, in which whatever goes wrong is a `ValueError` that gives the reason."""
    try:
        with h5py.File(path, "r") as file:
            yield file
    except MemoryError:
        raise
    # The library under h5py tells of damage in as many ways as there are
    except Exception as error:
        reason = " ".join(str(error).strip("'\"").split()) or type(error).__name__
        raise ValueError(reason) from error


def array(file: Any, name: str, *, kind: str, ndim: int | None = None) -> NDArray[Any]:
    """An array of an open file.

    Args:
        file: From `reading`.
        name: Its name.
        kind: Kinds of its numbers as of NumPy: "f", "b", "S".
        ndim: Its number of axes, where it is known.

    Raises:
        ValueError: If there is none, it is of another kind, lies elsewhere, or is said to be larger
            than the file can hold.
    """
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise ValueError(f"it has no array {name}")
    found = file[name]
    if not isinstance(found, h5py.Dataset) or found.shape is None:
        raise ValueError(f"{name} is no array")
    if found.external or found.is_virtual:
        raise ValueError(f"{name} lies in another file")
    if found.dtype.kind not in kind or (ndim is not None and found.ndim != ndim):
        raise ValueError(f"{name} is no array of such numbers, but {found.dtype} {found.shape}")
    if found.nbytes > MOST_PACKED * file.id.get_filesize():
        raise ValueError(f"{name} is said to have {found.nbytes:,} bytes, more than fit in")
    values: NDArray[Any] = found[()]
    return values


def checksum(arrays: Iterable[tuple[str, NDArray[Any]]], figures: Iterable[Any]) -> str:
    """SHA-256 of arrays with their names and shapes, and of single figures."""
    digest = hashlib.sha256(repr([*figures]).encode())
    for name, values in arrays:
        digest.update(f"{name} {values.dtype.str} {values.shape}\n".encode())
        digest.update(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def read_topology(file: Any) -> Any:
    """MDTraj topology of an open MDTraj HDF5 file.

    Raises:
        ValueError: If it is not as MDTraj writes it.
    """
    from mdtraj import Topology
    from mdtraj.core.element import get_by_symbol, virtual
    from mdtraj.core.topology import bond_name_to_type

    layout = json.loads(array(file, "topology", kind="S", ndim=1)[0])
    topology = Topology()
    for chain in _in_order(layout["chains"]):
        to_chain = topology.add_chain(chain.get("chain_id"))
        for residue in _in_order(chain["residues"]):
            number, segment = residue.get("resSeq"), residue.get("segmentID", "")
            to = topology.add_residue(str(residue["name"]), to_chain, number, segment)
            for atom in _in_order(residue["atoms"]):
                symbol = str(atom["element"])
                element = virtual if symbol in ("", "VS") else get_by_symbol(symbol)
                charge = atom.get("formal_charge")
                topology.add_atom(str(atom["name"]), element, to, formal_charge=charge)
    atoms = list(topology.atoms)
    kinds = layout.get("bond_metadata") or [{"type": None, "order": None}] * len(layout["bonds"])
    for (i, j), bond in zip(layout["bonds"], kinds, strict=True):
        if not (0 <= i < len(atoms) and 0 <= j < len(atoms)):
            raise ValueError(f"its topology has no bond of atoms {i} and {j}")
        kind = None if bond["type"] is None else bond_name_to_type(bond["type"])
        topology.add_bond(atoms[i], atoms[j], order=bond["order"], type=kind)
    return topology


def read_trajectory(path: Path) -> Any:
    """An MDTraj HDF5 trajectory, as `mdtraj.load` would give it.

    Raises:
        ValueError: If it is damaged or not as MDTraj writes it.
    """
    from mdtraj import Trajectory

    with reading(path) as file:
        x = _in_unit(file, "coordinates", ("nanometers",), ndim=3)
        parts = {}
        if "time" in file:
            parts["time"] = _in_unit(file, "time", ("picoseconds",), ndim=1)
        if "cell_lengths" in file and "cell_angles" in file:
            parts["unitcell_lengths"] = _in_unit(file, "cell_lengths", ("nanometers",), ndim=2)
            parts["unitcell_angles"] = _in_unit(file, "cell_angles", ("degrees",), ndim=2)
        return Trajectory(x, read_topology(file), **parts)


def _in_unit(file: Any, name: str, units: tuple[str, ...], *, ndim: int) -> NDArray[Any]:
    values = array(file, name, kind="f", ndim=ndim)
    unit = file[name].attrs.get("units", np.bytes_(units[0]))
    word = unit.decode() if isinstance(unit, bytes) else str(unit)
    if word not in units:
        raise ValueError(f"{name} must be in {units[0]}, got {word[:40]!r}")
    return values


def _in_order(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(items, key=lambda item: item.get("index", 0))
