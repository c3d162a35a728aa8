"""Theorems of coordinates where a tree is not enough: rings, straight bonds, inverting nitrogen.

Cannot detect: puckers far outside the windows of small rings.
"""

import math

import pytest
import torch
from molecules import cyclohexane
from torch import Tensor
from torch.testing import assert_close

from gencg import systems
from gencg.coordinates.internal import FENCE, InternalCoordinates
from gencg.ensemble import weigh
from gencg.geometry import angles, dihedrals, distances
from gencg.molecule import Molecule
from gencg.target import BoltzmannTarget
from gencg.testing import check_coordinate_map

SOFT = {
    "C1CC1C": 1,  # cyclopropane is rigid, its methyl turns
    "C1CCC1": 1,
    "C1CCCC1": 2,
    "C1CCCCC1": 3,
    "C1CCCCCCC1": 5,
    "C1=CCCCC1": 3,
    "C1CC2CCC1C2": 3,  # norbornane
    "C1CCC2CCCCC2C1": 5,  # decalin
    "C12CC1C2": 0,  # two triangles that share a bond
    "C1C2CC3CC1CC(C2)C3": 6,  # adamantane
    "c1ccc2[nH]ccc2c1": 0,
    "c1ccoc1": 0,
    "OC1CCOC1": 3,
    "CC#N": 0,
    "CC#CC": 1,
    "C#CCO": 1,
    "N#CC1CCN(C)C1": 4,
    "CNC": 3,
    "CC1(C)CC1": 2,  # the first torsion about the root's second atom is zero, ring or not
    "CC1(C)CO1": 2,
    "CC1(CC1)C#N": 1,
    "CC1(C)NC1": 2,  # nitrogen in a ring of three keeps its side
    "C1CCCC#CCCCCCC1": 8,  # a ring that is straight where a breadth-first tree would meet
    "C1CN2CCC1CC2": 4,  # nitrogen in a cage stays on its side
    "C1CCN2CCCCC2C1": 6,  # in two rings side by side it turns over
}


def from_smiles(smiles: str) -> Molecule:
    chem = pytest.importorskip("rdkit.Chem")
    all_chem = pytest.importorskip("rdkit.Chem.AllChem")
    mol = chem.AddHs(chem.MolFromSmiles(smiles))
    unusual = {"useRandomCoords": True, "useBasicKnowledge": False} if "#" in smiles else {}
    assert all_chem.EmbedMolecule(mol, randomSeed=1, **unusual) == 0
    all_chem.MMFFOptimizeMolecule(mol, maxIters=2000)
    import mdtraj

    topology = mdtraj.Topology()
    residue = topology.add_residue("MOL", topology.add_chain())
    for atom in mol.GetAtoms():
        element = mdtraj.element.get_by_symbol(atom.GetSymbol())
        topology.add_atom(f"{atom.GetSymbol()}{atom.GetIdx()}", element, residue)
    for bond in mol.GetBonds():
        ends = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        topology.add_bond(*(topology.atom(i) for i in ends))
    return Molecule(topology, mol.GetConformer().GetPositions() / 10)


def anywhere(coordinates: InternalCoordinates, n: int) -> Tensor:
    """Coordinates around the reference, soft ones over the whole circle."""
    y = coordinates.centre + 0.3 * coordinates.scale * torch.randn(n, coordinates.dim)
    uniform = math.pi * (2 * torch.rand(n, coordinates.dim) - 1)
    return torch.where(coordinates.soft, uniform, y)


@pytest.mark.parametrize("smiles", SOFT)
def test_every_molecule(smiles: str) -> None:
    coordinates = InternalCoordinates(from_smiles(smiles))
    assert int(coordinates.soft.sum()) == SOFT[smiles]
    y = anywhere(coordinates, 300)
    x, log_det = coordinates.inverse(y)
    closed = coordinates.closed(x)
    assert closed.any()

    # One-to-one wherever the rings close
    again, log_det_back = coordinates.forward(x[closed])
    assert_close(again, y[closed], atol=1e-9, rtol=0)
    assert_close(log_det_back, -log_det[closed])
    check_coordinate_map(coordinates, x[coordinates.valid(x)][:4], n_jacobians=2)

    # All bonds are as long as their coordinates say, but those of a cage that are consequences
    z = coordinates.zmatrix
    closing = [(k, end) for k, end in enumerate(z.closes) if end >= 0]
    n_free = len(coordinates.molecule.bonds) - coordinates.molecule.n_atoms + 1 - len(closing)
    assert n_free == 0

    # Gradients are finite, also where no ring closes
    y.requires_grad_()
    for part in coordinates.inverse(y):
        (gradient,) = torch.autograd.grad(part.sum(), y, retain_graph=True)
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize(
    "smiles",
    ["C12C3C4C1C5C2C3C45", "C1CC2C3C4C1C5C2C3C45", "C1CC2CC1C2", "C1CC2CCC1C2", "CN1CN(C)CN(C)C1"],
)
def test_windows_hold_the_reference_with_room_to_spare(smiles: str) -> None:
    coordinates = InternalCoordinates(from_smiles(smiles))
    y = coordinates.centre[coordinates.soft]
    assert (y.abs() < 0.75 * math.pi).sum() + (coordinates._tables.stretch[
        coordinates.soft[2 * coordinates.molecule.n_atoms - 3 :]] == 1).sum() >= len(y)  # fmt: skip
    x = torch.as_tensor(coordinates.molecule.positions)
    again, _ = coordinates.inverse(coordinates.forward(x)[0])
    pairs = torch.triu_indices(len(x), len(x), 1).T
    assert_close(distances(again, pairs), distances(x, pairs))
    assert coordinates.valid(x)


def test_every_conformer_of_an_inverting_ring_is_inside() -> None:
    chem, all_chem = (pytest.importorskip(f"rdkit.Chem{name}") for name in ("", ".AllChem"))
    coordinates = InternalCoordinates(from_smiles("CN1CCCC1"))
    mol = chem.AddHs(chem.MolFromSmiles("CN1CCCC1"))
    ids = list(all_chem.EmbedMultipleConfs(mol, 30, randomSeed=7))
    all_chem.MMFFOptimizeMoleculeConfs(mol, maxIters=2000)
    x = torch.stack([torch.tensor(mol.GetConformer(i).GetPositions()) / 10 for i in ids])
    x = coordinates.match_labels(x)
    again, _ = coordinates.inverse(coordinates.forward(x)[0])
    pairs = torch.triu_indices(x.shape[1], x.shape[1], 1).T
    # Hydrogens of the methyl group may have traded places
    assert_close(distances(again, pairs).sort(1)[0], distances(x, pairs).sort(1)[0])


def test_a_double_bond_in_a_large_ring_keeps_its_side() -> None:
    molecule = from_smiles("C1CCC/C=C/CC1")
    double = [k for k, near in enumerate(molecule.neighbours)
              if molecule.elements[k] == "C" and len(near) == 3]  # fmt: skip
    i, j = double
    coordinates = InternalCoordinates(molecule, stiff_bonds=[(i, j)])
    a, b = (next(k for k in molecule.neighbours[p] if molecule.elements[k] == "C" and k != q)
            for p, q in ((i, j), (j, i)))  # fmt: skip
    x, _ = coordinates.inverse(anywhere(coordinates, 4000))
    x = x[coordinates.valid(x)]
    assert len(x)
    assert (dihedrals(x, torch.tensor([(a, i, j, b)])).abs() > math.pi / 6).all()


def test_lengths_that_do_not_reach_are_told() -> None:
    coordinates = InternalCoordinates(cyclohexane())
    y = coordinates.centre.clone()
    (closing,) = coordinates.zmatrix.closing
    row = coordinates.zmatrix.atoms.index(closing) - 1
    end = coordinates.dim - 3 * 18 + 6 + 17 + row - 1
    assert coordinates.names[end].startswith("r(")
    assert coordinates.valid(coordinates.inverse(y)[0])
    y[row] = y[end] = 0.08
    x, _ = coordinates.inverse(y)
    assert torch.isfinite(x).all()
    assert not coordinates.closed(x)
    assert not coordinates.valid(x)


def test_a_ring_reaches_its_other_chair_and_the_boat() -> None:
    molecule = cyclohexane()
    coordinates = InternalCoordinates(molecule)
    ring = torch.tensor([[(i + k) % 6 for k in range(4)] for i in range(6)])
    x = torch.as_tensor(molecule.positions)
    chair = dihedrals(x, ring)
    assert (chair.abs() > 0.8).all()

    # Torsions of the other chair with bonds and angles as they are
    y = torch.where(coordinates.soft, -coordinates.centre, coordinates.centre)
    other = dihedrals(coordinates.inverse(y)[0], ring)
    assert_close(other, -chair, atol=0.02, rtol=0)
    bonds = torch.as_tensor(molecule.bonds)
    assert_close(distances(coordinates.inverse(y)[0], bonds), distances(x, bonds))

    # And many signs of its torsions, with bonds that stay as they are
    boats, _ = coordinates.inverse(anywhere(coordinates, 2000))
    boats = boats[coordinates.closed(boats)]
    assert_close(distances(boats, bonds).std(0), torch.full((18,), 0.3 * 0.0035), atol=1e-4, rtol=0)
    assert len(dihedrals(boats, ring).sign().unique(dim=0)) > 20


def test_a_straight_group_bends_in_two_directions() -> None:
    coordinates = InternalCoordinates(from_smiles("CC#N"))
    rows = [i for i, name in enumerate(coordinates.names) if name.startswith("bend")]
    assert [coordinates.names[i][:5] for i in rows] == ["bend1", "bend2"]
    assert not coordinates.soft[rows].any()
    y = coordinates.centre.repeat(3, 1)
    y[:, rows] = torch.tensor([[0.0, 0.0], [0.2, 0.0], [0.1, -0.1]])
    x, _ = coordinates.inverse(y)
    z = coordinates.zmatrix
    triple = torch.tensor([z.angle(k) for k in z.atoms if z.linear[k]])
    bend = math.pi - angles(x, triple)[:, 0]
    assert_close(bend, torch.tensor([0.0, 0.2, math.sqrt(0.02)]), atol=1e-6, rtol=0)


def test_the_torsion_across_a_triple_bond_turns_the_far_end() -> None:
    molecule = from_smiles("OCC#CCO")
    coordinates = InternalCoordinates(molecule)
    oxygens = [i for i, element in enumerate(molecule.elements) if element == "O"]
    y = anywhere(coordinates, 200)
    x, _ = coordinates.inverse(y)
    first, second = (
        next(k for k in molecule.neighbours[i] if molecule.elements[k] == "C") for i in oxygens
    )
    quad = torch.tensor([(oxygens[0], first, second, oxygens[1])])
    turned = dihedrals(x, quad)[:, 0]
    assert len(torch.histc(turned, 8, -math.pi, math.pi).nonzero()) == 8


def test_nitrogen_turns_over() -> None:
    coordinates = InternalCoordinates(from_smiles("CNC"))
    soft = coordinates.soft.nonzero()[:, 0].tolist()
    (row,) = (i for i in soft if coordinates.names[i].startswith("improper"))
    y = coordinates.centre.repeat(2, 1)
    y[1, row] = -y[1, row]
    x, _ = coordinates.inverse(y)
    assert coordinates.valid(x).all()
    assert_close(coordinates.forward(x)[0], y)
    # The mirror image in all but the rotors
    assert_close(distances(x[0], torch.tensor([[0, 2]])), distances(x[1], torch.tensor([[0, 2]])))

    # A flat one does not, and two equal hydrogens have nothing to turn over to
    for smiles in ("CC(=O)NC", "CN", "C[NH+](C)C"):
        names = InternalCoordinates(from_smiles(smiles))
        soft = [n for n, s in zip(names.names, names.soft, strict=True) if s]
        assert not any(name.startswith("improper") for name in soft)


@pytest.mark.parametrize("smiles", ["CCN", "c1ccc2c(c1)c(c[nH]2)CCN", "NCC(=O)O", "NCCN"])
def test_of_the_two_labellings_of_an_amine_one_is_inside_its_fence(smiles: str) -> None:
    coordinates = InternalCoordinates(from_smiles(smiles))
    molecule = coordinates.molecule
    amines = [k for k, e in enumerate(molecule.elements) if e == "N" and _hydrogens(molecule, k)]
    y = coordinates.centre.repeat(50, 1)
    pairs = [_hydrogens(molecule, k) for k in amines]
    rows = [
        next(i for i, name in enumerate(coordinates.names)
             if name.startswith("improper") and molecule.names[h] in name.split(",")[0])
        for h in (pair[1] for pair in pairs)
    ]  # fmt: skip
    assert len(rows) == smiles.count("N")
    assert coordinates.fence(y).eq(0).all()
    for row, (a, b) in zip(rows, pairs, strict=True):
        # All angles from one hydrogen on the other round to the plane, and as far beyond
        side = y[0, row].sign()
        moved = y.clone()
        moved[:, row] = side * torch.linspace(0.3, 2 * math.pi - 0.3, 50)
        inside = coordinates.fence(moved) == 0
        assert_close(inside, moved[:, row].abs() <= math.pi)
        # Swapped, what is beyond is inside, and the other way round
        x, _ = coordinates.inverse(moved)
        x[:, [a, b]] = x[:, [b, a]]
        swapped, _ = coordinates.forward(x)
        swapped[:, row] = side * torch.remainder(side * swapped[:, row], 2 * math.pi)
        assert_close(coordinates.fence(swapped) == 0, ~inside)


@pytest.mark.parametrize("smiles", ["CNC", "CC(=O)N", "C[NH3+]", "Nc1ccccc1", "CS(=O)(=O)N"])
def test_no_other_molecule_has_a_fence(smiles: str) -> None:
    coordinates = InternalCoordinates(from_smiles(smiles))
    assert coordinates.fence(coordinates.centre) is None


def test_the_fence_lowers_the_target_of_training_and_parts_the_samples() -> None:
    system = systems.from_smiles("CCN")
    coordinates = system.coordinates
    target = BoltzmannTarget(system.energy, coordinates, 300.0)
    (row,) = coordinates._mirrored.tolist()
    y = coordinates.centre.repeat(2, 1)
    y[1, row] = y[1, row].sign() * (math.pi + 0.2)
    x, log_det = coordinates.inverse(y)
    energy, lowered = target.energy_and_log_det(y)
    assert_close(energy, system.energy(x))
    assert_close(log_det - lowered, torch.tensor([0.0, 0.5 * (0.2 / FENCE) ** 2]))
    assert_close(target.log_density(y), log_det - target.beta * energy)
    zero = torch.zeros(2)
    *_, log_weights, valid, _ = weigh(target, torch.zeros(2, 0), y, zero, zero)
    assert valid.tolist() == [True, False]
    assert torch.isfinite(log_weights).tolist() == [True, False]


def test_an_amine_from_elsewhere_is_relabelled_onto_its_side() -> None:
    system = systems.from_smiles("CCN")
    coordinates = system.coordinates
    y = coordinates.centre.repeat(3, 1)
    x, _ = coordinates.inverse(y)
    a, b = coordinates._twins[0].tolist()
    x[1, [a, b]] = x[1, [b, a]]
    assert (coordinates.fence(coordinates.forward(x)[0]) > 0).tolist() == [False, True, False]
    matched = coordinates.match_labels(x)
    assert_close(matched[1], x[0])
    assert_close(matched[[0, 2]], x[[0, 2]])


def _hydrogens(molecule: Molecule, atom: int) -> list[int]:
    """The hydrogens of a nitrogen with two of them and one other neighbour."""
    bonded = molecule.neighbours[atom]
    found = [k for k in bonded if molecule.elements[k] == "H"]
    return found if (len(bonded), len(found)) == (3, 2) else []


@pytest.mark.parametrize(
    ("smiles", "orders"),
    {
        "CC(C)(C)CO": {"3x4": 1, "3x1": 3},  # tert-butyl and its methyls
        "CC(=O)NC(Cc1ccccc1)C(=O)NC": {"2x4": 1, "3x1": 2},  # both sides of a phenyl
        "OCC(C)C": {"3x1": 2},
        "CC(=O)[O-]": {"3x1": 1},  # one turn about C-C has one rotor
        "FC(F)(F)CO": {"3x1": 1},
        # What hangs on a phenylene is measured from atoms that trade places
        "CC(C)(C)c1ccc(CCCCCCCC)cc1": {"3x4": 1, "2x4": 1, "3x1": 4},
    }.items(),
)
def test_equivalent_branches_are_one_rotor(smiles: str, orders: dict[str, int]) -> None:
    coordinates = InternalCoordinates(from_smiles(smiles))
    found = [f"{rotor.n}x{len(rotor.orbits)}" for rotor in coordinates.rotors]
    assert {kind: found.count(kind) for kind in found} == orders

    # All copies have the same coordinates, bonds and elements
    y = anywhere(coordinates, 60)
    x, _ = coordinates.inverse(y)
    x = x[coordinates.valid(x)]
    copies = coordinates.random_copies(x)
    assert not torch.equal(copies, x)
    assert_close(coordinates.forward(copies)[0], coordinates.forward(x)[0])
    assert coordinates.valid(copies).all()
    check_coordinate_map(coordinates, x[:4], n_jacobians=1)
    masses = torch.tensor(coordinates.molecule.masses)
    for orbit in (orbit for rotor in coordinates.rotors for orbit in rotor.orbits):
        assert len(masses[list(orbit)].unique()) == 1
