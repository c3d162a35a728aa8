"""Theorems of the coordinate maps over a registry of molecules.

Cannot detect: a soft bond that a force field would call stiff; the bonds' barriers are not known
here. Nor an energy that differs between atoms which the bonds call equivalent.
"""

import math
from collections.abc import Callable

import pytest
import torch
from molecules import (
    MOLECULES,
    acetamide,
    alkane,
    benzene,
    build,
    butene,
    dipeptide,
    ethane,
    fluoroethanol,
    glycine,
    methyl,
    methylamine,
    proline,
)
from torch import Tensor
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from gencg.coordinates.body_frame import BodyFrame
from gencg.coordinates.internal import InternalCoordinates
from gencg.coordinates.symmetry import handed_atoms
from gencg.geometry import dihedrals, distances, place_atoms, wrap
from gencg.molecule import Molecule
from gencg.testing import check_coordinate_map

MAPS: dict[str, Callable[[Molecule], InternalCoordinates | BodyFrame]] = {
    "folded": InternalCoordinates,
    "unfolded": lambda molecule: InternalCoordinates(molecule, fold_rotors=False),
    "body frame": BodyFrame,
}


def near(coordinates: InternalCoordinates, n: int, *, spread: float = 0.5) -> Tensor:
    """Coordinates around the reference, soft ones wherever on the circle the rings close."""
    y = coordinates.centre + spread * coordinates.scale * torch.randn(30 * n, coordinates.dim)
    uniform = math.pi * (2 * torch.rand_like(y) - 1)
    y = torch.where(coordinates.soft, uniform, y)
    return y[coordinates.closed(coordinates.inverse(y)[0])][:n]


@pytest.mark.parametrize("name", MOLECULES)
@pytest.mark.parametrize("kind", MAPS)
def test_every_map_of_every_molecule(name: str, kind: str) -> None:
    molecule = MOLECULES[name]()
    x, _ = InternalCoordinates(molecule).inverse(near(InternalCoordinates(molecule), 8))
    check_coordinate_map(MAPS[kind](molecule), x, n_jacobians=2)


@pytest.mark.parametrize("name", MOLECULES)
def test_internal_coordinates_of_every_molecule(name: str) -> None:
    molecule = MOLECULES[name]()
    coordinates = InternalCoordinates(molecule)
    y = near(coordinates, 50)
    x, log_det = coordinates.inverse(y)

    # The coordinates determine the configuration, and the other way round
    again, log_det_back = coordinates.forward(x)
    assert_close(again, y, atol=1e-9, rtol=0)
    assert_close(log_det_back, -log_det)

    # The centre is the reference, up to a relabelling of rotors that is no relabelling at all
    x_centre, _ = coordinates.inverse(coordinates.centre)
    pairs = torch.triu_indices(molecule.n_atoms, molecule.n_atoms, 1).T
    reference = torch.as_tensor(molecule.positions)
    assert_close(distances(x_centre, pairs), distances(reference, pairs))

    # Near the centre, handedness and double bonds are kept; equal copies do not change them
    assert coordinates.valid(x).all()
    assert coordinates.valid(coordinates.random_copies(x)).all()
    assert coordinates.match_labels(x).equal(x)

    # Single precision agrees
    x_single, log_det_single = coordinates.inverse(y.float())
    assert_close(x_single.double(), x, atol=2e-6, rtol=0)
    assert_close(log_det_single.double(), log_det, atol=1e-4, rtol=1e-6)
    y_single, _ = coordinates.forward(x_single)
    assert_close(wrap(y_single.double() - y), torch.zeros_like(y), atol=1e-4, rtol=0)

    # Autograd agrees with differences
    one = near(coordinates, 1, spread=1.0).requires_grad_()
    if molecule.n_atoms < 20:
        assert torch.autograd.gradcheck(coordinates.inverse, one)

    # A gradient is finite where an angle is straight or a length is zero
    broken = coordinates.centre.clone()
    broken[0], broken[molecule.n_atoms - 1] = 0.0, math.pi
    broken.requires_grad_()
    coordinates.inverse(broken)[0].sum().backward()
    assert torch.isfinite(broken.grad).all()


@pytest.mark.parametrize("name", ["ethane", "1-fluoroethanol", "cyclohexane", "alanine dipeptide"])
def test_change_of_variables_between_the_two_maps(name: str) -> None:
    molecule = MOLECULES[name]()
    internal, body = InternalCoordinates(molecule, fold_rotors=False), BodyFrame(molecule)
    (y,) = near(internal, 1)
    jacobian = torch.func.jacrev(lambda v: body.forward(internal.inverse(v)[0])[0])(y)
    x, log_det = internal.inverse(y)
    _, log_det_body = body.inverse(body.forward(x)[0])
    assert_close(torch.linalg.slogdet(jacobian).logabsdet, log_det - log_det_body)


def test_body_frame_fixes_three_bonded_atoms() -> None:
    coordinates = BodyFrame(dipeptide())
    assert coordinates.dim == 60
    y = coordinates.centre + 0.01 * torch.randn(4, 60)
    x, _ = coordinates.inverse(y)
    fixed = x[:, [6, 8, 14]]  # N, CA, C
    assert_close(fixed[:, 0], torch.zeros(4, 3))
    assert_close(fixed[:, 1, 1:], torch.zeros(4, 2))
    assert_close(fixed[:, 2, 2], torch.zeros(4))
    with pytest.raises(ValueError, match=r"`y` must have shape \(\*batch, 60\), got \(7,\)"):
        coordinates.inverse(torch.zeros(7))


def test_placement_is_that_of_one_atom_after_the_other() -> None:
    coordinates = InternalCoordinates(dipeptide(), fold_rotors=False)
    z = coordinates.zmatrix
    x, _ = coordinates.inverse(near(coordinates, 20))
    bonds, angles, torsions = coordinates.forward(x)[0].split([21, 20, 19], -1)
    row = {k: i for i, k in enumerate(z.torsion_atoms)}
    for i, k in enumerate(z.atoms):
        if k not in row:
            continue
        t = torsions[:, row[k]]
        first = z.first[k]
        t = t if first == k or first not in row else t + torsions[:, row[first]]
        reference = z.reference[first] if first in row else first
        placed = place_atoms(
            bonds[:, i - 1],
            angles[:, i - 2],
            t,
            bonded=x[:, z.parent[k]],
            second=x[:, z.grandparent[k]],
            third=x[:, reference],
        )
        assert_close(placed, x[:, k])


def test_soft_torsions_of_the_dipeptide() -> None:
    coordinates = InternalCoordinates(dipeptide())
    soft = [n for n, s in zip(coordinates.names, coordinates.soft, strict=True) if s]
    assert "soft=[phi(ALA2), psi(ALA2), rotor(ACE1-CH3)" in repr(coordinates)
    assert soft == ["phi(ALA2)", "psi(ALA2)", "rotor(ACE1-CH3)", "rotor(ALA2-CB)", "rotor(NME3-C)"]
    assert coordinates.fold[coordinates.soft].tolist() == [1, 1, 3, 3, 3]
    assert len(coordinates.zmatrix.blocks) == 3
    x, _ = coordinates.inverse(near(coordinates, 5))
    y, _ = coordinates.forward(x)
    quads = torch.tensor([quad for _, quad in dipeptide().phi_psi()])
    assert_close(y[:, coordinates.soft][:, :2], dihedrals(x, quads))

    unfolded = InternalCoordinates(dipeptide(), fold_rotors=False)
    assert unfolded.rotors == ()
    assert (unfolded.fold == 1).all()
    assert unfolded.soft.sum() == 5
    assert_close(unfolded.forward(x)[1], coordinates.forward(x)[1])


def test_bonds_are_soft_or_stiff_as_geometry_or_the_caller_says() -> None:
    def soft(coordinates: InternalCoordinates) -> int:
        return int(coordinates.soft.sum())

    assert soft(InternalCoordinates(alkane())) == 3
    assert soft(InternalCoordinates(alkane(), stiff_bonds=[(2, 1)])) == 2
    assert soft(InternalCoordinates(alkane(), soft_bonds=[(1, 2)])) == 1
    # Double and amide bonds are stiff unless the caller says otherwise
    assert soft(InternalCoordinates(butene())) == 2
    assert soft(InternalCoordinates(butene(), stiff_bonds=())) == 3
    assert soft(InternalCoordinates(acetamide())) == 1
    assert soft(InternalCoordinates(acetamide(), stiff_bonds=())) == 2
    assert soft(InternalCoordinates(proline())) == 5  # phi and a flap of the ring, psi, two methyls


def test_wrong_bonds_and_molecules_are_refused() -> None:
    with pytest.raises(ValueError, match=r"`stiff_bonds` must hold bonds of .*, got \(0, 3\)"):
        InternalCoordinates(alkane(), stiff_bonds=[(0, 3)])
    with pytest.raises(ValueError, match=r"`soft_bonds` must hold bonds between.*\(0, 6\)"):
        InternalCoordinates(benzene(), soft_bonds=[(0, 6)])
    with pytest.raises(ValueError, match=r"either in `soft_bonds` or in `stiff_bonds`.*\(1, 2\)"):
        InternalCoordinates(alkane(), soft_bonds=[(1, 2)], stiff_bonds=[(2, 1)])
    with pytest.raises(ValueError, match=r"`y` must have shape \(\*batch, 36\), got \(5, 35\)"):
        InternalCoordinates(alkane()).inverse(torch.zeros(5, 35))
    linear = build([("C",), ("O", 0, 0.116), ("O", 0, 0.116, 1, 179)])
    with pytest.raises(ValueError, match=r"n_atoms=3.* is straight, .* below 165 degrees"):
        InternalCoordinates(linear)
    with pytest.raises(ValueError, match="at least 3 atoms, got 2"):
        InternalCoordinates(build([("O",), ("H", 0, 0.097)], check=False))


@pytest.mark.parametrize("n", [4, 12])
def test_the_number_of_operations_grows_with_levels_not_atoms(n: int) -> None:
    class Count(TorchDispatchMode):
        n = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore
            self.n += 1
            return func(*args, **(kwargs or {}))

    coordinates = InternalCoordinates(alkane(n))
    assert len(coordinates.zmatrix.blocks) == n // 2 - 1
    y = near(coordinates, 5)
    coordinates.inverse(y)
    with Count() as count:
        coordinates.inverse(y)
    assert count.n < 60 + 40 * len(coordinates.zmatrix.blocks)


@pytest.mark.parametrize(
    "build_molecule", [ethane, glycine, dipeptide], ids=["3", "3, 2", "3, 3, 3"]
)
def test_a_cyclic_relabelling_turns_a_rotor_by_its_share_of_the_circle(build_molecule) -> None:
    molecule = build_molecule()
    folded = InternalCoordinates(molecule)
    plain = InternalCoordinates(molecule, fold_rotors=False)
    y = near(folded, 30)
    x, log_det = folded.inverse(y)
    row = {k: 2 * molecule.n_atoms - 3 + i for i, k in enumerate(folded.zmatrix.torsion_atoms)}

    def rotor_angle(x: Tensor, atoms: tuple[int, ...]) -> Tensor:
        # t = t1 + mean deviation of the siblings from even spacing
        y, _ = plain.forward(x)
        spread = 2 * math.pi * torch.arange(1, len(atoms)) / len(atoms)
        siblings = wrap(y[:, [row[k] for k in atoms[1:]]] - spread)
        return y[:, row[atoms[0]]] + siblings.sum(-1) / len(atoms)

    for i, rotor in enumerate(folded.rotors):
        copies = torch.zeros(30, len(folded.rotors), dtype=torch.long)
        copies[:, i] = 1
        turned = folded.relabel(x, copies)
        step = rotor_angle(turned, rotor.atoms) - rotor_angle(x, rotor.atoms)
        assert_close(wrap(step - 2 * math.pi / rotor.n), torch.zeros(30))
        # The folded coordinates do not see it, nor does the volume
        assert_close(folded.forward(turned)[0], y, atol=1e-9, rtol=0)
        assert_close(plain.forward(turned)[1], -log_det)
        # All n in a row are the identity
        for _ in range(rotor.n - 1):
            turned = folded.relabel(turned, copies)
        assert turned.equal(x)


def test_folded_and_unfolded_rotors_have_the_same_partition_function() -> None:
    # The methyl group of 1-fluoroethanol, deformed; the three cyclic copies of the deformation
    # have separate integrals and one sum
    d2, d3 = 0.2, -0.1
    deformations = [(d2, d3), (d3 - d2, -d2), (-d3, d2 - d3)]
    pairs = torch.tensor([[i, h] for h in (6, 7, 8) for i in (2, 3, 4)])
    strength = torch.tensor([1e2, 4e2, 8e2] * 3)
    n_grid = 200

    def partition_function(fold_rotors: bool) -> Tensor:
        coordinates = InternalCoordinates(fluoroethanol(), fold_rotors=fold_rotors)
        (rotor,) = InternalCoordinates(fluoroethanol()).rotors
        row = {k: 15 + i for i, k in enumerate(coordinates.zmatrix.torsion_atoms)}
        total = torch.tensor(0.0)
        for deformation in deformations:
            y = coordinates.centre.repeat(n_grid, 1)
            y[:, row[rotor.atoms[0]]] = 2 * math.pi * torch.arange(n_grid) / n_grid - math.pi
            for k, d in zip(rotor.atoms[1:], deformation, strict=True):
                y[:, row[k]] += d
            x, log_det = coordinates.inverse(y)
            energy = (strength * (distances(x, pairs) - 0.24).square()).sum(-1)
            total = total + (log_det - log_det[0] - energy).exp().sum() * 2 * math.pi / n_grid
        return total

    assert_close(partition_function(True), partition_function(False))


def test_random_copies_cover_the_circle_evenly() -> None:
    coordinates = InternalCoordinates(dipeptide())
    plain = InternalCoordinates(dipeptide(), fold_rotors=False)
    x, log_det = coordinates.inverse(coordinates.centre.repeat(3000, 1))
    generator = torch.Generator().manual_seed(1)
    copies = coordinates.random_copies(x, generator=generator)
    assert_close(plain.forward(copies)[1], -log_det)
    rotors = plain.forward(copies)[0][:, coordinates.fold > 1]
    for angle in rotors.T:
        turns = torch.round((angle - angle[0]) / (2 * math.pi / 3)) % 3
        counts = torch.bincount(turns.long(), minlength=3)
        # 1000 each, standard deviation 26: fails once in 1e5 draws of a seed
        assert (counts - 1000).abs().max() < 120
    assert coordinates.random_copies(x[0]).shape == x[0].shape


def test_an_uneven_rotor_is_not_folded() -> None:
    assert [rotor.n for rotor in InternalCoordinates(methylamine()).rotors] == [3]
    only_nh2 = InternalCoordinates(acetamide(), stiff_bonds=())
    assert sorted(rotor.n for rotor in only_nh2.rotors) == [2, 3]
    assert sorted(rotor.n for rotor in InternalCoordinates(glycine()).rotors) == [2, 3]


def test_reflection_inverts_and_half_a_turn_flips() -> None:
    coordinates = InternalCoordinates(fluoroethanol())
    x, _ = coordinates.inverse(near(coordinates, 4))
    assert coordinates.inverted(-x).all()
    assert not coordinates.valid(-x).any()
    assert not coordinates.flipped(x).any()

    # A pyramidal sulfur keeps its hand, an amine does not
    rows = [("S",), ("O", 0, 0.150), ("C", 0, 0.180, 1, 106), ("C", 0, 0.180, 1, 106, 2, 105)]
    sulfoxide = build([*rows, *methyl(2, 0, 1), *methyl(3, 0, 1)])
    assert len(handed_atoms(sulfoxide)) == 3
    assert len(handed_atoms(methylamine())) == 1

    trans, cis = InternalCoordinates(butene(180)), InternalCoordinates(butene(0))
    x_trans, _ = trans.inverse(near(trans, 4))
    x_cis, _ = cis.inverse(near(cis, 4))
    assert trans.flipped(x_cis).all()
    assert cis.flipped(x_trans).all()
    assert not trans.valid(x_cis).any()
    assert not trans.inverted(x_cis).any()
    assert not trans.valid(torch.full_like(x_trans, math.nan)).any()


def test_labels_of_equivalent_atoms_are_matched_and_a_stereocentre_is_not() -> None:
    for molecule, pair in ((glycine(), (8, 9)), (dipeptide(), (20, 21)), (acetamide(), (4, 5))):
        coordinates = InternalCoordinates(molecule)
        x, _ = coordinates.inverse(near(coordinates, 6))
        order = torch.arange(molecule.n_atoms)
        order[list(pair)] = order[list(pair)].flip(0)
        other = torch.where((torch.arange(6) % 2 == 0)[:, None, None], x, x[:, order])
        assert coordinates.valid(other).tolist() == [True, False] * 3
        assert coordinates.valid(coordinates.match_labels(other)).all()
    coordinates = InternalCoordinates(fluoroethanol())
    x, _ = coordinates.inverse(near(coordinates, 6))
    assert coordinates.inverted(coordinates.match_labels(-x)).all()


def test_everything_stays_on_the_device_and_in_the_dtype_of_its_argument() -> None:
    coordinates = InternalCoordinates(dipeptide())
    for each in (coordinates, BodyFrame(dipeptide())):
        x, log_det = each.inverse(torch.zeros(2, 5, 60, device="meta", dtype=torch.float32))
        y, log_det_back = each.forward(x)
        for value in (x, log_det, y, log_det_back):
            assert value.device.type == "meta"
            assert value.dtype == torch.float32
        assert each.valid(x).device.type == "meta"
    drawn = coordinates.random_copies(x, generator=torch.Generator())
    assert coordinates.match_labels(drawn).device.type == "meta"
