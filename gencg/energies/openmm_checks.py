"""Which OpenMM systems describe one free molecule."""

from typing import Any

from gencg.energies.openmm_values import plain


def check_system(system: Any) -> None:
    """Raise `ValueError` for a system whose Boltzmann distribution its energy does not define."""
    n_atoms = system.getNumParticles()
    n_virtual = sum(system.isVirtualSite(i) for i in range(n_atoms))
    n_massless = sum(
        plain(system.getParticleMass(i)) <= 0 and not system.isVirtualSite(i)
        for i in range(n_atoms)
    )
    periodic = [f.getName() for f in system.getForces() if is_periodic(f)]
    cut = [f.getName() for f in system.getForces() if has_cutoff(f)]
    if n_atoms == 0:
        raise ValueError("`system` has no particles")
    if n_constraints := system.getNumConstraints():
        raise ValueError(
            f"`system` has {n_constraints} constrained bonds, whose lengths the force field does "
            "not restrain; build it with constraints=None, rigidWater=False"
        )
    if n_virtual:
        raise ValueError(
            f"`system` has {n_virtual} virtual sites, which are no degrees of freedom; choose a "
            "force field without them"
        )
    if n_massless:
        raise ValueError(
            f"`system` has {n_massless} particles without mass, which OpenMM holds in place; "
            "give every particle its mass"
        )
    if periodic:
        raise ValueError(
            f"`system` is periodic ({', '.join(periodic)}); gencg describes one molecule in "
            "vacuum or implicit solvent: build it with nonbondedMethod=NoCutoff"
        )
    if cut:
        raise ValueError(
            f"`system` has a cutoff ({', '.join(cut)}); build it with nonbondedMethod=NoCutoff"
        )


def is_periodic(force: Any) -> bool:
    """Whether a force repeats in space; forces which do not say are not."""
    try:
        return bool(force.usesPeriodicBoundaryConditions())
    except Exception:
        return False


def has_cutoff(force: Any) -> bool:
    """Whether a force leaves out pairs beyond a distance."""
    method = getattr(force, "getNonbondedMethod", None)
    return method is not None and method() != type(force).NoCutoff
