"""Plain numbers out of OpenMM's objects, its contexts, and what they evaluate."""

import re
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gencg.energies.workers import Evaluator

Array = NDArray[np.float64]


class UnreadableForceError(ValueError):
    """A force which `ForceField` has no batched form for; OpenMM can evaluate it."""


def type_name(force: Any) -> str:
    """Class of OpenMM a force belongs to: a subclass written in Python counts as its parent."""
    return next(c.__name__ for c in type(force).__mro__ if c.__module__.startswith("openmm.openmm"))


def plain(value: Any) -> Any:
    """The bare number of a quantity, in nm, kJ/mol, rad, e and amu."""
    from openmm import unit

    return value.value_in_unit_system(unit.md_unit_system) if unit.is_quantity(value) else value


def indexed(force: Any, what: str, count: str | None = None) -> list[list[Any]]:
    """All parameters of one kind (``"Bond"``) of a force, as bare numbers."""
    n = getattr(force, f"getNum{count or what + 's'}")()
    get = getattr(force, f"get{what}Parameters")
    return [[plain(value) for value in get(i)] for i in range(n)]


def expression(text: str) -> str:
    """An energy expression without spaces and empty statements."""
    return ";".join(part for part in re.sub(r"\s", "", text).split(";") if part)


def particle_rows(force: Any) -> list[tuple[float, ...]]:
    """Parameters of the particles of a custom force."""
    return [tuple(force.getParticleParameters(i)) for i in range(force.getNumParticles())]


def tabulated_functions(force: Any) -> dict[str, Array]:
    """Two-dimensional tables of a custom force, ``table[i, j] = f(i, j)``."""
    tables = {}
    for k in range(force.getNumTabulatedFunctions()):
        nx, ny, values = force.getTabulatedFunction(k).getFunctionParameters()
        tables[force.getTabulatedFunctionName(k)] = np.array(values, float).reshape(ny, nx).T
    return tables


def create_context(system: Any, platform: str) -> Any:
    """A context of a system on a platform.

    Raises:
        ValueError: If OpenMM has no such platform.
    """
    import openmm

    names = [
        openmm.Platform.getPlatform(i).getName() for i in range(openmm.Platform.getNumPlatforms())
    ]
    if platform not in names:
        raise ValueError(f"`platform` must be one of {', '.join(names)}, got {platform!r}")
    integrator = openmm.VerletIntegrator(0.001)
    return openmm.Context(system, integrator, openmm.Platform.getPlatformByName(platform))


def to_xml(system: Any) -> str:
    """A system as text."""
    import openmm

    return str(openmm.XmlSerializer.serialize(system))


def from_xml(text: str) -> Any:
    """The system of a text."""
    import openmm

    return openmm.XmlSerializer.deserialize(text)


def evaluate(context: Any, positions: Array, gradient: bool) -> tuple[Array, Array]:
    """Energies ``(n,)`` and gradients ``(n, n_atoms, 3)``; without gradient the latter is empty."""
    values, gradients = (
        np.empty(len(positions)),
        np.empty_like(positions if gradient else positions[:0]),
    )
    for k, configuration in enumerate(positions):
        context.setPositions(configuration)
        state = context.getState(energy=True, forces=gradient)
        values[k] = state.getPotentialEnergy()._value
        if gradient:
            gradients[k] = -state.getForces(asNumpy=True)._value
    return values, gradients


def build_evaluator(system: str, platform: str) -> Evaluator:
    """What evaluates a system given as text, on a platform."""
    return partial(evaluate, create_context(from_xml(system), platform))
