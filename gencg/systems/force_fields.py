"""Force-field files by name, and the OpenMM system they make of a topology."""

import difflib
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from gencg.systems.missing import missing_atoms

_NOT_FORCE_FIELDS = {"hydrogens.xml", "glycam-hydrogens.xml", "residues.xml", "pdbNames.xml"}


@cache
def force_field_names() -> tuple[str, ...]:
    """Names of the force-field files that OpenMM ships."""
    from openmm import app

    data = Path(app.__file__).parent / "data"
    names = {path.relative_to(data).as_posix() for path in data.rglob("*.xml")}
    return tuple(sorted(names - _NOT_FORCE_FIELDS))


def load_force_field(names: Sequence[str]) -> Any:
    """OpenMM ``ForceField`` of XML files, by OpenMM's names or as paths.

    Args:
        names: Protein or ligand files first, then implicit solvent if any.

    Raises:
        FileNotFoundError: If a file, or one that it includes, is not known; the message lists
            similar names.
        ValueError: If there is none, a file is no force field, or two do not go together.
    """
    from openmm import app

    names = (names,) if isinstance(names, str) else tuple(map(str, names))
    if not names:
        raise ValueError("`forcefield` must name at least one file, such as amber14-all.xml")
    for name in names:
        if name not in force_field_names() and not Path(name).is_file():
            raise FileNotFoundError(f"`forcefield` {name!r} is neither a file nor one of OpenMM's"
                                    f"{_similar(name)}")  # fmt: skip
    try:
        return app.ForceField(*names)
    except Exception as error:  # the XML parser and OpenMM's own checks
        message = f"`forcefield` {' '.join(names)} cannot be loaded: {_line(error)}"
        if "Could not locate file" in message:
            raise FileNotFoundError(message) from error
        raise ValueError(message) from error


def force_field_words(names: Sequence[str]) -> str:
    """The force field in words: OpenMM's names, and files of the user's own without folders."""
    names = (names,) if isinstance(names, str) else tuple(map(str, names))
    return " + ".join(n if n in force_field_names() else Path(n).name for n in names)


def create_system(
    force_field: Any, topology: Any, *, source: str, is_protonated: bool = False
) -> Any:
    """OpenMM ``System`` without cutoff and constraints.

    Args:
        force_field: OpenMM ``ForceField``.
        topology: OpenMM ``Topology`` with all hydrogens.
        source: What the topology came from, for messages.
        is_protonated: Whether hydrogens have been added, so that none can be missing.

    Raises:
        ValueError: If a residue fits no template: a missing atom, an element or a residue that
            the force field lacks.
    """
    from openmm import app

    try:
        return force_field.createSystem(
            topology, nonbondedMethod=app.NoCutoff, constraints=None, rigidWater=False
        )
    except Exception as error:  # templates, typed terms and script sections all raise their own
        message = _with_residue_names(_line(error), topology)
        cure = _cure(message, missing_atoms(topology), is_protonated)
        raise ValueError(f"{source}: {message} {cure}".strip()) from error


def _with_residue_names(message: str, topology: Any) -> str:
    """OpenMM's message with the residue as the file calls it instead of its index."""
    residues = list(topology.residues())

    def rename(match: re.Match[str]) -> str:
        residue = residues[int(match[1])]
        return f"residue {residue.name} {residue.id} of chain {residue.chain.id}"

    message = message.split("For more information")[0].strip()
    return re.sub(r"residue (\d+) \(\w+\)", rename, message)


def _cure(message: str, missing: str, is_protonated: bool) -> str:
    if missing:
        return f"{missing}: add the heavy atoms (PDBFixer: findMissingAtoms, addMissingAtoms)."
    if is_protonated and "No template found" in message:
        return (
            "The force field lacks this residue in its state of protonation or at this end of a "
            "chain; choose another state (ph, HID, ASH), a cap or another force field."
        )
    if "missing" in message and " H atom" in message:
        return "Add the hydrogens with add_hydrogens=True (--add-hydrogens), or with PDBFixer."
    if "externally bonded" in message:
        return (
            "Add the hydrogens of a free end with add_hydrogens=True (--add-hydrogens), or a cap "
            "(ACE, NME); a residue that is none of the force field's (a D one by its own name) is "
            "built by sequence:ACE-D-ALA-NME."
        )
    if "no residue templates" in message:
        return "Name a force field before the solvent, such as amber14-all.xml."
    if "not supported by any template" in message or "No template found" in message:
        return "Repair the structure or name a force field that has this residue."
    return ""


def _similar(name: str) -> str:
    known = force_field_names()
    stems = {Path(k).stem: k for k in known}
    near = [stems[s] for s in difflib.get_close_matches(Path(name).stem, stems, n=3, cutoff=0.7)]
    near += difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    near = list(dict.fromkeys(near))[:5]
    return f"; similar: {', '.join(near)}" if near else "; such as amber14-all.xml, charmm36.xml"


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
