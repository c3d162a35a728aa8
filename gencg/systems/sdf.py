"""Molecules from SDF and MOL files, with the Merck force field."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gencg.energies.mmff import check_rdkit, check_variant
from gencg.systems.assembly import Bond, check_settings
from gencg.systems.base import System
from gencg.systems.files import MAX_BYTES
from gencg.systems.small_molecules import MMFF_MAX_BARRIER, check_seed, mmff_system

logger = logging.getLogger("gencg")

SDF_SUFFIXES = (".sdf", ".sd", ".mol")


def from_sdf(
    path: str | Path,
    *,
    index: int | str | None = None,
    variant: str = "MMFF94",
    temperature: float = 300.0,
    seed: int = 0,
    soft_bonds: Iterable[Bond] | None = None,
    fold_rotors: bool = True,
    max_barrier: float = MMFF_MAX_BARRIER,
    name: str | None = None,
) -> System:
    """Build a system from a molecule of an SDF or MOL file, and MMFF in vacuum.

    Coordinates in space are minimised, and the minimum next to them is the reference, with their
    stereo. A drawing is embedded as a SMILES is, with the stereo of its wedges. Missing hydrogens
    are added, and the log says so. On MMFF see `from_smiles`, also for the other arguments.

    Args:
        path: The file, V2000 or V3000.
        index: Which molecule, from 0, or its title; by default the first, with a warning if there
            are more.
        variant: ``"MMFF94"`` or ``"MMFF94s"``.
        temperature: Default temperature in K.
        seed: Of the embedding, for a drawing.
        soft_bonds: Bonds (i, j) about which the molecule turns.
        fold_rotors: See `InternalCoordinates`.
        max_barrier: Barrier in kJ/mol above which a rotatable bond is stiff.
        name: Name of the system; by default the molecule's title, or the name of the file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file holds no molecule, or none of this index or title, or RDKit cannot
            read it; or for the molecule as in `from_smiles`.
    """
    check_settings(temperature=temperature, max_barrier=max_barrier)
    check_variant(variant)
    check_seed(seed)
    blocks = read_blocks(path)
    number = find_block(blocks, index, path)
    source = str(path) if len(blocks) == 1 else f"molecule {number} of {path}"
    return mmff_system(
        parse_block(blocks[number], source),
        source=source,
        variant=variant,
        temperature=temperature,
        seed=seed,
        soft_bonds=soft_bonds,
        fold_rotors=fold_rotors,
        max_barrier=max_barrier,
        name=name or title(blocks[number]) or Path(path).stem,
    )


def read_blocks(path: str | Path) -> list[str]:
    """The molecules of an SDF or MOL file, as text.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no text file, or holds no molecule.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no structure file at {path}; give the path of an .sdf or .mol")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(
            f"{path} has {path.stat().st_size / 1e6:.0f} MB, at most {MAX_BYTES / 1e6:.0f} MB are "
            "read; split it"
        )
    data = path.read_bytes()
    if b"\0" in data:
        raise ValueError(f"{path} is not a text file; give an .sdf or .mol file")
    blocks: list[list[str]] = [[]]
    for line in data.decode(errors="replace").splitlines():
        if line.startswith("$$$$"):
            blocks.append([])
        else:
            blocks[-1].append(line)
    # What follows the last separator is no molecule, if it is blank
    found = [block for block in blocks if any(line.strip() for line in block)]
    if not found:
        raise ValueError(f"{path} holds no molecule; give an .sdf or .mol file with one")
    return ["\n".join(block) + "\n" for block in found]


def title(block: str) -> str:
    """First line of a molecule: its title, which may be empty."""
    return block.splitlines()[0].strip()


def find_block(blocks: list[str], index: int | str | None, path: str | Path) -> int:
    """Number of the molecule with an index or a title.

    Raises:
        ValueError: If there is none, or several have the title.
    """
    if index is None:
        if len(blocks) > 1:
            logger.warning("%s holds %d molecules, the first is used", path, len(blocks))
        return 0
    if isinstance(index, int):
        if not 0 <= index < len(blocks):
            raise ValueError(
                f"`index` must be 0 to {len(blocks) - 1}, of the molecules in {path} from the "
                f"first, got {index}"
            )
        return index
    titles = [title(block) for block in blocks]
    if titles.count(index) != 1:
        shown = ", ".join([each or "(no title)" for each in titles[:5]])
        shown += ", ..." if len(titles) > 5 else ""
        raise ValueError(
            f"`index` must be the title of one molecule, got {index!r}, which "
            f"{titles.count(index)} of {len(titles)} in {path} have; titles are {shown}"
        )
    return titles.index(index)


def parse_block(block: str, source: str) -> Any:
    """RDKit's molecule of a MOL block, with the stereo of its coordinates or wedges.

    Raises:
        ValueError: If RDKit cannot read it, or its valences are impossible.
    """
    check_rdkit()
    from rdkit import Chem, rdBase

    with rdBase.BlockLogs():
        mol = Chem.MolFromMolBlock(block, sanitize=False, removeHs=False)
        if mol is None:
            raise ValueError(f"{source} is no MDL molecule: {_complaint(block)}; repair the file")
        if mol.GetNumAtoms() == 0:
            raise ValueError(f"{source} holds no atoms; give a molecule")
        try:
            Chem.SanitizeMol(mol)
        except Chem.MolSanitizeException as error:
            raise ValueError(f"{source} is no possible molecule: {error}") from error
        # Sanitised as it is read, RDKit takes the stereo of coordinates and wedges too
        return Chem.MolFromMolBlock(block, removeHs=False)


def _complaint(block: str) -> str:
    """What is wrong with a block that RDKit cannot read."""
    lines = block.splitlines()
    if len(lines) < 4:
        return f"it has {len(lines)} lines, where the fourth has the numbers of atoms and bonds"
    counts, version = lines[3], lines[3][34:39].strip()
    if version == "V3000":
        return "its V3000 part is broken"
    try:
        n_atoms, n_bonds = int(counts[:3]), int(counts[3:6])
    except ValueError:
        return f"its fourth line must have the numbers of atoms and bonds, got {counts.strip()!r}"
    n_rows = len(lines) - 4
    if n_rows < n_atoms + n_bonds:
        return f"it must have {n_atoms} atoms and {n_bonds} bonds, and ends after {n_rows} lines"
    return f"one of its {n_atoms} atom lines or {n_bonds} bond lines is broken"
