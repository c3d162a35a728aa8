"""Machine code and torch modules are the same force field, whatever the batch.

Cannot detect: an error which both share; the torch modules are held against OpenMM elsewhere.
"""

import copy
import logging

import numpy as np
import openmm
import pytest
import torch
from openmm_systems import COMBINATIONS, build_system, distorted
from torch.testing import assert_close

from experiments.benchmarks.peptides import polyalanine
from gencg.energies import native
from gencg.energies.native import NativeForceField, UnsupportedTermError
from gencg.energies.openmm import OpenMMEnergy, minimise, read_system
from gencg.systems.force_fields import create_system, load_force_field


def name_of(combination) -> str:
    return " ".join(str(part or "vacuum").removesuffix(".xml") for part in combination)


def assert_native_equals_torch(system: openmm.System, x: torch.Tensor) -> None:
    compiled, plain = read_system(system), read_system(system, compile=False)
    value, gradient = compiled.energy_and_gradient(x)
    assert isinstance(compiled._native[x.dtype], NativeForceField)
    expected, expected_gradient = plain.energy_and_gradient(x)
    assert_close(value, expected, atol=1e-9, rtol=1e-12)
    assert_close(compiled(x), expected, atol=1e-9, rtol=1e-12)
    largest = expected_gradient.norm(dim=(1, 2), keepdim=True)
    assert_close(gradient / largest, expected_gradient / largest, atol=1e-10, rtol=0)


# Every fifth: all solvents and all force fields are among them
@pytest.mark.parametrize("combination", COMBINATIONS[::5], ids=name_of)
def test_every_force_field(combination) -> None:
    assert_native_equals_torch(build_system(*combination), distorted(combination[0]))


@pytest.mark.parametrize("form", ["HCT", "OBC1", "OBC2", "GBn", "GBn2"])
def test_salt_and_surface(form) -> None:
    from openmm.app.internal import customgbforces
    from openmm_systems import structure

    system = build_system(solvent=None)
    nonbonded = next(f for f in system.getForces() if isinstance(f, openmm.NonbondedForce))
    kind = getattr(customgbforces, f"GBSA{form}Force")
    force = kind(solventDielectric=60.0, soluteDielectric=2.0, SA="ACE", kappa=1.3)
    for i, parameters in enumerate(kind.getStandardParameters(structure("dipeptide").topology)):
        force.addParticle([nonbonded.getParticleParameters(i)[0], *parameters])
    force.finalize()
    system.addForce(force)
    assert_native_equals_torch(system, distorted())


def bare_system(n_atoms: int, *forces: openmm.Force) -> openmm.System:
    system = openmm.System()
    for _ in range(n_atoms):
        system.addParticle(12.0)
    for force in forces:
        # The system owns what it is given
        system.addForce(copy.deepcopy(force))
    return system


def test_unusual_terms() -> None:
    periodic = openmm.PeriodicTorsionForce()
    for period in range(1, 7):
        periodic.addTorsion(0, 1, 2, 3, period, 0.7 * period, 3.0 + period)
    ryckaert = openmm.RBTorsionForce()
    ryckaert.addTorsion(1, 2, 3, 4, 1.0, -2.0, 3.0, -4.0, 5.0, -6.0)
    maps, rng = openmm.CMAPTorsionForce(), np.random.default_rng(0)
    for size in (24, 5):
        maps.addMap(size, rng.normal(size=size * size))
    maps.addTorsion(0, 0, 1, 2, 3, 1, 2, 3, 4)
    maps.addTorsion(1, 1, 2, 3, 4, 0, 2, 4, 1)
    impropers = openmm.CustomTorsionForce("k*(theta-theta0)^2")
    wrapped = openmm.CustomTorsionForce(
        "k*min(dtheta, 2*pi-dtheta)^2; dtheta = abs(theta-theta0); pi = 3.14159265358979"
    )
    for force, center in ((impropers, 0.3), (wrapped, 3.0)):
        force.addPerTorsionParameter("k")
        force.addPerTorsionParameter("theta0")
        force.addTorsion(0, 1, 2, 3, (40.0, center))
        force.addTorsion(4, 2, 0, 1, (20.0, -center))
    buried = openmm.GBSAOBCForce()
    for charge, radius, scale in ((0.5, 0.12, 0.8), (-0.5, 0.3, 1.0), (0.2, 0.15, 0.7)):
        buried.addParticle(charge, radius, scale)
    x = 0.2 * torch.randn(100, 5, 3)
    for force in (periodic, ryckaert, maps, impropers, wrapped):
        assert_native_equals_torch(bare_system(5, force), x)
    # Atoms inside one another, and two solvents at once
    assert_native_equals_torch(bare_system(3, buried), 0.3 * x[:, :3])
    assert_native_equals_torch(bare_system(3, buried, buried), x[:, :3])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_result_does_not_depend_on_its_batch(dtype) -> None:
    energy = read_system(build_system("pentapeptide", "amber19-all.xml", "implicit/gbn2.xml"))
    x = distorted("pentapeptide", n=75).to(dtype)
    value, gradient = energy.energy_and_gradient(x)
    for size in (1, 7, 64):
        parts = [energy.energy_and_gradient(part) for part in torch.split(x, size)]
        assert torch.equal(torch.cat([v for v, _ in parts]), value)
        assert torch.equal(torch.cat([g for _, g in parts]), gradient)
    # Nor on the number of threads, nor on strides
    n_threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert torch.equal(energy.energy_and_gradient(x)[1], gradient)
    finally:
        torch.set_num_threads(n_threads)
    transposed = x.permute(2, 1, 0).contiguous().permute(2, 1, 0)
    # With and without gradient are two pieces of machine code, alike to rounding
    assert torch.equal(energy(transposed), energy(x))
    assert_close(energy(x), value)
    assert energy.energy_and_gradient(x[:0])[1].shape == (0, *x.shape[1:])


@pytest.fixture(scope="module")
def long_chain() -> tuple[torch.Tensor, dict[str, openmm.System]]:
    """ACE-(ALA)29-NME, 302 atoms: relaxed and a little distorted, in two solvents."""
    topology, positions = polyalanine(29)
    solvents = {"obc": ("amber99sbildn.xml", "amber99_obc.xml")}
    solvents["gbn2"] = ("amber96.xml", "implicit/gbn2.xml")
    systems = {
        name: create_system(load_force_field(files), topology, source=name)
        for name, files in solvents.items()
    }
    minimum = minimise(systems["obc"], positions, max_iterations=50)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(3, *minimum.shape, generator=generator, dtype=torch.float64)
    return torch.as_tensor(minimum) + 0.003 * noise, systems


@pytest.mark.parametrize("solvent", ["obc", "gbn2"])
def test_a_chain_of_300_atoms_equals_openmm(long_chain, solvent) -> None:
    x, systems = long_chain
    energy = read_system(systems[solvent])
    value, gradient = energy.energy_and_gradient(x)
    expected, expected_gradient = OpenMMEnergy(systems[solvent]).energy_and_gradient(x)
    assert_close(value, expected, atol=1e-6, rtol=1e-10)
    assert (gradient - expected_gradient).norm() / expected_gradient.norm() < 1e-8
    # float32 at the same positions, rounded: what the arithmetic alone adds
    rounded = x.float()
    value, gradient = energy.energy_and_gradient(rounded.double())
    value32, gradient32 = energy.energy_and_gradient(rounded)
    assert_close(value32.double(), value, atol=0.01, rtol=0)
    assert (gradient32 - gradient).norm() / gradient.norm() < 5e-6


# --- Without machine code ------------------------------------------------------------------------


def test_without_a_compiler_a_warning_and_the_same_numbers(caplog, monkeypatch) -> None:
    def broken(source: object) -> None:
        raise RuntimeError("no C++ compiler found")

    monkeypatch.setattr(native, "load_library", broken)
    energy, x = read_system(build_system()), distorted(n=130)
    with caplog.at_level(logging.WARNING, "gencg"):
        values = [energy.energy_and_gradient(x)[0] for _ in range(2)]
    assert [r.message for r in caplog.records] == [
        "The force field runs uncompiled, several times slower: no C++ compiler found"
    ]
    assert torch.equal(values[1], read_system(build_system(), compile=False)(x))


def test_what_has_no_machine_code_is_named() -> None:
    modules = list(read_system(build_system()).modules.values())
    with pytest.raises(UnsupportedTermError, match=r"torch.float16 has no machine code"):
        NativeForceField(modules, 22, torch.float16)
    with pytest.raises(UnsupportedTermError, match="Linear has no machine code"):
        NativeForceField([torch.nn.Linear(1, 1)], 22, torch.float32)
