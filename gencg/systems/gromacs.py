"""Molecules from GROMACS: a topology with its includes, and its coordinates."""

import os
import re
import shutil
import tempfile
import traceback
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Unpack

from gencg.systems.base import System
from gencg.systems.files import check_n_atoms, check_no_solvent, one_line, read_text
from gencg.systems.implicit import add_implicit_solvent, solvent_name
from gencg.systems.molecules import SystemOptions, build
from gencg.systems.parametrised import Parametrised
from gencg.systems.positions import (
    GRO_SUFFIXES,
    STRUCTURE_SUFFIXES,
    coordinates_beside,
    read_positions,
)

TOP_SUFFIXES = (".top",)
BESIDE = (*GRO_SUFFIXES, *STRUCTURE_SUFFIXES)
INCLUDE = re.compile(r'^\s*#include\s+["<]([^">]+)[">]')


def from_gromacs(
    top: str | Path,
    gro: str | Path | None = None,
    *,
    include_dir: str | Path | None = None,
    implicit_solvent: str | None = None,
    defines: Mapping[str, str] | Iterable[str] = (),
    **options: Unpack[SystemOptions],
) -> System:
    """Build a system from a GROMACS topology (top) and coordinates (gro).

    OpenMM's `GromacsTopFile` reads the parameters, without constraints and cutoff; a box is left
    out. The structure is minimised as by `from_pdb`.

    Args:
        top: GROMACS topology of one molecule, without water and ions.
        gro: Coordinates, or a PDB or mmCIF file with the same atoms in the same order; by default
            the file of the same stem beside `top`.
        include_dir: Folder of the files that the topology includes, GROMACS' share/gromacs/top;
            by default that of an installed GROMACS. Files beside the topology are found without.
        implicit_solvent: "HCT", "OBC1", "OBC2", "GBn" or "GBn2", with OpenMM's standard radii and
            surface term (ACE); none is vacuum.
        defines: Macros, by value or by name alone ("POSRES" or "NAME=VALUE").
        **options: See `SystemOptions`.

    Raises:
        FileNotFoundError: If a file does not exist, included ones among them.
        ValueError: If a file is of another kind or of another molecule, water, ions or fixed bond
            lengths are there, or the solvent is unknown; and as of `from_system`.
    """
    parts = read_gromacs(
        top, gro, include_dir=include_dir, implicit_solvent=implicit_solvent, defines=defines
    )
    return build(parts, Path(top).stem, **options)


def read_gromacs(
    top: str | Path,
    gro: str | Path | None = None,
    *,
    include_dir: str | Path | None = None,
    implicit_solvent: str | None = None,
    defines: Mapping[str, str] | Iterable[str] = (),
) -> Parametrised:
    """What OpenMM makes of a GROMACS topology; arguments and errors as of `from_gromacs`."""
    from openmm import app

    path = Path(top)
    solvent = None if implicit_solvent is None else solvent_name(implicit_solvent)
    text = written_out(path, include_dir=include_dir)
    if not re.search(r"^\s*\[\s*molecules\s*\]", text, re.MULTILINE):
        raise ValueError(
            f"{path} is not a topology of GROMACS or Amber: it has no [ molecules ] and does not "
            "begin with %VERSION; give the .top file that grompp reads"
        )
    loaded = _load(path, text, include_dir, _as_mapping(defines))
    check_no_solvent(path, loaded.topology)
    check_n_atoms(path, loaded.topology.getNumAtoms())
    try:
        system = loaded.createSystem(
            nonbondedMethod=app.NoCutoff, constraints=None, rigidWater=False
        )
    except Exception as error:  # a missing type, an unknown function
        raise ValueError(
            f"{path} is not a topology that OpenMM can use: {one_line(error)}"
        ) from error
    if n_fixed := system.getNumConstraints():
        raise ValueError(
            f"{path} fixes {n_fixed} distances ([ constraints ], [ settles ]), which leaves them "
            "without energy; write them as [ bonds ] (pdb2gmx without -constraints)"
        )
    if solvent:
        add_implicit_solvent(system, loaded.topology, solvent)
    positions = read_positions(
        gro or coordinates_beside(path, BESIDE), loaded.topology, source=path
    )
    words = "GROMACS topology" + (f" + {solvent}" if solvent else "")
    return Parametrised(system, loaded.topology, positions, words)


def written_out(
    path: str | Path, *, include_dir: str | Path | None = None, within: tuple[Path, ...] = ()
) -> str:
    """Text of a topology with every file that it includes in its place.

    What the preprocessor would read, macros and conditions left as they are. A file that is not
    there stays an ``#include``: it may stand behind a condition that does not hold.

    Args:
        path: The topology.
        include_dir: See `from_gromacs`.
        within: Files that are being read.

    Raises:
        FileNotFoundError: If the topology or `include_dir` does not exist.
        ValueError: If a file is not text, too large, or includes itself.
    """
    path = Path(path).absolute()
    if include_dir is not None and not Path(include_dir).is_dir():
        raise FileNotFoundError(f"`include_dir` must be a folder, got {include_dir}")
    if path in within:
        raise ValueError(f"{path} includes itself; repair the topology")
    within = (*within, path)
    # As OpenMM: beside the topology, then among the includes, then beside the including file
    folders = (within[0].parent, include_dir or _default_include_dir(), path.parent)
    lines = []
    for line in read_text(path, kind="topology", suffixes="a .top").splitlines():
        match = INCLUDE.match(line)
        found = _find(match[1], folders) if match else None
        if found is None:
            lines.append(line)
        else:
            lines.append(written_out(found, include_dir=include_dir, within=within).rstrip("\n"))
    return "\n".join(lines) + "\n"


def _find(name: str, folders: Iterable[str | Path | None]) -> Path | None:
    paths = (Path(folder) / name for folder in folders if folder is not None)
    return next((path for path in paths if path.is_file()), None)


def _default_include_dir() -> Path | None:
    """Where an installed GROMACS keeps its force fields; None where there is none."""
    program = shutil.which("gmx")
    prefixes = [Path(program).parents[1] if program else None, Path("/usr/local/gromacs")]
    places = [os.environ.get("GMXLIB"), Path(os.environ.get("GMXDATA", "")) / "top"]
    places += [prefix / "share/gromacs/top" for prefix in prefixes if prefix is not None]
    return next((Path(place) for place in places if place and Path(place).is_dir()), None)


def _as_mapping(defines: Mapping[str, str] | Iterable[str]) -> dict[str, str]:
    if isinstance(defines, Mapping):
        return {str(name): str(value) for name, value in defines.items()}
    words = (defines,) if isinstance(defines, str) else defines
    pairs = (word.removeprefix("-D").partition("=") for word in words)
    return {name: value if equals else "1" for name, equals, value in pairs}


def _load(path: Path, text: str, include_dir: str | Path | None, defines: dict[str, str]) -> Any:
    from openmm import app

    with tempfile.TemporaryDirectory(prefix="gencg-") as folder, warnings.catch_warnings():
        # OpenMM leaves the file to the garbage collector
        warnings.simplefilter("ignore", ResourceWarning)
        file = Path(folder) / path.name
        file.write_text(text)
        try:
            return app.GromacsTopFile(str(file), includeDir=folder, defines=defines)
        except Exception as error:  # OpenMM's parser raises whatever it stumbles over
            traceback.clear_frames(error.__traceback__)
            message = one_line(error)
            _, found, name = message.partition("Could not locate #include file: ")
            if found:
                places = [path.parent, include_dir or _default_include_dir()]
                raise FileNotFoundError(
                    f"{path} includes {name}, which is not in "
                    f"{' or '.join(str(place) for place in places if place is not None)}; give "
                    "the folder that holds it (include_dir, --include-dir)"
                ) from error
            raise ValueError(
                f"{path} is not a GROMACS topology that OpenMM can read: {message}"
            ) from error
