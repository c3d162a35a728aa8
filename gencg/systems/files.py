"""Files of one molecule: found, small enough, text, and without solvent."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

MAX_ATOMS = 2_000
"""Atoms of the largest molecule that is read; every pair of them has its place in memory."""
MAX_BYTES = 20_000_000
"""Size of the largest file that is read, ten times what `MAX_ATOMS` atoms take in any format."""
WATER = {"HOH", "WAT", "H2O", "TIP", "TIP3", "TIP4", "TP3", "TP4", "SPC", "OPC", "SOL", "DOD"}
IONS = {
    "NA", "NA+", "SOD", "LI", "LI+", "LIT", "K", "K+", "POT", "CL", "CL-", "CLA", "BR", "BR-",
    "MG", "MG2", "MG2+", "CA", "CAL", "CA2+", "ZN", "ZN2", "ZN2+", "IB", "CIP", "CIM",
}  # fmt: skip
"""Residue names of what a structure file often holds beside the molecule."""


def check_file(path: str | Path, *, kind: str, suffixes: str) -> Path:
    """The path of a file that is there, has contents, and is not too large.

    Args:
        path: The file.
        kind: What it should hold, in words, "structure".
        suffixes: Which files do, in words, "a .pdb or .cif".

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is a folder, empty or larger than `MAX_BYTES`.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no {kind} file at {path}; give the path of {suffixes}")
    if not path.is_file():
        raise ValueError(f"a {kind} must be {suffixes} file, got the folder {path}")
    n_bytes = path.stat().st_size
    if n_bytes == 0:
        raise ValueError(f"{path} is empty; give {suffixes} file")
    if n_bytes > MAX_BYTES:
        raise ValueError(
            f"{path} has {n_bytes / 1e6:.0f} MB, files of one molecule at most "
            f"{MAX_BYTES / 1e6:.0f} MB; {_one_molecule()}"
        )
    return path


def read_text(path: str | Path, *, kind: str, suffixes: str) -> str:
    """Text of a file; arguments and errors as of `check_file`, and `ValueError` for other files."""
    path = check_file(path, kind=kind, suffixes=suffixes)
    content = path.read_bytes()
    if b"\0" in content:
        raise ValueError(f"{path} is not a text file; give {suffixes} file")
    try:
        text = content.decode()
    except UnicodeDecodeError:
        # Names in the comments of older files
        text = content.decode("latin-1")
    if not text.strip():
        raise ValueError(f"{path} is empty; give {suffixes} file")
    return text


def check_n_atoms(source: str | Path, n_atoms: int) -> None:
    """Refuse more atoms than a molecule may have here.

    Raises:
        ValueError: If there are more than `MAX_ATOMS`.
    """
    if n_atoms > MAX_ATOMS:
        raise ValueError(f"{source} holds {n_atoms:,} atoms; {_one_molecule()}")


def check_no_solvent(source: str | Path, topology: Any) -> None:
    """Refuse water and ions beside a molecule.

    Raises:
        ValueError: If there are any.
    """
    names = [residue.name.upper() for residue in topology.residues()]
    n_solvent = sum(name in WATER | IONS for name in names)
    if n_solvent and len(names) > 1:
        raise ValueError(
            f"{source} holds {n_solvent} water molecules or ions; gencg describes one molecule in "
            "vacuum or implicit solvent: remove them (Modeller.deleteWater, cpptraj strip, "
            "gmx trjconv) from structure and topology"
        )


def check_order(
    source: str | Path, names: Sequence[Any], *, other: str | Path, expected: Sequence[Any]
) -> None:
    """Refuse atoms of two files that do not go together.

    Args:
        source: One file.
        names: Names, or masses, of its atoms.
        other: The other file.
        expected: Those of the other, which may name them otherwise.

    Raises:
        ValueError: If their numbers differ, or the names are the same in another order.
    """
    if len(names) != len(expected):
        raise ValueError(
            f"{source} holds {len(names)} atoms and {other} {len(expected)}; give two files of "
            "the same molecule"
        )
    if list(names) != list(expected) and sorted(names) == sorted(expected):
        i = next(i for i, pair in enumerate(zip(names, expected, strict=True)) if len({*pair}) > 1)
        raise ValueError(
            f"{source} holds the atoms of {other} in another order: number {i + 1} is {names[i]} "
            f"there and {expected[i]} here; write it again in the order of {other}"
        )


def one_line(error: Exception | Warning | str) -> str:
    """Message of an error of another program, on one line."""
    return " ".join(str(error).split()) or type(error).__name__


def _one_molecule() -> str:
    return (
        f"gencg describes one molecule of at most {MAX_ATOMS:,} atoms, in vacuum or implicit "
        "solvent: take out solvent, other molecules and further models"
    )
