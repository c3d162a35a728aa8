"""Systems by name, as the command line asks for them."""

import difflib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gencg.systems.base import System
from gencg.systems.kinds import READ_KINDS, Kind
from gencg.systems.mmff_targets import MMFF_KINDS
from gencg.systems.molecules import (
    DATA,
    DIPEPTIDE_FORCE_FIELD,
    DIPEPTIDE_KNOWN,
    PEPTIDE_FORCE_FIELD,
    SystemOptions,
    alanine_dipeptide,
    alanine_hexapeptide,
    alanine_tetrapeptide,
    build,
    read_pdb,
)
from gencg.systems.parametrised import Parametrised
from gencg.systems.positions import AMBER_SUFFIXES, GRO_SUFFIXES, coordinates_beside
from gencg.systems.toys import (
    butane,
    curved_wells,
    double_well,
    gaussian_mixture,
    mueller_brown,
)

SYSTEMS: dict[str, Callable[..., System]] = {
    "double-well": double_well,
    "mueller-brown": mueller_brown,
    "curved-wells": curved_wells,
    "gaussian-mixture": gaussian_mixture,
    "butane": butane,
    "alanine-dipeptide": alanine_dipeptide,
    "alanine-tetrapeptide": alanine_tetrapeptide,
    "alanine-hexapeptide": alanine_hexapeptide,
}
"""Ready-made systems by name; the first line of each docstring describes it."""

FORCE_FIELDS = {
    "alanine-dipeptide": DIPEPTIDE_FORCE_FIELD,
    "alanine-tetrapeptide": PEPTIDE_FORCE_FIELD,
    "alanine-hexapeptide": PEPTIDE_FORCE_FIELD,
}
"""Force field of each ready-made molecule, that of its literature."""

STRUCTURES = {name: DATA / f"{name.replace('-', '_')}.pdb" for name in FORCE_FIELDS}
"""Structure file of each ready-made molecule."""

TOYS = ("double-well", "mueller-brown", "curved-wells", "gaussian-mixture", "butane")


def _ready_made(target: str, **options: Any) -> System:
    return SYSTEMS[target](**options)


def _read_ready_made(target: str, **options: Any) -> Parametrised:
    return read_pdb(STRUCTURES[target], **{"forcefield": FORCE_FIELDS[target]} | options)


KINDS = (
    Kind("the toy", lambda target: target in TOYS, load=_ready_made, name=str),
    Kind(
        "the ready-made molecule",
        lambda target: target in SYSTEMS,
        ("forcefield",),
        load=_ready_made,
        read=_read_ready_made,
        name=str,
        cures={"implicit_solvent": "name it among the force-field files"},
    ),
    *MMFF_KINDS,
    *READ_KINDS,
)
"""Everything that a target may mean; the first kind that matches counts."""

OPTIONS = tuple(sorted({option for kind in KINDS for option in kind.options}))
"""Options of all kinds."""


def describe(name: str) -> str:
    """One line about a ready-made system."""
    return (SYSTEMS[name].__doc__ or "").splitlines()[0]


def overview(name: str) -> dict[str, Any]:
    """What there is to know of a ready-made system, without building a molecule.

    Returns:
        ``description``, ``n_atoms`` (None for a toy), ``forcefield``, ``temperature`` in K, and
        ``known``: answers by name, with their source, as plain numbers and lists.
    """
    if name in TOYS:
        toy = SYSTEMS[name]()
        n_atoms, temperature, known = None, toy.temperature, toy.known
    else:
        lines = STRUCTURES[name].read_text().splitlines()
        n_atoms = sum(line.startswith(("ATOM", "HETATM")) for line in lines)
        temperature, known = 300.0, DIPEPTIDE_KNOWN if name == "alanine-dipeptide" else {}
    return {
        "description": describe(name),
        "n_atoms": n_atoms,
        "forcefield": list(FORCE_FIELDS.get(name, ())),
        "temperature": temperature,
        "known": {k: v.tolist() if hasattr(v, "tolist") else v for k, v in known.items()},
    }


_SMILES = re.compile(r"(?=.*[A-Za-z])(?:[BCNOPSFI]|Cl|Br|[bcnops]|\[[^\]\s]+\]|[-=#$:/\\.()%\d])+")
"""What may be a SMILES that lacks its prefix: at least one atom among its symbols."""


def kind_of(target: str) -> Kind:
    """What a target means.

    Raises:
        ValueError: If it is nothing that is known.
    """
    for kind in KINDS:
        if kind.matches(target):
            return kind
    if Path(target).suffix.lower() in AMBER_SUFFIXES + GRO_SUFFIXES:
        raise ValueError(
            f"`target` {target!r} holds coordinates alone; give the topology (.prmtop, .top) as "
            "target, and this file as coordinates (--coordinates)"
        )
    if Path(target).suffix.lower() == ".smi" and Path(target).exists():
        raise ValueError(
            f"`target` {target!r} is a file of many molecules, which `gencg run` takes; give one "
            "of its lines as smiles:..."
        )
    if Path(target).is_dir():
        raise ValueError(
            f"`target` {target!r} is a folder; give a molecule, and to go on with a run "
            "the command that began it"
        )
    if Path(target).exists():
        raise ValueError(
            f"`target` {target!r} is no file that gencg reads; it must be a .pdb, .cif, .sdf or "
            ".mol file, an Amber topology (.prmtop, .parm7, .top), a GROMACS topology (.top) or a "
            "serialized OpenMM system (.xml)"
        )
    near = difflib.get_close_matches(target, SYSTEMS, n=1)
    if not near and _SMILES.fullmatch(target):
        near = [f"smiles:{target}"]
    hint = f"did you mean {near[0]}? known" if near else "known"
    raise ValueError(
        f"`target` {target!r} is neither a ready-made system, nor a .pdb, .cif, .sdf, .prmtop, "
        f".top or .xml file, nor sequence:... or smiles:...; {hint} are {', '.join(SYSTEMS)}"
    )


def default_force_field(target: str) -> tuple[str, ...]:
    """Force-field files that a target is given where none are named; none for a toy."""
    return FORCE_FIELDS.get(target) or kind_of(target).forcefield


def default_coordinates(target: str) -> str | None:
    """The coordinate file beside a target's, where it needs one.

    Raises:
        FileNotFoundError: If it needs one and there is none.
    """
    suffixes = kind_of(target).beside
    return str(coordinates_beside(target, suffixes)) if suffixes else None


def load(
    target: str,
    *,
    temperature: float | None = None,
    kept: Mapping[str, str | Path] | None = None,
    **options: Any,
) -> System:
    """Build the system that a name, a path or a sequence means.

    Args:
        target: A name of `SYSTEMS`, the path of a structure file, of an Amber or GROMACS topology
            or of a serialized OpenMM system, ``sequence:`` with a peptide behind it, ``smiles:``
            with a SMILES, or FILE#NUMBER for a molecule of an SDF file.
        temperature: Temperature in K; None takes the default.
        kept: Copies to read in the place of files, by the path as it is given.
        **options: Options of the loader (`OPTIONS`), by name; None, empty or False takes the
            default.

    Raises:
        FileNotFoundError: If a path does not exist.
        ValueError: If the target is unknown, or an option does not apply to it.
    """
    kind, source, given = prepare(target, options, kept=kept)
    common: SystemOptions = {} if temperature is None else {"temperature": temperature}
    if kind.load is not None:
        return kind.load(source, **given, **common)
    assert kind.read is not None
    return build(kind.read(source, **given), kind.name(target), **common)


def read(
    target: str, *, kept: Mapping[str, str | Path] | None = None, **options: Any
) -> Parametrised | None:
    """What OpenMM knows of a target, as it is given; None of one that it knows nothing of.

    Arguments and errors are those of `load`.
    """
    kind, source, given = prepare(target, options, kept=kept)
    return None if kind.read is None else kind.read(source, **given)


def prepare(
    target: str, options: Mapping[str, Any], *, kept: Mapping[str, str | Path] | None = None
) -> tuple[Kind, str, dict[str, Any]]:
    """Kind of a target, what to read, and the options that are set; errors as of `load`."""
    if unknown := sorted(set(options) - set(OPTIONS)):
        raise TypeError(f"unknown option {unknown[0]!r}; known are {', '.join(OPTIONS)}")
    copies = {path: str(copy) for path, copy in (kept or {}).items()}
    source = copies.get(target, target)
    kind = kind_of(target if target in SYSTEMS else source)
    given = {name: _copied(value, copies) for name, value in kind.check(target, options).items()}
    if source != target:
        # A copy has its includes written out
        given.pop("include_dir", None)
    return kind, source, given


def _copied(value: Any, copies: Mapping[str, str]) -> Any:
    if isinstance(value, str | Path):
        return copies.get(str(value), value)
    if isinstance(value, list | tuple):
        return tuple(_copied(item, copies) for item in value)
    return value
