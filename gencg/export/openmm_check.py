"""OpenMM run for real with the file that it will be given."""

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from gencg.export.checks import Array, ExportError, Quantities

SOURCE = Path(__file__).with_name("openmm_cv.py")
"""What is written beside the TorchScript file, as it is."""


def check_openmm() -> None:
    """Refuse an OpenMM without PythonForce.

    Raises:
        ValueError: If it is missing or older than 8.5.
    """
    import openmm

    if not hasattr(openmm, "PythonForce"):
        raise ValueError(
            f"the format openmm needs OpenMM 8.5 or newer for its PythonForce, this is "
            f"{openmm.__version__}; update it, or leave the format out"
        )


def openmm_quantities(script: Path, model: Path, names: list[str], x: Array) -> Quantities:
    """Values and gradients of variables as energies and forces of OpenMM, on its CPU reference.

    The written script is loaded as a module of its own; each variable is the energy of a
    PythonForce inside a CustomCVForce, which copies it, as Metadynamics does.

    Args:
        script: The written openmm_cv.py.
        model: The TorchScript file.
        names: Columns and angles.
        x: Positions ``(n, n_atoms, 3)`` in nm.
    """
    import openmm

    found: Quantities = {}
    with _loaded(script) as written:
        for name in names:
            outer = openmm.CustomCVForce("v")
            outer.addCollectiveVariable("v", written.cv_force(model, name, n_atoms=x.shape[1]))
            context = _context([outer], x.shape[1])
            values, gradients = np.zeros(len(x)), np.zeros_like(x)
            for k, positions in enumerate(x):
                values[k], gradients[k] = _energy_and_gradient(context, positions)
            found[name] = (values, gradients)
    return found


def run_biased(
    script: Path, model: Path, start: Quantities, x: Array, masses: Array, *, n_steps: int = 20
) -> float:
    """Take a few steps with a harmonic bias on all variables, and hold its forces to differences.

    The bias pulls each variable to half a unit above where it starts, with a force of at most
    1000 kJ/mol/nm for each. Nothing else acts on the atoms, so that only the bias is looked at.

    Args:
        script: The written openmm_cv.py.
        model: The TorchScript file.
        start: Values and gradients of the columns at structures, of which the first is `x`.
        x: Where to start, ``(n_atoms, 3)`` in nm.
        masses: In amu, ``(n_atoms,)``.
        n_steps: Steps of 0.1 fs.

    Returns:
        Largest relative difference between a force and central differences of the energy along it.

    Raises:
        ExportError: If the steps leave a number that is not finite, or energy is not conserved.
    """
    import openmm

    with _loaded(script) as written:
        energy = "+".join(f"k{k}*(v{k}-a{k})^2" for k in range(len(start)))
        bias = openmm.CustomCVForce(energy)
        for k, (name, (value, gradient)) in enumerate(start.items()):
            force = written.cv_force(model, name, n_atoms=len(x))
            slope = float(np.linalg.norm(gradient[0], axis=1).max())
            bias.addCollectiveVariable(f"v{k}", force)
            bias.addGlobalParameter(f"a{k}", float(value[0]) + 0.5)
            bias.addGlobalParameter(f"k{k}", min(50.0, 1000.0 / max(slope, 1e-6)))
        context = _context([bias], len(x), masses=masses)
        context.setPositions(x)
        before = _total_energy(context)
        context.getIntegrator().step(n_steps)
        after = _total_energy(context)
        if not abs(after - before) < 1e-2 * abs(before):
            raise ExportError(
                f"{script}: {n_steps} steps with a bias change the energy from {before:.4g} to "
                f"{after:.4g} kJ/mol"
            )
        state = context.getState(positions=True)
        there = state.getPositions(asNumpy=True).value_in_unit(openmm.unit.nanometer)
        return _against_differences(context, np.array(there))


def _against_differences(context: Any, x: Array) -> float:
    _, gradient = _energy_and_gradient(context, x)
    size = float(np.linalg.norm(gradient))
    if size < 1e-6:
        return 0.0
    step = 3e-4 * gradient / size
    (up, _), (down, _) = (_energy_and_gradient(context, x + sign * step) for sign in (1, -1))
    return abs((up - down) / 6e-4 / size - 1)


def _context(forces: list[Any], n_atoms: int, *, masses: Array | None = None) -> Any:
    import openmm

    system = openmm.System()
    for k in range(n_atoms):
        system.addParticle(1.0 if masses is None else float(masses[k]))
    for force in forces:
        system.addForce(force)
    integrator = openmm.VerletIntegrator(1e-4)
    return openmm.Context(system, integrator, openmm.Platform.getPlatformByName("Reference"))


def _energy_and_gradient(context: Any, positions: Array) -> tuple[float, Array]:
    from openmm import unit

    context.setPositions(positions)
    state = context.getState(energy=True, forces=True)
    energy = state.getPotentialEnergy().value_in_unit(unit.kilojoules_per_mole)
    forces = state.getForces(asNumpy=True).value_in_unit(unit.kilojoules_per_mole / unit.nanometer)
    return float(energy), -np.array(forces)


def _total_energy(context: Any) -> float:
    from openmm import unit

    state = context.getState(energy=True)
    total = state.getPotentialEnergy() + state.getKineticEnergy()
    return float(total.value_in_unit(unit.kilojoules_per_mole))


@contextmanager
def _loaded(script: Path) -> Iterator[Any]:
    """The script as a module of its own, importable by name as long as OpenMM copies forces."""
    name = f"gencg_written_{abs(hash(str(script.resolve())))}"
    spec = importlib.util.spec_from_file_location(name, script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        del sys.modules[name]
