"""Reading OpenMM systems: what is refused, what OpenMM evaluates itself, what it minimises.

Cannot detect: a force which reads like a known form and means something else.
"""

import copy
import logging
import math

import numpy as np
import openmm
import openmm.app as app
import pytest
import torch
from openmm_systems import build_system, distorted, force_field, reference, structure
from torch.testing import assert_close

from gencg.energies.forcefield import ForceField
from gencg.energies.openmm import (
    OpenMMEnergy,
    energy_from_system,
    minimise,
    openmm_energy_terms,
    read_system,
)
from gencg.energies.openmm_values import UnreadableForceError
from gencg.testing import check_energy


def assert_like_openmm(system: openmm.System, x: torch.Tensor) -> None:
    value, gradient = read_system(system, compile=False).energy_and_gradient(x)
    expected, expected_gradient = OpenMMEnergy(system).energy_and_gradient(x)
    assert_close(value, expected, atol=1e-6, rtol=1e-10)
    assert_close(gradient, expected_gradient, atol=1e-5, rtol=1e-7)


def bare_system(n_atoms: int, *forces: openmm.Force) -> openmm.System:
    """Carbons with nothing but the given forces."""
    system = openmm.System()
    for _ in range(n_atoms):
        system.addParticle(12.0)
    for force in forces:
        system.addForce(force)
    return system


# --- Forms which the force fields at hand do not use -------------------------------------------


def test_ryckaert_bellemans_torsions() -> None:
    force = openmm.RBTorsionForce()
    force.addTorsion(0, 1, 2, 3, 9.28, 12.16, -13.12, -3.06, 26.24, -31.5)
    force.addTorsion(1, 2, 3, 4, 1.0, -2.0, 3.0, -4.0, 5.0, -6.0)
    assert_like_openmm(bare_system(5, force), 0.2 * torch.randn(20, 5, 3))


def test_periodic_torsions_of_any_phase_and_period() -> None:
    force = openmm.PeriodicTorsionForce()
    for period in range(1, 7):
        for phase in (0.0, math.pi, 0.7, -2.1):
            force.addTorsion(0, 1, 2, 3, period, phase, 3.0 + period)
            force.addTorsion(3, 2, 1, 0, period, phase, 1.0)
    assert_like_openmm(bare_system(4, force), 0.2 * torch.randn(20, 4, 3))


@pytest.mark.parametrize(
    "text",
    [
        "k*(theta-theta0)^2",
        "k*min(dtheta, 2*pi-dtheta)^2; dtheta = abs(theta-theta0);pi = 3.141593;",
        f"k*min(dtheta, 2*{math.pi}-dtheta)^2; dtheta = abs(theta-theta0)",
        f"k*min(dtheta, 2*pi - dtheta)^2; dtheta = abs(theta - theta0); pi = {math.pi}",
    ],
)
def test_harmonic_impropers(text) -> None:
    force = openmm.CustomTorsionForce(text)
    force.addPerTorsionParameter("k")
    force.addPerTorsionParameter("theta0")
    force.addTorsion(0, 1, 2, 3, (40.0, 0.0))
    force.addTorsion(1, 2, 3, 4, (20.0, 3.0))
    system, x = bare_system(5, force), 0.2 * torch.randn(20, 5, 3)
    # One of the spellings has pi to six digits
    expected = OpenMMEnergy(system)(x)
    assert_close(read_system(system, compile=False)(x), expected, atol=1e-3, rtol=1e-6)


def test_correction_maps_of_different_sizes() -> None:
    rng = np.random.default_rng(0)
    force = openmm.CMAPTorsionForce()
    for size in (24, 5):
        force.addMap(size, rng.normal(size=size * size))
    force.addTorsion(0, 0, 1, 2, 3, 1, 2, 3, 4)
    force.addTorsion(1, 1, 2, 3, 4, 0, 2, 4, 1)
    assert_like_openmm(bare_system(5, force), 0.2 * torch.randn(50, 5, 3))


@pytest.mark.parametrize("power", [1, 2])
def test_lennard_jones_by_type(power) -> None:
    text = {
        1: "acoef(type1, type2)/r^12 - bcoef(type1, type2)/r^6;",
        2: "(a/r6)^2-b/r6; r6=r^6; a=acoef(type1, type2); b=bcoef(type1, type2)",
    }[power]
    force = openmm.CustomNonbondedForce(text)
    force.addTabulatedFunction("acoef", openmm.Discrete2DFunction(2, 2, [1e-6, 2e-6, 2e-6, 3e-6]))
    force.addTabulatedFunction("bcoef", openmm.Discrete2DFunction(2, 2, [1e-3, 2e-3, 2e-3, 5e-3]))
    force.addPerParticleParameter("type")
    for kind in (0, 1, 1, 0):
        force.addParticle([kind])
    force.addExclusion(0, 2)
    assert_like_openmm(bare_system(4, force), 0.4 * torch.randn(20, 4, 3))


@pytest.mark.parametrize("form", ["HCT", "OBC1", "OBC2", "GBn", "GBn2"])
@pytest.mark.parametrize("kappa, surface", [(0.0, None), (1.3, "ACE"), (0.7, None)])
def test_salt_dielectric_and_surface_of_implicit_solvent(form, kappa, surface) -> None:
    from openmm.app.internal import customgbforces

    system = build_system(solvent=None)
    nonbonded = next(f for f in system.getForces() if isinstance(f, openmm.NonbondedForce))
    kind = getattr(customgbforces, f"GBSA{form}Force")
    force = kind(solventDielectric=60.0, soluteDielectric=2.0, SA=surface, kappa=kappa)
    standard = kind.getStandardParameters(structure("dipeptide").topology)
    for i, parameters in enumerate(standard):
        force.addParticle([nonbonded.getParticleParameters(i)[0], *parameters])
    force.finalize()
    system.addForce(force)
    assert_like_openmm(system, distorted())


def test_an_atom_inside_another_in_obc() -> None:
    force = openmm.GBSAOBCForce()
    for charge, radius, scale in ((0.5, 0.12, 0.8), (-0.5, 0.3, 1.0), (0.2, 0.15, 0.7)):
        force.addParticle(charge, radius, scale)
    x = 0.05 * torch.randn(50, 3, 3)
    assert_like_openmm(bare_system(3, force), x)


def test_a_system_that_went_through_xml_reads_the_same() -> None:
    system = build_system("dipeptide", "amber19-all.xml", "implicit/gbn2.xml")
    text = openmm.XmlSerializer.serialize(system)
    x = distorted()
    assert_close(read_system(openmm.XmlSerializer.deserialize(text))(x), read_system(system)(x))


# --- What has no batched form ------------------------------------------------------------------


def restrained() -> openmm.System:
    system = build_system()
    force = openmm.CustomExternalForce("10*x^2 + cos(y)")
    force.setName("Restraint")
    force.addParticle(3)
    system.addForce(force)
    return system


def test_another_force_makes_openmm_evaluate_and_says_so_once(caplog) -> None:
    with caplog.at_level(logging.WARNING, "gencg"):
        energy = energy_from_system(restrained())
        x = distorted(n=4)
        value = energy(x)
    assert isinstance(energy, OpenMMEnergy)
    assert len(caplog.records) == 1
    assert "Restraint (CustomExternalForce)" in caplog.records[0].message
    extra = 10 * x[:, 3, 0] ** 2 + torch.cos(x[:, 3, 1])
    assert_close(value, read_system(build_system())(x) + extra)


def test_a_plain_system_becomes_a_force_field_silently(caplog) -> None:
    with caplog.at_level(logging.WARNING, "gencg"):
        assert isinstance(energy_from_system(build_system()), ForceField)
    assert not caplog.records


def changed_born(text_of: str) -> openmm.System:
    """OBC1 with one expression changed to something OpenMM never writes."""
    system = build_system()
    force = next(f for f in system.getForces() if isinstance(f, openmm.CustomGBForce))
    if text_of == "radius":
        name, text, kind = force.getComputedValueParameters(1)
        force.setComputedValueParameters(1, name, text.replace("1/(1/or", "1.1/(1/or"), kind)
    elif text_of == "integral":
        name, text, kind = force.getComputedValueParameters(0)
        force.setComputedValueParameters(0, name, text.replace("0.25*", "0.26*"), kind)
    elif text_of == "limit":
        name, text, kind = force.getComputedValueParameters(0)
        force.setComputedValueParameters(0, name, text.replace("U=r+sr2", "U=r+2*sr2"), kind)
    elif text_of == "pair":
        text, kind = force.getEnergyTermParameters(2)
        force.setEnergyTermParameters(2, text.replace("4*B1*B2", "2*B1*B2"), kind)
    else:
        force.addEnergyTerm("charge^2", openmm.CustomGBForce.SingleParticle)
    return system


@pytest.mark.parametrize("part", ["radius", "integral", "limit", "pair", "more"])
def test_a_changed_generalised_born_form_is_not_mistaken(part) -> None:
    system = changed_born(part)
    with pytest.raises(UnreadableForceError, match="CustomGBForce"):
        read_system(system)
    # OpenMM's answer for the changed form is really another one
    x = distorted(n=2)
    assert (OpenMMEnergy(system)(x) - read_system(build_system())(x)).abs().min() > 1e-3


@pytest.mark.parametrize(
    "force, message",
    [
        (openmm.CustomTorsionForce("k*theta"), r"CustomTorsionForce k\*theta"),
        (openmm.CustomBondForce("r^4"), r"CustomBondForce r\^4"),
        (openmm.CustomNonbondedForce("1/r^4"), r"CustomNonbondedForce 1/r\^4"),
        (openmm.CustomAngleForce("theta"), "CustomAngleForce"),
    ],
)
def test_unknown_expressions_are_named(force, message) -> None:
    with pytest.raises(UnreadableForceError, match=message):
        read_system(bare_system(4, copy.deepcopy(force)))


def test_parameter_offsets_are_left_to_openmm() -> None:
    force = openmm.NonbondedForce()
    force.addGlobalParameter("scale", 1.0)
    force.addParticle(1.0, 0.3, 0.5)
    force.addParticleParameterOffset("scale", 0, 1.0, 0.0, 0.0)
    with pytest.raises(UnreadableForceError, match="parameter offsets"):
        read_system(bare_system(1, force))


def test_openmm_energy_satisfies_the_theorems_of_energies() -> None:
    check_energy(OpenMMEnergy(restrained()), distorted(n=3, largest=0.005), atol=1e-5)


def test_several_processes_give_the_same_and_count_the_same() -> None:
    x = distorted(n=5)
    alone = OpenMMEnergy(restrained())
    shared = OpenMMEnergy(restrained(), n_processes=2)
    try:
        assert_close(shared(x), alone(x))
        expected, gradient = alone.energy_and_gradient(x)
        y = x.clone().requires_grad_()
        value = shared(y)
        value.sum().backward()
        assert_close(value.detach(), expected)
        assert_close(y.grad, gradient)
        assert (shared.n_energy_calls, shared.n_gradient_calls) == (10, 5)
        assert shared(x[:0]).shape == (0,)
        with pytest.raises(RuntimeError, match="OpenMM failed in a worker process"):
            shared.workers(x[:, :-1].numpy(), True)
        assert_close(shared(x[:1]), alone(x[:1]))
    finally:
        shared.workers.close()


# --- Refusals ----------------------------------------------------------------------------------


def options(**keywords) -> openmm.System:
    topology = structure("dipeptide").topology
    if "nonbondedMethod" in keywords:
        topology = copy.deepcopy(topology)
        topology.setPeriodicBoxVectors(np.eye(3) * 4)
    return force_field("amber96.xml").createSystem(topology, **keywords)


def virtual() -> openmm.System:
    system = build_system()
    system.setParticleMass(3, 0.0)
    system.setVirtualSite(3, openmm.TwoParticleAverageSite(1, 2, 0.5, 0.5))
    return system


def massless() -> openmm.System:
    system = build_system()
    system.setParticleMass(3, 0.0)
    return system


def broken() -> openmm.System:
    force = openmm.HarmonicBondForce()
    force.addBond(0, 1, math.nan, 1.0)
    return bare_system(2, force)


REFUSED = {
    "constraints": (
        lambda: options(constraints=app.HBonds),
        r"12 constrained bonds.*build it with constraints=None",
    ),
    "periodic": (
        lambda: options(nonbondedMethod=app.PME, nonbondedCutoff=1.0, constraints=None),
        r"periodic \(.*NonbondedForce.*nonbondedMethod=NoCutoff",
    ),
    "cutoff": (
        lambda: options(nonbondedMethod=app.CutoffNonPeriodic, constraints=None),
        r"cutoff \(NonbondedForce\).*nonbondedMethod=NoCutoff",
    ),
    "virtual sites": (virtual, "1 virtual sites.*choose a force field without"),
    "massless": (massless, "1 particles without mass.*give every particle its mass"),
    "no particles": (openmm.System, "no particles"),
}


@pytest.mark.parametrize("build, message", REFUSED.values(), ids=REFUSED.keys())
@pytest.mark.parametrize("use", [read_system, OpenMMEnergy, energy_from_system])
def test_what_does_not_define_the_distribution_is_refused(build, message, use) -> None:
    with pytest.raises(ValueError, match=message):
        use(build())


def test_parameters_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="non-finite parameters in its bonds"):
        read_system(broken())


def test_wrong_arguments_of_openmm_energy() -> None:
    with pytest.raises(ValueError, match=r"`platform` must be one of .*Reference.*, got 'Abacus'"):
        OpenMMEnergy(build_system(), platform="Abacus")
    with pytest.raises(ValueError, match="`n_processes` must be positive, got 0"):
        OpenMMEnergy(build_system(), n_processes=0)


# --- Minimising and terms ----------------------------------------------------------------------


def test_a_minimum_has_no_forces() -> None:
    system = build_system()
    minimum = minimise(system, distorted(n=2, largest=0.01)[1].numpy())
    value, gradient = read_system(system).energy_and_gradient(torch.as_tensor(minimum)[None])
    assert gradient.square().mean().sqrt() < 0.05
    assert_close(value, torch.tensor([-173.1706]), atol=1e-3, rtol=0)


def test_terms_have_the_same_names_and_values_on_both_sides() -> None:
    system = build_system("dipeptide", "amber19-all.xml")
    groups = [f.getForceGroup() for f in system.getForces()]
    theirs = openmm_energy_terms(system, reference().numpy())
    ours = read_system(system).terms(reference())
    assert theirs == pytest.approx({name: float(value) for name, value in ours.items()})
    assert [f.getForceGroup() for f in system.getForces()] == groups


@pytest.mark.parametrize("use", [minimise, openmm_energy_terms])
def test_wrong_positions_are_refused(use) -> None:
    x = reference().numpy()
    with pytest.raises(ValueError, match=r"`positions` must have shape \(22, 3\), got \(21, 3\)"):
        use(build_system(), x[1:])
    x[5, 1] = math.nan
    with pytest.raises(ValueError, match="atom 5"):
        use(build_system(), x)
