"""Quantum-chemical energies: tblite's numbers, their gradient, and what cannot be computed.

Cannot detect: whether the method describes the molecule.
"""

import logging
import math
import sys

import numpy as np
import pytest
import torch
from molecules import MOLECULES
from torch.testing import assert_close

from gencg.energies.tblite import TbliteEnergy
from gencg.energies.tblite_values import valence_electrons
from gencg.testing import check_energy
from gencg.units import BOHR, HARTREE

interface = pytest.importorskip("tblite.interface")

WATER, ZWITTERION = MOLECULES["water"](), MOLECULES["glycine zwitterion"]()
OH = [[0.0, 0.0, 0.0], [0.0, 0.0, 0.097]]

# Molecule, arguments of TbliteEnergy; geometry is distorted where elements are given
ENERGIES = {
    "GFN2": (WATER, {}),
    "GFN1": (WATER, {"method": "GFN1-xTB"}),
    "ALPB": (ZWITTERION, {"solvent": "water"}),
    "GBSA": (WATER, {"solvent": "water", "solvation": "gbsa"}),
    "an anion": (("O", "H"), {"charge": -1}),
    "a radical": ((8, 1), {"n_unpaired": 1}),
}


def distorted(molecule, n: int = 3, largest: float = 0.004) -> torch.Tensor:
    x = torch.as_tensor(getattr(molecule, "positions", OH))
    return x + largest * (2 * torch.rand(n, *x.shape) - 1)


def by_tblite(x: torch.Tensor, numbers, method="GFN2-xTB", charge=0, n_unpaired=0, solvent=None,
              solvation="alpb") -> tuple[float, np.ndarray]:  # fmt: skip
    """Hartree and Bohr of one configuration, a calculator of its own for it."""
    calculator = interface.Calculator(
        method, np.array(numbers), x.numpy() / BOHR, charge=charge, uhf=n_unpaired
    )
    calculator.set("verbosity", 0)
    if solvent:
        calculator.add(f"{solvation}-solvation", solvent)
    result = calculator.singlepoint()
    return result.get("energy"), result.get("gradient")


@pytest.mark.parametrize("molecule, options", ENERGIES.values(), ids=ENERGIES.keys())
def test_energy_and_gradient_are_those_of_tblite(molecule, options) -> None:
    energy, x = TbliteEnergy(molecule, **options), distorted(molecule)
    value, gradient = energy.energy_and_gradient(x)
    for k, one in enumerate(x):
        expected, slope = by_tblite(one, energy.settings.numbers, **options)
        assert float(value[k] + energy.offset) == pytest.approx(HARTREE * expected, abs=1e-8)
        assert_close(gradient[k], torch.as_tensor(HARTREE / BOHR * slope), rtol=0, atol=1e-8 / BOHR)


@pytest.mark.parametrize("molecule, options", ENERGIES.values(), ids=ENERGIES.keys())
def test_tblite_energy_satisfies_the_theorems_of_energies(molecule, options) -> None:
    energy = TbliteEnergy(molecule, accuracy=0.01, **options)
    check_energy(energy, distorted(molecule), atol=1e-6, rtol=1e-5)


def test_the_offset_is_the_energy_of_the_reference() -> None:
    total, relative = TbliteEnergy(WATER, offset=0.0), TbliteEnergy(WATER)
    x = torch.as_tensor(WATER.positions)
    assert relative.offset == float(total(x)) < -1e4
    assert float(relative(x)) == 0.0
    assert TbliteEnergy(WATER.elements).offset == 0.0
    assert TbliteEnergy(WATER, offset=-5.0).offset == -5.0
    assert "offset=-13312." in repr(relative)

    # Digits that float32 would lose of the total
    near = distorted(WATER, 20)
    exact = relative(near)
    assert (relative(near.float()) - exact).abs().max() < 2e-3
    assert_close(total(near) - relative.offset, exact)


def test_several_processes_give_the_same_and_count_the_same() -> None:
    alone, shared = TbliteEnergy(WATER), TbliteEnergy(WATER, n_processes=2)
    x = distorted(WATER, 5)
    x[3] *= 100.0
    try:
        expected, gradient = alone.energy_and_gradient(x)
        y = x.clone().requires_grad_()
        value = shared(y)
        value[torch.isfinite(value)].sum().backward()
        assert torch.equal(value.detach().nan_to_num(-1.0), expected.nan_to_num(-1.0))
        assert torch.equal(y.grad, gradient.nan_to_num(0.0))
        assert torch.equal(shared(x[:1]), expected[:1])
        assert shared(x[:0]).shape == (0,)
        assert (shared.n_energy_calls, shared.n_gradient_calls) == (6, 5)
        assert shared.n_failed == alone.n_failed == 1
    finally:
        shared.workers.close()


def test_broken_geometries_are_told_apart_and_counted(caplog) -> None:
    energy, x = TbliteEnergy(WATER), distorted(WATER, 6)
    expected = energy(x)
    x[1, 1] = x[1, 0]
    x[2, 1] = x[2, 0] + 1e-5
    x[3] *= 100.0
    x[4, 0, 0] = math.nan
    with caplog.at_level(logging.WARNING, "gencg"):
        value, gradient = energy.energy_and_gradient(x)
        energy(x)
    # On top of each other: no weight. Torn apart: no energy
    assert value[1] == value[2] == math.inf
    assert value[3:5].isnan().all()
    assert (gradient[1:3] == 0).all()
    assert gradient[3:5].isnan().all()
    # The others never notice
    assert torch.equal(value[[0, 5]], expected[[0, 5]])

    assert energy.n_failed == 2
    assert [r.message for r in caplog.records] == [
        "GFN2-xTB did not converge for 1 of 6 configurations, which have no energy (nan) and are "
        "left out; further ones are counted (n_failed)"
    ]


def test_what_is_left_out_of_a_loss_sends_back_no_gradient() -> None:
    energy, x = TbliteEnergy(WATER), distorted(WATER, 3)
    x[1] *= 100.0
    x[2, 1] = x[2, 0]
    x.requires_grad_()
    value = energy(x)
    torch.where(torch.isfinite(value), value, torch.zeros_like(value)).sum().backward()
    assert torch.isfinite(x.grad).all()
    assert (x.grad[0] != 0).any()
    assert (x.grad[1:] == 0).all()


def test_close_atoms_do_not_crash() -> None:
    molecule = MOLECULES["methylamine"]()
    energy = TbliteEnergy(molecule, solvent="water")
    x = distorted(molecule, 12)
    for k, distance in enumerate(np.geomspace(1e-12, 0.05, 12)):
        x[k, 1] = x[k, 0] + torch.tensor([distance, 0.0, 0.0])
    value, gradient = energy.energy_and_gradient(x)
    # High, or none at all; never a well to fall into
    assert (value.nan_to_num(math.inf) > 100).all()
    assert not gradient.isinf().any()


@pytest.mark.parametrize("method", ["GFN2-xTB", "GFN1-xTB"])
def test_electrons_are_counted_as_tblite_does(method) -> None:
    for number in range(1, 87):
        calculator = interface.Calculator(method, np.array([number]), np.zeros((1, 3)))
        calculator.set("verbosity", 0)
        occupations = calculator.singlepoint().get("orbital-occupations")
        assert valence_electrons(number) == pytest.approx(occupations.sum()), number


REFUSED = {
    "an unknown method": ({"method": "GFN3"}, "`method` must be one of GFN2-xTB.*'GFN3'"),
    "an unknown solvent": ({"solvent": "beer"}, "`solvent` must be .* ALPB .*'beer'"),
    "an unknown solvation": ({"solvation": "pcm"}, "`solvation` must be one of alpb"),
    "a cation without its spin": ({"charge": 1}, "leaves 7 valence electrons, an odd number"),
    "a triplet of odd electrons": ({"charge": 1, "n_unpaired": 2}, "`n_unpaired` 2"),
    "a doublet of even electrons": ({"n_unpaired": 1}, "leaves 8 valence electrons, an even"),
    "more unpaired than electrons": ({"n_unpaired": 20}, "8 valence electrons go into 6 orbitals"),
    "more unpaired than places": ({"n_unpaired": 6}, "8 valence electrons go into 6 orbitals"),
    "no electrons": ({"charge": 8}, "`charge` must leave a valence electron of 8, got 8"),
    "more electrons than places": ({"charge": -6}, "14 valence electrons go into 6 orbitals"),
    "negative spin": ({"n_unpaired": -2}, "`n_unpaired` must not be negative, got -2"),
    "no accuracy": ({"accuracy": 0.0}, "`accuracy` must be positive, got 0.0"),
    "an offset of nan": ({"offset": math.nan}, "`offset` must be finite, in kJ/mol, got nan"),
    "no process": ({"n_processes": 0}, "`n_processes` must be positive, got 0"),
}


@pytest.mark.parametrize("options, message", REFUSED.values(), ids=REFUSED.keys())
def test_refusals(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        TbliteEnergy(WATER, **options)


@pytest.mark.parametrize("elements", [("H", "Xx"), (1, 0), (1, 92), ("C", "U"), ("VS",)])
def test_elements_without_parameters_are_refused(elements) -> None:
    with pytest.raises(ValueError, match=f"elements from H to Rn, got {elements[-1]!r}"):
        TbliteEnergy(elements)


def test_no_elements_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one element"):
        TbliteEnergy(())


def test_a_reference_that_does_not_converge_is_refused() -> None:
    torn = WATER.with_positions(100 * WATER.positions)
    with pytest.raises(ValueError, match="does not converge at the reference structure"):
        TbliteEnergy(torn)


def test_without_tblite_the_cure_is_told(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "tblite", None)
    with pytest.raises(ImportError, match=r"need tblite.*pip install 'gencg\[qm\]'"):
        TbliteEnergy(WATER)
