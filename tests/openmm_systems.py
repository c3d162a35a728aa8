"""OpenMM systems of the two test molecules, one per combination of force field and solvent."""

import copy
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import openmm
import openmm.app as app
import pytest
import torch
from torch import Tensor

import gencg.systems

STRUCTURES = {
    "dipeptide": Path(gencg.systems.__file__).parent / "data" / "alanine_dipeptide.pdb",
    "pentapeptide": Path(__file__).parent / "data" / "pentapeptide.pdb",
}
DATA = Path(app.__file__).parent / "data"
"""Where OpenMM keeps its force fields."""
SOLVENTS = {
    "vacuum": None,
    "hct": "implicit/hct.xml",
    "obc1": "implicit/obc1.xml",
    "obc2": "implicit/obc2.xml",
    "gbn": "implicit/gbn.xml",
    "gbn2": "implicit/gbn2.xml",
}
FORCE_FIELDS = {
    "amber96": "amber96.xml",
    "amber99sbildn": "amber99sbildn.xml",
    "amber14": "amber14-all.xml",
    "amber19": "amber19-all.xml",
}
WITH_AMBER19 = (8, 3)
"""The first version of OpenMM that has amber19."""
COMBINATIONS = [
    (molecule, force_field, solvent)
    for molecule in STRUCTURES
    for force_field in FORCE_FIELDS.values()
    for solvent in SOLVENTS.values()
]
COMBINATIONS += [(molecule, "amber96.xml", "amber96_obc.xml") for molecule in STRUCTURES]
COMBINATIONS += [(molecule, "amber99sbildn.xml", "amber99_obc.xml") for molecule in STRUCTURES]
# CHARMM36 has no unique template for the dipeptide; its 2024 edition has, and takes long to read,
# and again for each molecule: charged residues are left to the older one
COMBINATIONS += [("pentapeptide", "charmm36.xml", solvent) for solvent in SOLVENTS.values()]
SLOW_COMBINATIONS = [("dipeptide", "charmm36_2024.xml", solvent) for solvent in SOLVENTS.values()]


@cache
def structure(molecule: str) -> app.PDBFile:
    """Topology and positions of a test molecule."""
    return app.PDBFile(str(STRUCTURES[molecule]))


def reference(molecule: str = "dipeptide") -> Tensor:
    """Minimised positions, ``(n_atoms, 3)`` in nm, float64."""
    return torch.as_tensor(np.array(structure(molecule).getPositions(asNumpy=True)._value))


def distorted(molecule: str = "dipeptide", n: int = 20, *, largest: float = 0.03) -> Tensor:
    """Geometries ``(n, n_atoms, 3)`` with noise growing from nothing to `largest` nm."""
    generator = torch.Generator().manual_seed(1)
    x = reference(molecule)
    noise = torch.randn(n, *x.shape, generator=generator, dtype=x.dtype)
    return x + torch.linspace(0, largest, n, dtype=x.dtype)[:, None, None] * noise


@cache
def force_field(*files: str) -> app.ForceField:
    """A force field, read once; the test is skipped where OpenMM is older than it."""
    version = tuple(map(int, openmm.__version__.split(".")[:2]))
    if FORCE_FIELDS["amber19"] in files and version < WITH_AMBER19:
        pytest.skip(f"OpenMM {openmm.__version__} has no {FORCE_FIELDS['amber19']}")
    return app.ForceField(*files)


@cache
def build_in_vacuum(molecule: str, *files: str) -> openmm.System:
    """The system of a molecule, built once."""
    return force_field(*files).createSystem(structure(molecule).topology, constraints=None)


def build_system(
    molecule: str = "dipeptide",
    files: str = "amber96.xml",
    solvent: str | None = "implicit/obc1.xml",
) -> openmm.System:
    """An OpenMM system without constraints."""
    if solvent is None or not solvent.startswith("implicit/"):
        return copy.deepcopy(build_in_vacuum(molecule, *filter(None, (files, solvent))))
    system = copy.deepcopy(build_in_vacuum(molecule, files))
    # What OpenMM runs when this file is given beside the force field
    script = ElementTree.parse(DATA / solvent).find("Script").text
    topology, method = structure(molecule).topology, app.NoCutoff
    names = {"sys": system, "topology": topology, "nonbondedMethod": method, "args": {}}
    exec(script, names)
    return system
