"""Atoms of a trajectory found in the molecule: any order, other names, clear refusals.

Cannot detect a trajectory whose names are right and whose positions are swapped between atoms of
one element that lie close to each other.
"""

import logging

import mdtraj
import numpy as np
import pytest
from molecules import MOLECULES, alkane, benzene, dipeptide, fluoroethanol, glycine

from gencg.molecule import Molecule


def rebuilt(
    molecule: Molecule,
    order,
    *,
    rename=lambda name, residue: name,
    residue_of=lambda residue: residue.name,
    bonds: bool = True,
    water: int = 0,
    first: int = 0,
):
    """Trajectory of two frames with the atoms in another order, under other names."""
    topology, residues = mdtraj.Topology(), {}
    chain = topology.add_chain()
    for _ in range(first):
        _water(topology, chain)
    for old in molecule.topology.residues:
        name = residue_of(old)
        residues[old.index] = residues.get(name) if name == "ONE" else None
        if residues[old.index] is None:
            residues[old.index] = topology.add_residue(name, chain, resSeq=old.resSeq)
            residues.setdefault(name, residues[old.index])
    place = {}
    for i in order:
        atom = molecule.topology.atom(int(i))
        new = rename(atom.name, atom.residue.name)
        place[int(i)] = topology.add_atom(new, atom.element, residues[atom.residue.index])
    if bonds:
        for a, b in molecule.topology.bonds:
            if a.index in place and b.index in place:
                topology.add_bond(place[a.index], place[b.index])
    for _ in range(water):
        _water(topology, chain)
    rng = np.random.default_rng(0)
    x = molecule.positions + rng.normal(0, 0.003, (2, *molecule.positions.shape))
    x = x.astype(np.float32)
    xyz = np.zeros((2, topology.n_atoms, 3), dtype=np.float32)
    xyz[:, [place[int(i)].index for i in order]] = x[:, order]
    return mdtraj.Trajectory(xyz, topology), x.astype(np.float64)


def _water(topology, chain) -> None:
    residue = topology.add_residue("HOH", chain)
    atoms = [
        topology.add_atom(name, mdtraj.core.element.get_by_symbol(name[0]), residue)
        for name in ("O", "H1", "H2")
    ]
    for atom in atoms[1:]:
        topology.add_bond(atoms[0], atom)


def permutation(molecule: Molecule, seed: int = 1):
    return np.random.default_rng(seed).permutation(molecule.n_atoms)


@pytest.mark.parametrize("bonds", [True, False])
@pytest.mark.parametrize("name", MOLECULES)
def test_any_order_is_undone_exactly(name, bonds) -> None:
    molecule = MOLECULES[name]()
    trajectory, x = rebuilt(molecule, permutation(molecule), bonds=bonds)
    matched = molecule.match(trajectory)
    assert matched.dtype == np.float64
    assert np.array_equal(matched, x)
    # Its own trajectory comes back as it is
    assert np.array_equal(molecule.match(molecule.to_mdtraj(x)), x)


RENAMED = {
    "HA1 for HA, 1HB for HB1": lambda name, _: {
        "HA": "HA1",
        "HB1": "1HB",
        "HB2": "2HB",
        "HB3": "3HB",
        "H": "HN",
    }.get(name, name),
    "upper and lower case": lambda name, _: name.lower(),
    "numbers from another program": lambda name, residue: f"X{residue}{name}"[::-1],
}


@pytest.mark.parametrize("name", RENAMED)
def test_other_names_are_found_by_the_bonds(name) -> None:
    molecule = dipeptide()
    trajectory, x = rebuilt(molecule, permutation(molecule), rename=RENAMED[name])
    matched = molecule.match(trajectory)
    heavy = [i for i, e in enumerate(molecule.elements) if e != "H"]
    assert np.array_equal(matched[:, heavy], x[:, heavy])
    # Equal hydrogens on one atom may trade places, others may not
    for i in set(range(molecule.n_atoms)) - set(heavy):
        (parent,) = molecule.neighbours[i]
        equal = [j for j in molecule.neighbours[parent] if molecule.elements[j] == "H"]
        assert any(np.array_equal(matched[:, i], x[:, j]) for j in equal)


def test_residues_of_another_division_are_found_by_the_bonds() -> None:
    # As CHARMM writes alanine dipeptide: one residue
    molecule = dipeptide()
    trajectory, x = rebuilt(
        molecule,
        permutation(molecule),
        rename=lambda name, residue: name + residue[0],
        residue_of=lambda residue: "ONE",
    )
    assert trajectory.topology.n_residues == 1
    heavy = [i for i, e in enumerate(molecule.elements) if e != "H"]
    assert np.array_equal(molecule.match(trajectory)[:, heavy], x[:, heavy])


def test_a_shared_name_that_means_another_atom_does_not_mislead() -> None:
    # C and CH3 of ACE under each other's name: the bonds know better
    molecule = dipeptide()
    swap = {("C", "ACE"): "CH3", ("CH3", "ACE"): "C"}
    trajectory, x = rebuilt(
        molecule,
        permutation(molecule),
        rename=lambda name, residue: swap.get((name, residue), name),
    )
    heavy = [i for i, e in enumerate(molecule.elements) if e != "H"]
    assert np.array_equal(molecule.match(trajectory)[:, heavy], x[:, heavy])


@pytest.mark.parametrize("first", [0, 2])
@pytest.mark.parametrize("bonds", [True, False])
def test_water_is_left_out_and_said_so(bonds, first, caplog) -> None:
    molecule = dipeptide()
    trajectory, x = rebuilt(
        molecule, permutation(molecule), bonds=bonds, water=5 - first, first=first
    )
    with caplog.at_level(logging.INFO, logger="gencg"):
        assert np.array_equal(molecule.match(trajectory), x)
    assert "matched the molecule's 22 of 37 atoms of the trajectory; left out: HOH" in caplog.text


def test_a_molecule_in_water_is_found_by_its_bonds_under_other_residue_names() -> None:
    molecule = alkane(4)
    trajectory, x = rebuilt(
        molecule,
        permutation(molecule),
        rename=lambda name, _: f"Q{name}",
        residue_of=lambda residue: "BUT",
        water=3,
    )
    with pytest.raises(ValueError, match=r"atoms cannot be told apart.*other names"):
        # Butane's two ends are alike
        molecule.match(trajectory)
    trajectory, x = rebuilt(
        molecule, permutation(molecule), residue_of=lambda residue: "BUT", water=3
    )
    with pytest.raises(ValueError, match="cannot be told apart"):
        molecule.match(trajectory)
    lone = fluoroethanol()
    trajectory, x = rebuilt(lone, permutation(lone), residue_of=lambda residue: "FET", water=3)
    heavy = [i for i, e in enumerate(lone.elements) if e != "H"]
    assert np.array_equal(lone.match(trajectory)[:, heavy], x[:, heavy])


def test_missing_hydrogens_are_named() -> None:
    molecule = dipeptide()
    heavy = [i for i, e in enumerate(molecule.elements) if e != "H"]
    trajectory, _ = rebuilt(molecule, heavy)
    with pytest.raises(
        ValueError, match=r"`trajectory` lacks 12 of the 12 hydrogens, such as ACE1-H1;.*write"
    ):
        molecule.match(trajectory)
    polar = [*heavy, molecule.names.index("ALA2-H"), molecule.names.index("NME3-H")]
    trajectory, _ = rebuilt(molecule, polar, bonds=False)
    with pytest.raises(ValueError, match="lacks 10 of the 12 hydrogens"):
        molecule.match(trajectory)


def test_another_molecule_is_named() -> None:
    with pytest.raises(
        ValueError,
        match=r"not of this molecule: it holds C2H5NO2 \(GLY\), the molecule is C6H12N2O2 \(ACE",
    ):
        dipeptide().match(glycine().to_mdtraj())
    backbone = dipeptide()
    trajectory, _ = rebuilt(backbone, backbone.backbone())
    with pytest.raises(ValueError, match=r"it holds C2N \(ALA\), the molecule is C6H12N2O2"):
        backbone.match(trajectory)


def test_an_isomer_is_refused() -> None:
    # The fluorine and a hydrogen of the methyl trade bonds: the same names, another molecule
    molecule = fluoroethanol()
    trajectory, _ = rebuilt(molecule, range(molecule.n_atoms), bonds=False)
    bonds = {tuple(b) for b in molecule.bonds.tolist()}
    fluorine, carbon, other = 2, 0, 1
    hydrogen = next(j for j in molecule.neighbours[other] if molecule.elements[j] == "H")
    bonds -= {(carbon, fluorine), (other, hydrogen)}
    bonds |= {(other, fluorine), (carbon, hydrogen)}
    for i, j in bonds:
        trajectory.topology.add_bond(trajectory.topology.atom(i), trajectory.topology.atom(j))
    with pytest.raises(ValueError, match="is another isomer or protonation state of C2H5FO"):
        molecule.match(trajectory)


def test_other_names_without_bonds_are_refused() -> None:
    molecule = dipeptide()
    trajectory, _ = rebuilt(
        molecule, permutation(molecule), rename=lambda name, _: f"Q{name}", bonds=False
    )
    with pytest.raises(ValueError, match=r"no atom named ACE1-H1 and no bonds to find it by"):
        molecule.match(trajectory)


def test_symmetric_atoms_under_other_names_are_refused() -> None:
    molecule = benzene()
    trajectory, _ = rebuilt(molecule, permutation(molecule), rename=lambda name, _: f"Q{name}")
    with pytest.raises(ValueError, match=r"cannot be told apart by bonds: MOL1-C0 and its like"):
        molecule.match(trajectory)


def test_two_copies_are_refused() -> None:
    molecule = dipeptide()
    trajectory = molecule.to_mdtraj()
    with pytest.raises(ValueError, match=r"holds the molecule 2 times; .*atom_slice"):
        molecule.match(trajectory.stack(trajectory))


def test_a_molecule_cut_by_the_box_is_refused() -> None:
    molecule = dipeptide()
    trajectory = molecule.to_mdtraj(np.repeat(molecule.positions[None], 3, 0))
    trajectory.xyz[1, 10:] += 2.0
    with pytest.raises(ValueError, match=r"frame 1: bond .* nm long.*positions in nm"):
        molecule.match(trajectory)
    trajectory.unitcell_lengths = np.full((3, 3), 2.0)
    trajectory.unitcell_angles = np.full((3, 3), 90.0)
    with pytest.raises(ValueError, match=r"frame 1: bond .* cut by the unit cell.*image_molecules"):
        molecule.match(trajectory)


def test_frames_that_are_not_finite_and_other_things_are_refused() -> None:
    molecule = dipeptide()
    trajectory = molecule.to_mdtraj(np.repeat(molecule.positions[None], 3, 0))
    trajectory.xyz[2, 8] = np.nan
    with pytest.raises(ValueError, match=r"must be finite, got \[nan.*frame 2, atom ALA2-CA"):
        molecule.match(trajectory)
    with pytest.raises(ValueError, match="must be an MDTraj trajectory, got ndarray"):
        molecule.match(molecule.positions)
    with pytest.raises(ValueError, match="`trajectory` has no frames"):
        molecule.match(trajectory[:0])


def test_residues_under_their_amber_names_are_the_same() -> None:
    molecule = dipeptide()
    trajectory, x = rebuilt(
        molecule,
        permutation(molecule),
        residue_of=lambda residue: {"ALA": "NALA", "NME": "nma"}.get(residue.name, residue.name),
        bonds=False,
    )
    assert np.array_equal(molecule.match(trajectory), x)
