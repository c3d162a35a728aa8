"""Paths of least free energy: through the saddles, around the torus, the same on grid and graph.

Cannot detect: a pass that no sample has seen.
"""

import numpy as np
import pytest
import torch

from gencg.analysis import path as path_module
from gencg.analysis.alignment import rmsd_matrix, superposed
from gencg.analysis.chain import laid_on_each_other, smoothest_chain
from gencg.analysis.exact_slow import ExactSlowFunctions
from gencg.analysis.path import CVPath, free_energy_path, path_along
from gencg.energies.toy import MuellerBrown
from gencg.systems import load
from gencg.units import BOLTZMANN_CONSTANT

BETA = 1 / (BOLTZMANN_CONSTANT * 300)
ENDS = ((-0.558, 1.442), (0.623, 0.028))


@pytest.fixture(scope="module")
def valley() -> np.ndarray:
    """Boltzmann samples of Müller-Brown, ``(20000, 2)``."""
    torch.set_default_dtype(torch.float64)
    exact = ExactSlowFunctions(MuellerBrown(), BETA, (-1.8, -0.6), (1.4, 2.2), n=100, n_functions=1)
    return exact.sample(20_000).numpy()


def height(points: np.ndarray) -> np.ndarray:
    """Energy in kT above the deepest minimum."""
    energy = MuellerBrown().energy(torch.from_numpy(points))
    return BETA * (energy - MuellerBrown().energy(torch.tensor(ENDS[0]))).numpy()


def test_the_path_goes_over_the_saddles_of_mueller_brown(valley: np.ndarray) -> None:
    path = free_energy_path(valley, start=ENDS[0], end=ENDS[1], periodic=False)
    assert np.allclose(path.points[[0, -1]], ENDS)
    for saddle in MuellerBrown.SADDLES:
        assert np.linalg.norm(path.points - saddle, axis=1).min() < 0.2
    # Not much above the higher saddle, at 6.38 kT, while the straight line climbs to 9.6
    assert height(path.points).max() < 7.4
    straight = np.linspace(*ENDS, 60)
    assert height(straight).max() > 9

    # Equal steps, and the way back is the same
    steps = np.diff(path.arc)
    assert np.allclose(steps, steps[0], rtol=0.1)
    back = free_energy_path(valley, start=ENDS[1], end=ENDS[0], periodic=False)
    assert np.abs(back.points[::-1] - path.points).max() < 0.15


def test_the_graph_of_samples_finds_the_same_path(
    valley: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(path_module, "N_NODES", 500)
    monkeypatch.setattr(path_module, "SAMPLES_PER_NODE", 6000)
    idle = 0.2 * np.random.default_rng(0).normal(size=(len(valley), 1))
    path = free_energy_path(
        np.hstack([valley, idle]), start=(*ENDS[0], 0), end=(*ENDS[1], 0), periodic=False
    )
    for saddle in MuellerBrown.SADDLES:
        assert np.linalg.norm(path.points[:, :2] - saddle, axis=1).min() < 0.35
    assert np.abs(path.points[:, 2]).max() < 0.4


def torus(n: int = 8000) -> tuple[np.ndarray, np.ndarray]:
    """Two wells on both sides of the seam of the first angle, with a flat floor: z, log weights."""
    rng = np.random.default_rng(0)
    z = np.array([[2.6, 0.0], [-2.6, 0.0]])[rng.integers(2, size=n)] + 0.3 * rng.normal(size=(n, 2))
    z = np.vstack([z, rng.uniform(-np.pi, np.pi, (n, 2))])
    z = (z + np.pi) % (2 * np.pi) - np.pi
    return z, np.where(np.arange(2 * n) < n, 0.0, -3.0)


def test_on_the_torus_the_path_takes_the_shorter_way_round() -> None:
    z, log_w = torus()
    path = free_energy_path(z, log_w, start=(2.6, 0), end=(-2.6, 0), periodic=True, bins=48)
    assert path.arc[-1] == pytest.approx(2 * (np.pi - 2.6), rel=0.1)
    assert (np.abs(path.points) <= np.pi).all()
    assert np.abs(np.diff(path.unwrapped, axis=0)).max() < 0.2


def test_along_an_angle_the_path_goes_around_once_and_closes() -> None:
    z, log_w = torus()
    path = path_along(z, log_w, cv=0, periodic=True, bins=36, n_points=40)
    assert path.closed
    assert np.allclose(path.points[0], path.points[-1])
    turned = np.diff(path.unwrapped[:, 0])
    assert turned.sum() == pytest.approx(2 * np.pi)
    assert turned.min() > -1e-6

    # In one dimension there is nothing but the circle
    circle = path_along(z[:, :1], log_w, cv=0, periodic=True, n_points=13)
    assert np.diff(circle.unwrapped[:, 0]) == pytest.approx(np.full(12, 2 * np.pi / 12), rel=1e-6)


def test_a_path_is_drawn_up_to_the_seam_on_both_sides() -> None:
    path = CVPath(np.array([[0.0, 2.0], [0.2, 3.0], [0.4, -2.6]]), periodic=True)
    one, other = path.pieces
    assert one[0].tolist() == [0.0, 2.0]
    assert other[-1] == pytest.approx(np.array([0.4, -2.6]))
    assert np.abs(one).max() <= np.pi
    assert np.pi - one[-1, 1] < 0.03
    assert other[0, 1] + np.pi < 0.03
    assert len(CVPath(path.points, periodic=False).pieces) == 1


def test_along_a_line_the_path_spans_the_weight(valley: np.ndarray) -> None:
    path = path_along(valley, cv=1, periodic=False, bins=48, share=0.01)
    low, high = np.quantile(valley[:, 1], [0.01, 0.99])
    assert path.points[[0, -1], 1] == pytest.approx([low, high], abs=0.1)
    assert not path.closed
    # The same passes as between the states
    assert height(path.points).max() < 7.4


def test_smoothing_keeps_the_ends_and_straight_lines() -> None:
    line = CVPath(np.column_stack([np.linspace(0, 1, 20), np.linspace(2, 0, 20)]), False)
    assert np.allclose(line.smooth(0.3).resample(20).points, line.points)
    jagged = CVPath(np.array([[0.0, 0], [1, 0.2], [2, -0.2], [3, 0]]), False)
    smooth = jagged.smooth(0.5)
    assert np.allclose(smooth.points[[0, -1]], jagged.points[[0, -1]])
    assert smooth.arc[-1] < jagged.arc[-1]


def test_path_refusals(valley: np.ndarray) -> None:
    with pytest.raises(ValueError, match="`start` and `end` are one point"):
        free_energy_path(valley, start=ENDS[0], end=ENDS[0], periodic=False)
    with pytest.raises(ValueError, match="`start` must be 2 finite numbers"):
        free_energy_path(valley, start=(0.0,), end=ENDS[0], periodic=False)
    with pytest.raises(ValueError, match="`end` must lie where samples are"):
        free_energy_path(valley, start=ENDS[0], end=(50.0, 0.0), periodic=False)
    with pytest.raises(ValueError, match=r"`z` must have shape \(n, n_cvs\)"):
        path_along(valley[:, 0], cv=0, periodic=False)
    with pytest.raises(ValueError, match="`cv` must lie between 0 and 1, got 2"):
        path_along(valley, cv=2, periodic=False)
    with pytest.raises(ValueError, match="`n` must be at least 2 points"):
        CVPath(valley[:5], False).resample(1)


def turned(x: torch.Tensor) -> torch.Tensor:
    """Each structure moved and turned at random."""
    rotation = torch.linalg.qr(torch.randn(len(x), 3, 3))[0]
    rotation = rotation * torch.linalg.det(rotation)[:, None, None]
    return x @ rotation + torch.randn(len(x), 1, 3)


def test_deviations_do_not_see_rigid_motion_and_are_a_minimum() -> None:
    x, masses = torch.randn(4, 9, 3), torch.rand(9) + 0.5
    distance = rmsd_matrix(x, turned(x), masses)
    assert torch.allclose(distance.diagonal(), torch.zeros(4), atol=1e-6)
    assert torch.allclose(distance, distance.T, atol=1e-7)
    laid = superposed(turned(x), x[0], masses)
    share = masses / masses.sum()
    assert torch.allclose(
        torch.einsum("k,nka->n", share, (laid - x[0]) ** 2).sqrt(), distance[:, 0], atol=1e-6
    )
    # Mirror images differ
    mirrored = x[:1] * torch.tensor([1.0, 1.0, -1.0])
    assert float(rmsd_matrix(x[:1], mirrored, masses)) > 0.1


def test_the_smoothest_chain_is_the_best_of_all() -> None:
    import itertools

    groups = [torch.randn(3, 5, 3) for _ in range(4)]
    masses = torch.ones(5)
    chain, steps = smoothest_chain(groups, masses)

    def cost(choice: tuple[int, ...]) -> float:
        picked = [group[i : i + 1] for group, i in zip(groups, choice, strict=True)]
        return sum(float(rmsd_matrix(a, b, masses)) ** 2 for a, b in itertools.pairwise(picked))

    best = min(itertools.product(range(3), repeat=4), key=cost)
    assert tuple(chain) == best
    assert sum(step**2 for step in steps) == pytest.approx(cost(best))
    with pytest.raises(ValueError, match="group 2 of `candidates` is empty"):
        smoothest_chain([groups[0], groups[0][:0]], masses)


def test_hydrogens_of_methyl_groups_are_relabelled_to_turn_least() -> None:
    system = load("alanine-dipeptide")
    coordinates, x = system.coordinates, torch.from_numpy(system.molecule.positions)
    copies = torch.stack([torch.arange(5) % 3, torch.arange(5) % 2, 2 * torch.ones(5).long()], 1)
    shuffled = coordinates.relabel(x.expand(5, -1, -1), copies)
    heavy = torch.tensor([float(element != "H") for element in system.molecule.elements])
    laid = laid_on_each_other(turned(shuffled), heavy, coordinates)
    # A hydrogen in another's place would be 0.18 nm off; no CH3 group is exactly threefold
    assert torch.allclose(laid, laid[0].expand_as(laid), atol=0.02)
    assert torch.allclose(coordinates.forward(laid)[0], coordinates.forward(x)[0], atol=1e-6)
