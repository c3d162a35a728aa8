"""A configuration for Colvars around a TorchScript file of collective variables."""

import math
from collections.abc import Sequence

from gencg.export.cv_function import CVFunction

DEGREE = math.pi / 180
LENGTHS = {"gromacs": 1.0, "real": 0.1}
"""nm per unit of length of Colvars' unit systems: GROMACS has nm; NAMD and LAMMPS real have Å."""


def colvars_names(function: CVFunction) -> dict[str, str]:
    """Colvars' name of each column."""
    return {column: f"cv{k}" for k, column in enumerate(function.columns)}


def colvars_input(
    function: CVFunction, *, model_file: str, units: str = "gromacs", title: str = "a molecule"
) -> str:
    r"""Text of a Colvars configuration: a colvar for every column.

    Colvars gives a dihedral in degrees and a distance in the units of the program that runs it,
    so ``componentCoeff`` brings them to rad and nm. It passes the inner components to the model
    in the order of their *names*: these begin with numbers of equal length.

    Args:
        function: The collective variables.
        model_file: Name of the TorchScript file.
        units: Unit system of the program, a key of `LENGTHS`; it matters if there are distances.
        title: Of what.

    Raises:
        ValueError: If the unit system is unknown.

    References:
        | https://colvars.github.io, torch-based collective variables
    """
    if units not in LENGTHS:
        raise ValueError(f"`units` must be among {', '.join(LENGTHS)}, got {units!r}")
    lines = [
        f"# Collective variables of {title}, written by gencg.",
        "# Atoms as in topology.pdb, counted from 1. Colvars must be built with LibTorch.",
        "# Versions before 2025 know output_component as m_output_index.",
    ]
    if function.distances:
        lines.append(f"units {units}")
    for name, k in function.angles.items():
        lines.append(f"# {name} is the angle with the cosine cv{k} and the sine cv{k + 1}")
    for k, (column, colvar) in enumerate(colvars_names(function).items()):
        lines += [
            "",
            f"# {column}",
            "colvar {",
            f"  name {colvar}",
            "  torchANN {",
            f"    modelFile {model_file}",
            f"    output_component {k}",
            *(f"    {line}" for line in _components(function, colvar, units)),
            "  }",
            "}",
        ]
    return "\n".join(lines) + "\n"


def _components(function: CVFunction, colvar: str, units: str) -> list[str]:
    groups: list[tuple[str, float, Sequence[int]]] = [
        *(("dihedral", DEGREE, quad) for quad in function.torsions.values()),
        *(("distance", LENGTHS[units], pair) for pair in function.distances.values()),
    ]
    width = len(str(len(groups)))
    lines = []
    for k, ((kind, factor, atoms), label) in enumerate(zip(groups, function.labels, strict=True)):
        lines += [
            f"{kind} {{",
            f"  name {colvar}_{k + 1:0{width}d}_{label}",
            f"  componentCoeff {factor!r}",
            *(f"  group{n} {{ atomNumbers {i + 1} }}" for n, i in enumerate(atoms, 1)),
            "}",
        ]
    return lines
