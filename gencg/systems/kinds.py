"""Kinds of targets: how each is recognised, which options it takes, how it is read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gencg.systems.amber import BESIDE as AMBER_BESIDE
from gencg.systems.amber import PRMTOP_SUFFIXES, is_prmtop, read_prmtop
from gencg.systems.base import System
from gencg.systems.gromacs import BESIDE as GROMACS_BESIDE
from gencg.systems.gromacs import TOP_SUFFIXES, read_gromacs, written_out
from gencg.systems.molecules import DEFAULT_FORCE_FIELD, read_pdb
from gencg.systems.parametrised import Parametrised
from gencg.systems.positions import STRUCTURE_SUFFIXES
from gencg.systems.sequence import read_sequence
from gencg.systems.serialized import XML_SUFFIXES, read_serialized

SEQUENCE = "sequence:"
_SOLVENT_FILE = "name it among the force-field files, such as implicit/obc2.xml"
_IN_TOPOLOGY = "the topology holds the parameters; leave it out"


@dataclass(frozen=True)
class Kind:
    """What is done with targets of one kind; at least one of `load` and `read` is given.

    Attributes:
        words: What it is, in words, "the Amber topology".
        matches: Whether a target is of this kind.
        options: Names of the options it takes, beside the temperature.
        load: Builds the system: ``load(target, temperature=..., **options)``, the temperature only
            where it is given.
        read: Reads what OpenMM knows of it: ``read(target, **options)``. Where it is given it
            serves `gencg energy`, and loading too unless there is a `load`.
        name: Name of the system; by default the stem of the file.
        forcefield: Force-field files where none are named.
        beside: Suffixes of the coordinate file that is looked for beside the target's.
        contents: What a run keeps of the target's file; None where it is no file.
        cures: What to do instead of giving an option that it does not take.
    """

    words: str
    matches: Callable[[str], bool]
    options: tuple[str, ...] = ()
    load: Callable[..., System] | None = None
    read: Callable[..., Parametrised] | None = None
    name: Callable[[str], str] = lambda target: Path(target).stem
    forcefield: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    contents: Callable[[str, Mapping[str, Any]], bytes] | None = None
    cures: Mapping[str, str] = field(default_factory=dict)

    def check(self, target: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """The options that are set, all of which apply.

        Raises:
            ValueError: If one does not.
        """
        unset: tuple[Any, ...] = ((), [], {})
        given = {
            name: value
            for name, value in options.items()
            # 0 is a value, of ph
            if value is not None and value is not False and value not in unset
        }
        for option in given:
            if option not in self.options:
                cure = self.cures.get(option, "leave it out")
                raise ValueError(f"`{option}` does not apply to {self.words} {target!r}; {cure}")
        if "ph" in given and "add_hydrogens" not in given:
            raise ValueError(
                "`ph` chooses the hydrogens that are added; give add_hydrogens (--add-hydrogens) "
                "too, or leave it out"
            )
        return given


def _has_suffix(*suffixes: str) -> Callable[[str], bool]:
    return lambda target: Path(target).suffix.lower() in suffixes


def _is_amber(target: str) -> bool:
    if Path(target).suffix.lower() in PRMTOP_SUFFIXES:
        return True
    # Both programs write .top
    return Path(target).suffix.lower() in TOP_SUFFIXES and is_prmtop(_head(target))


def _head(target: str) -> str:
    try:
        with open(target, "rb") as file:
            return file.read(200).decode("latin-1")
    except OSError:
        return ""


def _bytes(target: str, options: Mapping[str, Any]) -> bytes:
    return Path(target).read_bytes()


def _written_out(target: str, options: Mapping[str, Any]) -> bytes:
    return written_out(target, include_dir=options.get("include_dir")).encode()


def _read_sequence(target: str, **options: Any) -> Parametrised:
    return read_sequence(target.removeprefix(SEQUENCE), **options)


READ_KINDS = (
    Kind(
        "the sequence",
        lambda target: target.startswith(SEQUENCE),
        ("forcefield", "caps", "phi_psi"),
        read=_read_sequence,
        name=lambda target: target.removeprefix(SEQUENCE).strip(),
        forcefield=DEFAULT_FORCE_FIELD,
        cures={
            "implicit_solvent": _SOLVENT_FILE,
            "coordinates": "give phi_psi (--phi-psi), or a structure file as target",
            "add_hydrogens": "they are there",
            "ph": "write HID, HIE, HIP, ASH, GLH, LYN or CYM",
        },
    ),
    Kind(
        "the structure file",
        _has_suffix(*STRUCTURE_SUFFIXES),
        ("forcefield", "add_hydrogens", "ph"),
        read=read_pdb,
        forcefield=DEFAULT_FORCE_FIELD,
        contents=_bytes,
        cures={
            "implicit_solvent": _SOLVENT_FILE,
            "coordinates": "it holds them; give a topology (.prmtop, .top, .xml) as target",
        },
    ),
    Kind(
        "the Amber topology",
        _is_amber,
        ("coordinates", "implicit_solvent"),
        read=read_prmtop,
        beside=AMBER_BESIDE,
        contents=_bytes,
        cures={"forcefield": _IN_TOPOLOGY},
    ),
    Kind(
        "the GROMACS topology",
        _has_suffix(*TOP_SUFFIXES),
        ("coordinates", "implicit_solvent", "include_dir", "defines"),
        read=lambda target, coordinates=None, **options: read_gromacs(
            target, coordinates, **options
        ),
        beside=GROMACS_BESIDE,
        contents=_written_out,
        cures={"forcefield": _IN_TOPOLOGY},
    ),
    Kind(
        "the serialized system",
        _has_suffix(*XML_SUFFIXES),
        ("coordinates",),
        read=read_serialized,
        beside=STRUCTURE_SUFFIXES,
        contents=_bytes,
        cures={
            "forcefield": "it holds the parameters; leave it out",
            "implicit_solvent": "it holds all forces; leave it out",
        },
    ),
)
"""Kinds of molecules that OpenMM reads, the first that matches counts."""
