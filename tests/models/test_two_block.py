"""Windows along a molecule: exact densities, linear growth, the old layers for small molecules.

Cannot detect windows too narrow for the correlations of a molecule.
"""

from itertools import pairwise

import mdtraj
import pytest
import torch
from molecules import build, methyl
from torch.testing import assert_close

import gencg
from experiments.benchmarks.peptides import polyalanine
from gencg.checkpoint import CheckpointError
from gencg.coordinates.base import Cartesian, CoordinateMap
from gencg.coordinates.internal import InternalCoordinates
from gencg.distributions.couplings import Coupling, UnitTriangular
from gencg.distributions.local import BlockTriangular, LocalCoupling
from gencg.fit import as_result
from gencg.models.chain_order import chain_positions, cuthill_mckee
from gencg.models.coarse_grained import CoarseGrainedModel
from gencg.models.decoders import SplineDecoder
from gencg.models.locality import Locality
from gencg.molecule import Molecule
from gencg.systems import alanine_dipeptide
from gencg.target import BoltzmannTarget

NARROW = Locality(whole=12, stiff=6, soft=2, reach=1.5, hidden=(5, 4), n_summary=0, triangle=5)
SMALL = {"n_soft_layers": 4, "n_bins": 4, "soft_hidden": (6,), "n_stiff_layers": 4}


def peptide(n: int) -> InternalCoordinates:
    """Coordinates of ACE-(ALA)n-NME."""
    topology, positions = polyalanine(n)
    return InternalCoordinates(Molecule(mdtraj.Topology.from_openmm(topology), positions))


class _Chain(CoordinateMap):
    """Coordinates along a chain, every fourth a soft angle; x is y."""

    def __init__(self, n: int) -> None:
        self.event_shape, self.dim = (n,), n
        self.names = tuple(f"y{i}" for i in range(n))
        self.soft = torch.arange(n) % 4 == 1
        self.periodic = self.soft.clone()
        self.centre = torch.linspace(0.1, 2, n).double()
        self.scale = torch.full((n,), 0.05).double()
        self.fold = torch.ones(n, dtype=torch.long)
        self.fold[5] = 3

    def forward(self, x):
        return x, x.new_zeros(x.shape[:-1])

    def inverse(self, y):
        return y, y.new_zeros(y.shape[:-1])


def _decoder(coordinates, locality=NARROW, n_cvs=0) -> SplineDecoder:
    torch.manual_seed(0)
    decoder = SplineDecoder(coordinates, n_cvs=n_cvs, locality=locality, **SMALL).double()
    for parameter in decoder.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return decoder


COORDINATES = {
    "angles and a chain": lambda: _Chain(40),
    "line": lambda: Cartesian(9),
    "peptide": lambda: peptide(2),
}


@pytest.mark.parametrize("n_cvs", [0, 2])
@pytest.mark.parametrize("name", COORDINATES)
def test_windows_keep_the_density_exact(name: str, n_cvs: int) -> None:
    decoder = _decoder(COORDINATES[name](), n_cvs=n_cvs)
    assert any(isinstance(layer, LocalCoupling) for layer in decoder.flow.soft.chain.layers)
    context = torch.randn(6, n_cvs)
    drawn = decoder(context)
    y, of_y, of_context = drawn.rsample_with_score()
    y_leaf, c_leaf = y.detach().requires_grad_(), context.clone().requires_grad_()
    log_q = decoder(c_leaf).log_prob(y_leaf)
    assert_close(drawn.log_prob(y), log_q)
    by_y, by_context = torch.autograd.grad(
        log_q.sum(), (y_leaf, c_leaf), allow_unused=True, materialize_grads=True
    )
    scale = 1 + by_y.abs().max()
    assert_close(of_y / scale, by_y / scale, atol=1e-9, rtol=1e-7)
    assert_close(of_context, by_context, atol=1e-7, rtol=1e-7)

    # Against the Jacobian of the whole flow
    eps, z = drawn.base.sample(), context
    _, log_det = decoder.flow(eps, z)
    jacobian = torch.func.jacrev(lambda e: decoder.flow(e[None], z[:1])[0][0])(eps[0])
    assert_close(torch.linalg.slogdet(jacobian).logabsdet, log_det[0], atol=1e-8, rtol=1e-8)


def test_far_coordinates_do_not_depend_on_each_other() -> None:
    coordinates = _Chain(400)
    decoder = _decoder(coordinates)
    stiff, space = decoder.flow.stiff, decoder.flow.stiff.space
    s = torch.randn(1, space.n_soft)
    v = torch.randn(space.n_stiff)
    jacobian = torch.func.jacrev(lambda v: stiff(v[None], s, s[:, :0])[0][0])(v)
    # Each of four couplings reaches 1.5 windows of 8 places around their middles, the last layer
    # none, the triangles two blocks of 7: under 60 of 400 places
    distance = torch.arange(400)[:, None] - space.stiff_position
    assert not jacobian[distance.abs() > 60].any()
    assert jacobian[distance.abs() <= 2].any()


def test_parameters_grow_linearly_with_the_atoms() -> None:
    sizes = {}
    for n in (9, 19, 29):
        decoder = SplineDecoder(peptide(n))
        sizes[n] = sum(p.numel() for p in decoder.parameters())
    first, second = sizes[19] - sizes[9], sizes[29] - sizes[19]
    assert abs(second / first - 1) < 0.1
    assert sizes[29] / sizes[9] < 302 / 102 * 1.1


def test_a_small_molecule_has_full_layers() -> None:
    coordinates = alanine_dipeptide().coordinates
    torch.manual_seed(0)
    local = SplineDecoder(coordinates).state_dict()
    torch.manual_seed(0)
    full = SplineDecoder(coordinates, locality=None).state_dict()
    assert list(local) == list(full)
    assert all(torch.equal(local[key], full[key]) for key in full)
    stiff = SplineDecoder(peptide(9)).flow.stiff.chain.layers
    assert not any(isinstance(layer, Coupling | UnitTriangular) for layer in stiff)
    assert sum(isinstance(layer, BlockTriangular) for layer in stiff) == 2


def test_parameters_of_other_windows_are_refused() -> None:
    coordinates = _Chain(40)

    def parameters(locality: Locality | None) -> dict[str, torch.Tensor]:
        return SplineDecoder(coordinates, locality=locality, **SMALL).state_dict()

    narrow = SplineDecoder(coordinates, locality=NARROW, **SMALL)
    for other in (None, Locality(whole=12, stiff=10)):
        with pytest.raises(ValueError, match="stiff block of other windows"):
            narrow.load_state_dict(parameters(other))
    with pytest.raises(ValueError, match="stiff block of other windows"):
        SplineDecoder(coordinates, locality=None, **SMALL).load_state_dict(parameters(NARROW))
    narrow.load_state_dict(parameters(NARROW))


def test_a_checkpoint_from_before_the_windows_is_refused(tmp_path) -> None:
    system = gencg.systems.load("alanine-tetrapeptide")
    path = tmp_path / "checkpoint.pt"

    def resume(locality: Locality | None) -> None:
        decoder = SplineDecoder(system.coordinates, locality=locality, contacts=False, **SMALL)
        target = BoltzmannTarget(system.energy, system.coordinates, system.temperature)
        as_result(system, CoarseGrainedModel(decoder), target=target, checkpoint=path)

    resume(None)
    resume(None)
    with pytest.raises(CheckpointError, match=r"stiff block of other windows .* `locality=None`"):
        resume(NARROW)


@pytest.mark.parametrize("n", [1, 5, 20])
def test_bonded_atoms_are_near_in_the_order_whatever_the_length(n: int) -> None:
    coordinates = peptide(n)
    rank = cuthill_mckee(coordinates.molecule)
    assert sorted(rank) == list(range(len(rank)))
    assert max(abs(rank[i] - rank[j]) for i, j in coordinates.molecule.bonds.tolist()) <= 7
    # So are coordinates that share an atom; residues follow each other
    position = chain_positions(coordinates)
    phi = [position[k] for k, name in enumerate(coordinates.names) if name.startswith("phi")]
    steps = [abs(float(b - a)) for a, b in pairwise(sorted(phi))]
    assert all(8 < step < 12 for step in steps)


def test_a_branched_molecule_is_ordered_from_an_end() -> None:
    # Neopentane, from a hydrogen: its carbon, the two other hydrogens, the middle, the rest
    rows = [("C",), ("C", 0, 0.153), ("C", 0, 0.153, 1, 109.5)]
    rows += [("C", 0, 0.153, 1, 109.5, 2, 120), ("C", 0, 0.153, 1, 109.5, 2, -120)]
    rows += [row for k in (1, 2, 3, 4) for row in methyl(k, 0, 1 if k != 1 else 2)]
    molecule = build(rows)
    rank = cuthill_mckee(molecule)
    assert sorted(rank) == list(range(17))
    assert rank[0] == 4
    assert chain_positions(Cartesian(3)).tolist() == [0, 1, 2]


def test_bad_windows_are_refused() -> None:
    with pytest.raises(ValueError, match="`stiff` must be positive, got 0"):
        Locality(stiff=0)
    with pytest.raises(ValueError, match="`reach` must be positive, got -1"):
        Locality(reach=-1)
    with pytest.raises(ValueError, match="`n_summary` must not be negative, got -1"):
        Locality(n_summary=-1)
    assert Locality().n_stiff_windows(200) == 1
    assert Locality().n_stiff_windows(201) == 8
