"""The batched force field equals OpenMM, term by term.

Cannot detect: an error that OpenMM's Reference platform shares, and a form of a force which none
of these force fields uses for these two molecules.
"""

import copy
import logging
import pickle

import numpy as np
import openmm
import pytest
import torch
from openmm_systems import COMBINATIONS, SLOW_COMBINATIONS, build_system, distorted, reference
from torch import Tensor
from torch.testing import assert_close

from gencg.energies.bonded import HarmonicBonds
from gencg.energies.forcefield import ForceField
from gencg.energies.openmm import TERM_NAMES, read_system
from gencg.energies.openmm_values import type_name
from gencg.testing import check_energy


def openmm_terms(system: openmm.System, x: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Energies ``(n,)`` and gradients ``(n, n_atoms, 3)`` of every term on OpenMM's Reference."""
    system = copy.deepcopy(system)
    names = list(dict.fromkeys(TERM_NAMES.get(type_name(f), "") for f in system.getForces()))
    for force in system.getForces():
        force.setForceGroup(names.index(TERM_NAMES.get(type_name(force), "")))
    platform = openmm.Platform.getPlatform("Reference")
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for group, name in enumerate(names):
        values, gradients = [], []
        for positions in x.numpy():
            context.setPositions(positions)
            state = context.getState(energy=True, forces=True, groups={group})
            values.append(state.getPotentialEnergy()._value)
            gradients.append(-state.getForces(asNumpy=True)._value)
        found[name] = torch.tensor(values), torch.as_tensor(np.array(gradients))
    found.pop("", None)
    return found


def name_of(combination: tuple[str, str, str | None]) -> str:
    return " ".join(str(part or "vacuum").removesuffix(".xml") for part in combination)


SLOW = [pytest.param(each, marks=pytest.mark.slow) for each in SLOW_COMBINATIONS]


@pytest.mark.parametrize("combination", [*COMBINATIONS, *SLOW], ids=name_of)
def test_every_term_and_its_force_equal_openmm(combination) -> None:
    molecule, *_ = combination
    system = build_system(*combination)
    energy = read_system(system)
    x = distorted(molecule).requires_grad_()
    ours, theirs = energy.terms(x), openmm_terms(system, x.detach())
    assert set(ours) == set(theirs)
    for name, (value, gradient) in theirs.items():
        (our_gradient,) = torch.autograd.grad(ours[name].sum(), x, retain_graph=True)
        assert_close(ours[name], value, atol=1e-6, rtol=1e-10, msg=lambda m, n=name: f"{n}: {m}")
        error = (our_gradient - gradient).norm() / gradient.norm()
        assert error < 1e-7, f"force of {name}: relative error {error:.1e}"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("default", [torch.float32, torch.float64])
def test_the_default_dtype_does_not_matter(dtype, default) -> None:
    torch.set_default_dtype(default)
    energy = read_system(build_system("dipeptide", "amber19-all.xml"), compile=False)
    x = distorted(largest=0.01)
    exact = energy(x)
    assert exact.dtype == torch.float64
    tolerance = {torch.float32: 5e-3, torch.float64: 1e-9}[dtype]
    torch.set_default_dtype(torch.float64)
    assert_close(energy(x.to(dtype)).double(), exact, atol=tolerance, rtol=1e-6)
    fresh = read_system(build_system("dipeptide", "amber19-all.xml"), compile=False)
    assert_close(fresh(x), exact, atol=1e-9, rtol=0)


def test_energies_and_gradients_are_consistent() -> None:
    energy = read_system(build_system("dipeptide", "amber19-all.xml", "implicit/gbn2.xml"))
    check_energy(energy, distorted(n=6, largest=0.01))


def test_rigid_motion_and_exchange_of_equal_atoms_change_nothing() -> None:
    energy = read_system(build_system())
    x = distorted()
    rotation = torch.linalg.qr(torch.randn(3, 3))[0]
    rotation = rotation * torch.linalg.det(rotation).sign()
    assert_close(energy(x @ rotation + 3), energy(x), atol=1e-8, rtol=1e-9)
    order = list(range(22))
    order[11:14] = [12, 13, 11]  # HB1, HB2, HB3
    assert_close(energy(x[:, order]), energy(x), atol=1e-8, rtol=1e-9)


def test_chunks_and_padding_change_nothing_and_are_not_counted() -> None:
    energy = read_system(build_system(), compile=False)
    energy.chunk_size = 7
    x = distorted(n=30)
    expected = torch.cat([energy(row[None]) for row in x])
    energy.n_energy_calls = 0
    assert_close(energy(x), expected)
    assert (energy.n_energy_calls, energy.n_gradient_calls) == (30, 0)
    energy(x.reshape(2, 15, 22, 3).requires_grad_()).sum().backward()
    assert (energy.n_energy_calls, energy.n_gradient_calls) == (60, 30)
    assert energy(x[:0]).shape == (0,)


def test_float32_is_accurate_near_a_minimum() -> None:
    for molecule in ("dipeptide", "pentapeptide"):
        energy = read_system(build_system(molecule), compile=False)
        x = distorted(molecule, largest=0.005)
        value, gradient = energy.energy_and_gradient(x)
        value32, gradient32 = energy.energy_and_gradient(x.float())
        # Bonds feel the rounding of the positions: 1e-7 nm at 1e4 kJ/mol/nm
        assert_close(value32.double(), value, atol=1e-2, rtol=1e-6)
        assert (gradient32 - gradient).norm() / gradient.norm() < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("solvent", ["implicit/hct.xml", "implicit/gbn2.xml", "amber96_obc.xml"])
@pytest.mark.parametrize("compile", [False, True])
def test_clashes_stay_finite(dtype, solvent, compile) -> None:
    energy = read_system(build_system("dipeptide", "amber96.xml", solvent), compile=compile)
    x = reference().repeat(5, 1, 1)
    x[0, 20] = x[0, 0]  # one atom on another
    x[1, 12] = x[1, 20] + 1e-5
    x[2] *= 0.02  # everything in a point
    x[3, :, 1:] = 0  # on a line
    x[4, :, 2] = 0  # in a plane
    value, gradient = energy.energy_and_gradient(x.to(dtype))
    assert value.isfinite().all()
    assert gradient.isfinite().all()
    assert (value[:3] > 1e6).all()


@pytest.mark.parametrize("compile", [False, True])
def test_a_configuration_which_is_not_finite_spoils_only_itself(compile) -> None:
    energy = read_system(build_system("dipeptide", "amber19-all.xml"), compile=compile)
    x = distorted(n=3)
    expected = energy(x)
    x[1, 4, 0] = float("nan")
    assert energy(x)[1].isnan()
    assert_close(energy(x)[[0, 2]], expected[[0, 2]])


def test_torsion_barriers_tell_stiff_bonds_from_soft_ones() -> None:
    energy = read_system(build_system())
    bonds = [(4, 6), (14, 16), (6, 8), (8, 14), (14, 8), (8, 10), (1, 4), (16, 18), (4, 5)]
    barriers = energy.torsion_barriers(reference().numpy(), bonds)
    # Amides: four terms X-C-N-X of 2.5 kcal/mol, of period two, give 4 x 2 x 10.46 = 83.7
    assert_close(barriers[:2], np.full(2, 83.7), atol=10, rtol=0)
    assert (barriers[2:8] < 20).all()
    assert barriers[3] == barriers[4]
    assert barriers[8] == 0


def test_a_copy_and_a_pickle_evaluate_the_same() -> None:
    energy = read_system(build_system())
    x = distorted(n=3)
    expected = energy(x)
    for other in (copy.deepcopy(energy), pickle.loads(pickle.dumps(energy))):
        assert_close(other(x), expected)
        assert other.n_energy_calls == 6


def test_parameters_are_no_leaves_of_a_graph() -> None:
    energy = read_system(build_system())
    assert not [p for p in energy.modules.parameters() if p.requires_grad]


class OtherBonds(HarmonicBonds):
    """A term which has no machine code."""


def test_a_compiled_batch_equals_an_uncompiled_one(caplog) -> None:
    # Of all terms: it has a CMAP, too
    system = build_system("dipeptide", "amber19-all.xml")
    compiled, plain = read_system(system), read_system(system, compile=False)
    compiled.modules["bonds"].__class__ = OtherBonds
    x = distorted(n=150).float()
    with caplog.at_level(logging.WARNING, "gencg"):
        y = x.clone().requires_grad_()
        value = compiled(y)
        value.sum().backward()
        energies_only = compiled(x)
    assert not [record for record in caplog.records if record.name.startswith("gencg")]
    assert len(compiled._compiled) == 2
    expected, gradient = plain.energy_and_gradient(x)
    assert_close(value.detach(), expected, atol=2e-3, rtol=1e-5)
    assert_close(energies_only, expected, atol=2e-3, rtol=1e-5)
    assert (y.grad - gradient).norm() / gradient.norm() < 1e-5
    # Padded from 150 to 256; 150 count
    assert (compiled.n_energy_calls, compiled.n_gradient_calls) == (300, 150)


def test_where_torch_cannot_compile_a_warning_and_the_same_numbers(caplog, monkeypatch) -> None:
    def broken(*args, **kwargs):
        raise RuntimeError("no C++ compiler found\nand a long story")

    monkeypatch.setattr(torch, "compile", broken)
    energy = read_system(build_system())
    energy.modules["bonds"].__class__ = OtherBonds
    x = distorted(n=130)
    with caplog.at_level(logging.WARNING, "gencg"):
        values = [energy.energy_and_gradient(x)[0] for _ in range(2)]
    assert [r.message for r in caplog.records] == [
        "The force field runs uncompiled, several times slower: no C++ compiler found"
    ]
    assert_close(values[1], read_system(build_system(), compile=False)(x))


def test_compiling_is_turned_off_by_the_environment(monkeypatch) -> None:
    monkeypatch.setenv("GENCG_COMPILE", "0")
    energy = read_system(build_system())
    energy(distorted(n=130))
    assert not energy._compiled
    assert not energy._native


def test_a_low_matrix_precision_elsewhere_does_not_reach_the_energy() -> None:
    energy = read_system(build_system(), compile=False)
    x = distorted(n=3).float()
    expected = energy(x)
    torch.set_float32_matmul_precision("medium")
    try:
        assert torch.equal(energy(x), expected)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_same_energies() -> None:
    energy = read_system(build_system("dipeptide", "amber19-all.xml", "implicit/gbn2.xml"))
    x = distorted(n=200)
    value, gradient = energy.energy_and_gradient(x)
    for compile in (False, True):
        energy.compile = compile
        gpu_value, gpu_gradient = energy.energy_and_gradient(x.cuda())
        assert gpu_value.is_cuda
        assert_close(gpu_value.cpu(), value, atol=1e-6, rtol=1e-9)
        assert_close(gpu_gradient.cpu(), gradient, atol=1e-4, rtol=1e-7)


def test_the_chunk_size_must_be_positive() -> None:
    with pytest.raises(ValueError, match="`chunk_size` must be positive, got 0"):
        ForceField({}, 3, chunk_size=0)
