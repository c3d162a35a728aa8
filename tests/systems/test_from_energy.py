"""Systems of any energy: the reference is its minimum, and the same molecule.

Cannot detect: a lower minimum elsewhere.
"""

import math

import numpy as np
import pytest
import torch
from molecules import MOLECULES

from gencg import systems
from gencg.energies.base import Energy
from gencg.energies.minimum import nearest_minimum

WATER = MOLECULES["water"]()


class Springs(Energy):
    """Harmonic distances between all atoms, with a minimum at a given structure."""

    def __init__(self, positions: np.ndarray, *, factor: float = 1.0) -> None:
        super().__init__(positions.shape)
        self.i, self.j = np.triu_indices(len(positions), 1)
        x = torch.as_tensor(positions)
        self.lengths = factor * (x[self.i] - x[self.j]).norm(dim=-1)

    def energy(self, x: torch.Tensor) -> torch.Tensor:
        lengths = (x[:, self.i] - x[:, self.j]).norm(dim=-1)
        return 2e5 * ((lengths - self.lengths) ** 2).sum(-1)


def test_the_reference_is_the_minimum_and_nothing_else_changes() -> None:
    energy = Springs(WATER.positions, factor=1.02)
    system = systems.from_energy(WATER, energy, temperature=310.0, name="water")
    assert float(energy(torch.as_tensor(system.molecule.positions))) < 1e-4
    assert (system.name, system.temperature, system.coordinates.dim) == ("water", 310.0, 3)
    assert system.energy is energy
    assert np.array_equal(system.molecule.bonds, WATER.bonds)
    # The minimum is at the centre of the coordinates
    x, _ = system.coordinates.inverse(system.coordinates.centre)
    assert float(energy(x)) < 1e-4


def test_soft_and_stiff_bonds_go_to_the_coordinates() -> None:
    molecule = MOLECULES["acetamide"]()
    energy = Springs(molecule.positions)
    assert systems.from_energy(molecule, energy).coordinates.soft.sum() == 1
    assert systems.from_energy(molecule, energy, stiff_bonds=[(0, 1)]).coordinates.soft.sum() == 1
    assert systems.from_energy(molecule, energy, soft_bonds=[]).coordinates.soft.sum() == 0


def test_another_molecule_in_the_minimum_is_refused() -> None:
    with pytest.raises(ValueError, match=r"bond MOL1-O0 - MOL1-H\d goes from 0.096 to 0.14\d nm"):
        systems.from_energy(WATER, Springs(WATER.positions, factor=1.5))


def test_a_proton_that_moves_is_refused() -> None:
    pytest.importorskip("tblite")
    from gencg.energies.tblite import TbliteEnergy

    zwitterion = MOLECULES["glycine zwitterion"]()
    with pytest.raises(ValueError, match=r"GLY1-N - GLY1-H\d goes from 0.103 to .* another one"):
        systems.from_energy(zwitterion, TbliteEnergy(zwitterion))


class Slope(Springs):
    def energy(self, x: torch.Tensor) -> torch.Tensor:
        return 1e3 * x[:, 0, 0]


class Hole(Springs):
    def energy(self, x: torch.Tensor) -> torch.Tensor:
        return x.sum((1, 2)) * math.nan


@pytest.mark.parametrize(
    "energy, message",
    [
        (Hole(WATER.positions), "of the given structure must be finite, got nan"),
        (Springs(WATER.positions[:2]), r"shape \(2, 3\), `molecule` has 3 atoms"),
    ],
)
def test_refusals(energy, message) -> None:
    with pytest.raises(ValueError, match=message):
        systems.from_energy(WATER, energy)
    with pytest.raises(ValueError, match="`temperature` must be positive"):
        systems.from_energy(WATER, energy, temperature=-1.0)


def test_an_energy_without_a_minimum_is_refused() -> None:
    with pytest.raises(ValueError, match=r"has no minimum .* after 10 steps .* is 333 kJ/mol"):
        nearest_minimum(Slope(WATER.positions), WATER.positions, max_iterations=10)


def test_steps_that_end_without_an_energy_are_taken_back() -> None:
    class Walled(Springs):
        def energy(self, x: torch.Tensor) -> torch.Tensor:
            value = super().energy(x)
            return torch.where(value > 500.0, math.nan, value)

    start = WATER.positions + 0.01 * np.random.default_rng(0).normal(size=(3, 3))
    walled = Walled(WATER.positions)
    minimum = nearest_minimum(walled, start)
    assert float(walled(torch.as_tensor(minimum))) < 1e-4


def test_the_description_tells_the_energy() -> None:
    energy = Springs(WATER.positions)
    assert "Springs" in systems.from_energy(WATER, energy).description
    named = systems.from_energy(WATER, energy, description="three springs")
    assert named.description == "three springs"
