"""What a molecule knows from its bonds, and what it refuses.

Cannot detect: a missing hydrogen that leaves a plausible closed-shell molecule.
"""

import mdtraj
import numpy as np
import pytest
from molecules import MOLECULES, alkane, benzene, dipeptide, fluoroethanol, glycine, proline

from gencg.molecule import Molecule

N_ROTATABLE = {
    "water": 0,
    "hydrogen peroxide": 1,
    "methane": 0,
    "ethane": 1,
    "butane": 3,
    "dodecane": 11,
    "neopentane": 4,
    "cyclohexane": 0,
    "benzene": 0,
    "(E)-2-butene": 3,
    "(Z)-2-butene": 3,
    "glycine zwitterion": 2,
    "acetamide": 2,
    "methylamine": 1,
    "trifluoroethane": 1,
    "1-fluoroethanol": 2,
    "ACE-PRO-NME": 5,
    "alanine dipeptide": 7,
}


@pytest.mark.parametrize("name", MOLECULES)
def test_every_molecule(name: str) -> None:
    molecule = MOLECULES[name]()
    n = molecule.n_atoms

    # Names, elements and masses are those of the topology, names without repetition
    assert len(molecule.names) == len(set(molecule.names)) == len(molecule.elements) == n
    assert molecule.masses.sum() == pytest.approx(
        sum(atom.element.mass for atom in molecule.topology.atoms)
    )

    # Euler: bonds - atoms + 1 independent cycles; bridges are the bonds which no cycle holds
    n_cycles = len(molecule.bonds) - n + 1
    assert n_cycles == (1 if molecule.ring_bonds.any() else 0)
    assert len(molecule.rotatable_bonds()) == N_ROTATABLE[name]

    # Equivalent atoms are of one element and have equivalent neighbours
    classes = molecule.equivalence_classes()
    for i in range(n):
        for j in np.flatnonzero(classes == classes[i]):
            assert molecule.elements[i] == molecule.elements[j]
            assert sorted(classes[list(molecule.neighbours[i])]) == sorted(
                classes[list(molecule.neighbours[j])]
            )

    # To MDTraj and back
    again = Molecule.from_mdtraj(molecule.to_mdtraj())
    assert np.allclose(again.positions, molecule.positions, atol=1e-6)
    assert (again.bonds == molecule.bonds).all()


def test_symmetry_classes_of_known_molecules() -> None:
    assert len(set(MOLECULES["neopentane"]().equivalence_classes())) == 3
    assert len(set(benzene().equivalence_classes())) == 2
    assert len(set(alkane().equivalence_classes())) == 4
    # N, H3, CA, HA2, C, O2
    assert len(set(glycine().equivalence_classes())) == 6


def test_stereocentres_have_the_hand_of_the_reference() -> None:
    right, left = fluoroethanol(1), fluoroethanol(-1)
    ((atom, neighbours, hand),) = right.stereocentres()
    assert atom == 0
    assert neighbours == (1, 2, 3, 4)
    assert left.stereocentres() == [(0, neighbours, -hand)]
    assert [molecule.stereocentres() for molecule in (alkane(), glycine())] == [[], []]
    ((alpha, _, _),) = dipeptide().stereocentres()
    assert dipeptide().names[alpha] == "ALA2-CA"


def test_backbone_torsions_are_those_of_mdtraj() -> None:
    molecule = dipeptide()
    assert repr(molecule) == "Molecule(n_atoms=22, residues=ACE1-ALA2-NME3)"
    torsions = dict(molecule.phi_psi())
    assert list(torsions) == ["phi(ALA2)", "psi(ALA2)"]
    trajectory = molecule.to_mdtraj()
    assert torsions["phi(ALA2)"] == tuple(mdtraj.compute_phi(trajectory)[0][0])
    assert torsions["psi(ALA2)"] == tuple(mdtraj.compute_psi(trajectory)[0][0])
    labels = [label for label, _ in proline().named_torsions()]
    assert labels == ["phi(PRO2)", "psi(PRO2)", "omega(PRO2)", "chi1(PRO2)", "chi2(PRO2)"]


def _without(molecule: Molecule, drop: list[int]) -> tuple[mdtraj.Topology, np.ndarray]:
    keep = [i for i in range(molecule.n_atoms) if i not in drop]
    return molecule.topology.subset(keep), molecule.positions[keep]


def test_wrong_molecules_are_refused_with_the_cure() -> None:
    molecule = alkane()
    topology, x = molecule.topology, molecule.positions
    with pytest.raises(ValueError, match=r"`positions` must have shape \(14, 3\).*got \(13, 3\)"):
        Molecule(topology, x[1:])
    bad = x.copy()
    bad[3, 1] = np.nan
    with pytest.raises(ValueError, match=r"must be finite, got .*nan.* for atom MOL1-C3"):
        Molecule(topology, bad)
    with pytest.raises(ValueError, match="give `positions` in nm"):
        Molecule(topology, 10 * x)
    with pytest.raises(ValueError, match=r"0.02 to 0.4 nm long, got 0.000 nm for MOL1-C0"):
        Molecule(topology, 0 * x)
    two = topology.join(topology)
    with pytest.raises(ValueError, match="2 disconnected parts, of 14 and 14 atoms, starting at"):
        Molecule(two, np.concatenate([x, x + 2]))
    bare = topology.copy()
    bare._bonds = []
    with pytest.raises(ValueError, match="no bonds between its 14 atoms"):
        Molecule(bare, x)


@pytest.mark.parametrize(
    ("molecule", "drop"),
    [(alkane(), [4]), (alkane(), [7]), (alkane(), list(range(4, 14))), (fluoroethanol(), [5])],
    ids=["CH2.", "CH", "no hydrogens", "alkoxide"],
)
def test_missing_hydrogens_are_refused(molecule: Molecule, drop: list[int]) -> None:
    topology, x = _without(molecule, drop)
    with pytest.raises(ValueError, match="hydrogens seem to be missing at MOL1-"):
        Molecule(topology, x)
    assert Molecule(topology, x, check=False).n_atoms == len(x)


def test_another_conformation_is_not_checked_for_its_shape() -> None:
    molecule = alkane()
    crumpled = molecule.with_positions(molecule.positions * [1, 1, 0.1])
    assert crumpled.topology is molecule.topology
    assert crumpled.n_atoms == 14
